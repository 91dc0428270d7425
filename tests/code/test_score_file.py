"""Scoring files: every format, every row kept, stopped and resumed, nothing half written."""

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest
from tests.tiny_models import TASKS, tiny_classifier

from aftersales.core.errors import DataError
from aftersales.runtime.classifier import Classifier
from aftersales.scoring import files
from aftersales.scoring.files import score_file


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        task: Classifier.load(tiny_classifier(folder / task, task, TASKS[task]))
        for task in ("intent", "complaint_cause")
    }


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 4)


ROWS = [{"no": number, "text": f"第{number}个快递没到" if number != 3 else " ", "paid": 1.5} for number in range(10)]


def write(path):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, ROWS[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    return path


def read(path):
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list(csv.DictReader(path.open(encoding="utf-8"), delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("source", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("target", [".csv", ".jsonl", ".parquet"])
def test_every_row_keeps_its_place_in_every_format(tmp_path, classifiers, small_chunks, source, target):
    out = tmp_path / f"out{target}"
    assert score_file(write(tmp_path / f"in{source}"), out, classifiers) == 10
    rows = read(out)
    assert [int(row["no"]) for row in rows] == list(range(10))
    assert rows[3]["score_error"] == "empty text" and not rows[3]["intent.label"]
    alone = classifiers["intent"].predict([ROWS[5]["text"]], top_k=1)[0].flat()
    assert rows[5]["intent.label"] == alone["label"] and rows[5]["intent.decision"] == alone["decision"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"in{source}", out.name])


def test_numbers_keep_their_type(tmp_path, classifiers):
    score_file(write(tmp_path / "in.jsonl"), tmp_path / "out.parquet", classifiers)
    schema = pyarrow.parquet.read_schema(tmp_path / "out.parquet")
    assert schema.field("no").type == pyarrow.int64() and schema.field("paid").type == pyarrow.float64()


def test_stopped_and_resumed_scores_the_rest_only(tmp_path, classifiers, small_chunks, monkeypatch):
    source, out = write(tmp_path / "in.csv"), tmp_path / "out.jsonl"
    real, calls = files.answer_rows, []

    def stop_at_second(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(files, "answer_rows", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        score_file(source, out, classifiers)
    assert not out.exists()
    calls.clear()
    monkeypatch.setattr(files, "answer_rows", lambda *arguments: calls.append(1) or real(*arguments))
    score_file(source, out, classifiers)
    assert len(calls) == 2, "the first chunk must not be scored again"
    whole = tmp_path / "whole.jsonl"
    score_file(source, whole, classifiers)
    assert out.read_text() == whole.read_text()


def test_an_unfinished_run_of_another_input_is_refused(tmp_path, classifiers, monkeypatch):
    source, out = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    monkeypatch.setattr(files, "write_rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        score_file(source, out, classifiers)
    monkeypatch.undo()
    source.write_text("text\n别的内容\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"unfinished run with another input"):
        score_file(source, out, classifiers)


def test_bad_arguments(tmp_path, classifiers):
    source = write(tmp_path / "in.csv")
    with pytest.raises(DataError, match=r"no column 'message'"):
        score_file(source, tmp_path / "out.csv", classifiers, "message")
    with pytest.raises(DataError, match=r"is the input file"):
        score_file(source, source, classifiers)
    with pytest.raises(DataError, match=r"the ending '.xlsx'"):
        score_file(source, tmp_path / "out.xlsx", classifiers)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
