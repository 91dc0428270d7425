"""Reading labelled texts: each kind of bad input ends with an error that names it and the way out."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from aftersales.core.config import build
from aftersales.core.errors import ConfigError, DataError
from aftersales.corpora.labelled import (
    FOLDS,
    Columns,
    Example,
    assemble,
    held_out_fold,
    read_examples,
    split_by_key,
)
from aftersales.corpora.load import DataConfig, load_data
from aftersales.corpora.public import load_public
from aftersales.tasks import Label, Task, find_task, load_task
from aftersales.tasks.task import Title

TASK = Task(
    name="mood", title=Title(en="Mood", zh="心情"), kind="single_label", labels=[Label(name="good"), Label(name="bad")]
)
MANY = TASK.model_copy(update={"kind": "multi_label"})


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_the_same_rows_from_every_format(tmp_path):
    rows = [{"text": "好,的", "label": "good"}, {"text": "差", "label": "bad"}]
    csv = write(tmp_path / "a.csv", '\ufefftext,label\n"好,的",good\n差,bad\n')
    tsv = write(tmp_path / "a.tsv", "text\tlabel\n好,的\tgood\n差\tbad\n")
    lines = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    parquet = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    found = [[(e.text, e.labels) for e in read_examples(path, TASK, Columns())] for path in (csv, tsv, lines, parquet)]
    assert found == [[("好,的", ("good",)), ("差", ("bad",))]] * 4


@pytest.mark.parametrize(
    ("name", "content", "encoding", "expected"),
    [
        ("a.csv", "text,label\n ,good\n", "utf-8", "line 2: the text is empty"),
        ("a.csv", "text,label\n好,god\n", "utf-8", "unknown label 'god'; did you mean 'good'; mend the row"),
        ("a.csv", "txt,label\n好,good\n", "utf-8", "no column 'text'; did you mean 'txt'; rename"),
        ("a.csv", "id,text,label\n1,好,good\n1,差,bad\n", "utf-8", "duplicate id '1', first used in line 2"),
        ("a.csv", "text,label\n" + "长" * 100_000 + ",good\n", "utf-8", "100,000 characters, at most 10,000"),
        ("a.csv", "text,label\n质量很差,bad\n", "gb18030", "line 2 is not UTF-8; it looks like GB18030"),
        ("a.csv", "text,label\n好,good\n", "utf-16", "looks like UTF-16"),
        ("a.csv", "text,label\n好,good,x\n", "utf-8", "more cells than the header"),
        ("a.csv", "", "utf-8", "has no rows"),
        ("a.jsonl", '{"text": "好", "label": "good"}\n{"text": ', "utf-8", "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "utf-8", "line 1 is not a JSON object"),
        ("a.jsonl", '{"text": "好", "label": "good"}\n{"text": "差"}\n', "utf-8", "line 2: the row has no 'label'"),
        ("a.jsonl", '{"text": "好", "label": "good"}\n{"label": "bad"}\n', "utf-8", "line 2: the text is empty"),
        ("a.jsonl", '{"text": ' + "9" * 5000 + "}\n", "utf-8", "line 1 is not JSON"),
        ("a.jsonl", "[" * 100_000 + "\n", "utf-8", "line 1 is not JSON"),
        ("a.parquet", "no parquet", "utf-8", "is not a Parquet file"),
        ("a.xlsx", "x", "utf-8", "the ending '.xlsx' is not one of"),
    ],
)
def test_bad_files(tmp_path, name, content, encoding, expected):
    with pytest.raises(DataError) as error:
        read_examples(write(tmp_path / name, content, encoding), TASK, Columns())
    assert expected in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_examples(tmp_path / "none.csv", TASK, Columns())


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\n好,good\n,bad\n差,awful\n")
    notes = []
    assert len(read_examples(path, TASK, Columns(), notes)) == 1
    assert notes[0].startswith("2 bad rows")


def test_labels_are_renamed_and_split(tmp_path):
    path = write(tmp_path / "a.csv", "t,l\n好,1\n差,0;1\n,\n".replace("\n,\n", "\n平,\n"))
    columns = Columns("t", "l", None, ";", {"1": "good", "0": "bad"})
    assert [e.labels for e in read_examples(path, MANY, columns)] == [("good",), ("bad", "good"), ()]


def examples(count, label="good", start=0):
    return [Example(str(i), f"第{i}条评论", (label,)) for i in range(start, start + count)]


def test_the_split_of_a_text_does_not_move_when_rows_are_added():
    few = split_by_key(examples(200))
    many = split_by_key(examples(400))
    for part, larger in zip(few[:3], many[:3], strict=True):
        assert {e.text for e in part} <= {e.text for e in larger}
    assert [len(part) for part in many[:3]] == pytest.approx([320, 40, 40], abs=25)


def test_repeated_texts_count_once():
    *_, notes = split_by_key([*examples(50), *examples(50)])
    assert notes == ["50 rows repeat an earlier text and were left out"]


def test_a_label_with_one_row_is_refused():
    rows = [*examples(10), *examples(1, "bad", 100)]
    with pytest.raises(DataError, match=r"label 'bad' has 1 training row.*data\.label_map\.bad="):
        assemble(TASK, rows, examples(2, start=200), examples(2, start=300))


def test_texts_of_the_test_split_leave_training():
    data = assemble(
        TASK, [*examples(10), *examples(5, "bad", 50)], examples(2, start=200), [Example("x", "第3条评论!", ("good",))]
    )
    assert len(data.train) == 14
    assert "1 training rows stand in validation or test" in data.notes[0]


def test_what_a_model_takes_for_the_same_text_leaves_training_too():
    rows = [*examples(10), *examples(5, "bad", 50), Example("w", "订单１２３没到啊啊啊啊", ("good",))]
    data = assemble(TASK, rows, examples(2, start=200), [Example("x", "订单123没到啊啊啊", ("good",))])
    assert len(data.train) == 15


def test_a_split_that_ends_up_empty_or_a_single_label_is_refused():
    rows = [*examples(10), *examples(5, "bad", 50)]
    with pytest.raises(DataError, match=r"the validation split is empty \(rows that stand in a later split"):
        assemble(TASK, rows, examples(2, start=200), examples(2, start=200))
    with pytest.raises(DataError, match=r"every row has the label 'good'"):
        assemble(TASK, examples(10), examples(2, start=200), examples(2, start=300))


def test_a_label_map_to_an_unknown_label_is_the_configs_mistake(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\n好,5\n")
    with pytest.raises(ConfigError, match=r"data\.label_map\.5: unknown label 'postive'; did you mean 'positive'"):
        load_data(DataConfig(task="sentiment", path=path, label_map={"5": "postive"}))


@pytest.mark.parametrize("keys", [{"text_column": "t"}, {"label_map": {"a": "b"}}, {"bad_rows": "skip"}])
def test_options_of_a_file_without_a_file_are_refused(keys):
    with pytest.raises(ConfigError, match=rf"data\.{next(iter(keys))} goes with data\.path"):
        build(DataConfig, {"task": "intent", **keys}, "here")


def test_a_damaged_parquet_file_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": [f"第{i}条评论" for i in range(5000)], "label": ["good"] * 5000})
    pyarrow.parquet.write_table(table, path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[200:20_000] = b"\xff" * 19_800
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged after row|is not a Parquet file"):
        read_examples(path, TASK, Columns())


def test_the_fingerprint_follows_content_not_order():
    rows = [*examples(10), *examples(5, "bad", 50)]
    one = assemble(TASK, rows, examples(2, start=200), examples(2, start=300))
    two = assemble(TASK, rows[::-1], examples(2, start=200), examples(2, start=300))
    three = assemble(TASK, rows[1:], examples(2, start=200), examples(2, start=300))
    assert one.fingerprint == two.fingerprint != three.fingerprint


def test_unknown_task_and_wrong_task_folder(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'intent'"):
        find_task("intents")
    folder = tmp_path / "other"
    folder.mkdir()
    write(
        folder / "task.yaml", "name: mood\ntitle: {en: m, zh: m}\nkind: single_label\nlabels: [{name: a}, {name: b}]\n"
    )
    with pytest.raises(ConfigError, match="name is 'mood' but the folder is 'other'"):
        load_task(folder)


def test_own_file_with_labels_of_a_shipped_task(tmp_path):
    lines = [f"{i},第{i}条真不错的评论,1\n" for i in range(60)] + [f"{i},第{i}次太失望了,0\n" for i in range(60, 120)]
    path = write(tmp_path / "my.csv", "no,review,stars\n" + "".join(lines))
    config = DataConfig(
        task="sentiment",
        path=path,
        text_column="review",
        label_column="stars",
        label_map={"1": "positive", "0": "negative"},
    )
    data = load_data(config)
    assert data.task.label_names == ["negative", "positive"]
    assert sum(len(part) for part in data.splits.values()) == 120
    assert data.notes == ["labels without a row are left out of the model: neutral"]


def test_folds_cut_no_group_and_cover_every_row():
    rows = [*examples(300), *examples(300, "bad", 1000)]
    groups = [f"dialogue {int(example.id) // 3}" for example in rows]
    held_out = []
    for fold in range(FOLDS):
        data = held_out_fold(TASK, rows, groups, fold)
        parts = [{int(e.id) // 3 for e in part} for part in (data.train, data.validation, data.test)]
        assert not parts[0] & parts[2] and not parts[1] & parts[2] and not parts[0] & parts[1]
        held_out += [e.id for e in data.test]
    assert sorted(held_out) == sorted(e.id for e in rows)


@pytest.mark.parametrize(
    ("name", "fold", "expected"),
    [
        ("jddc_uss_asap", None, "needs data.fold, 0 to 4"),
        ("smp2017_task1", 1, "leave out data.fold"),
        ("smp2018", None, "did you mean 'smp2017_task1'"),
    ],
)
def test_public_sets_say_whether_they_want_a_fold(name, fold, expected):
    with pytest.raises(ConfigError, match=expected):
        load_public(name, fold)


def test_aspects_are_joined_from_two_files_of_unlike_encodings(tmp_path, monkeypatch):
    folder = tmp_path / "zhijiang2019"
    folder.mkdir()
    texts = [f"第{number}瓶香味很好{'，物流慢' if number % 2 else ''}" for number in range(200)]
    rows = [
        f"{number},{text},整体,好,整体,正面" for number, text in enumerate(texts)
    ]  # the last four are another row's
    review = "\n".join(["id,Reviews,AspectTerms,OpinionTerms,Categories,Polarities", *rows])
    (folder / "Train_reviews.csv").write_bytes(review.encode("gb18030"))
    labels = [f"{number},_,0,1,好,0,1,气味,正面" for number in range(200)]
    labels += [f"{number},_,0,1,慢,0,1,物流,负面" for number in range(1, 200, 2)] + ["0,_,0,1,贵,0,1,价格,负面"]
    heading = "id,AspectTerms,A_start,A_end,OpinionTerms,O_start,O_end,Categories,Polarities"
    (folder / "Train_labels.csv").write_text("\n".join([heading, *labels]), encoding="utf-8")
    monkeypatch.setenv("AFTERSALES_PUBLIC_DATA", str(tmp_path))
    data = load_public("zhijiang2019")
    found = {example.text: set(example.labels) for part in data.splits.values() for example in part}
    assert data.task.label_names == ["气味_positive", "物流_negative"], "a pair with one row is left out"
    assert len(found) == 200 and found[texts[0]] == {"气味_positive"}
    assert found[texts[1]] == {"气味_positive", "物流_negative"}


def test_words_of_the_car_set_are_joined_to_text(tmp_path, monkeypatch):
    folder = tmp_path / "bdci2018_car"
    folder.mkdir()
    lines = [f"油耗 第 {number} 次 很 高\t油耗#-1 {'价格#0' if number % 2 else '动力#1'}" for number in range(200)]
    (folder / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("AFTERSALES_PUBLIC_DATA", str(tmp_path))
    data = load_public("bdci2018_car")
    assert data.task.label_names == ["价格_neutral", "动力_positive", "油耗_negative"]
    example = next(one for one in data.train if "价格_neutral" in one.labels)
    assert set(example.labels) == {"油耗_negative", "价格_neutral"} and " " not in example.text


def test_turns_of_a_dialogue_stand_behind_the_customers_two_turns_before(tmp_path, monkeypatch):
    folder = tmp_path / "jddc_uss_asap"
    folder.mkdir()
    rows = ["split\tdialog\tturn\ttext\tprevious_system\taction"]
    for dialogue in range(40):
        turns = (("在吗", "OTHER"), ("发票呢", "发票"), (f"{dialogue}号退", "退款"), (f"好的{dialogue}", "发票"))
        rows += [f"valid\t{dialogue}\t{turn}\t{text}\t您好\t{label}" for turn, (text, label) in enumerate(turns)]
    (folder / "jddc_intent_utterances.tsv").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.setenv("AFTERSALES_PUBLIC_DATA", str(tmp_path))
    data = load_public("jddc_uss_asap", 0)
    texts = {example.text for part in data.splits.values() for example in part}
    assert "发票呢｜7号退｜好的7" in texts and "您好" not in "".join(texts)
    assert data.task.label_names == ["发票", "退款"]


def test_published_dev_rows_of_chnsenticorp_that_stand_elsewhere_choose_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "ChnSentiCorp"
    folder.mkdir()
    parts = {
        "train": ["1\t房间很干净", "0\t隔音太差"],
        "dev": ["1\t房间很干净！", "0\t早餐难吃", "1\t位置不错"],
        "test": ["0\t隔音太差", "1\t位置不错", "0\t空调不制冷"],
    }
    for part, rows in parts.items():
        (folder / f"{part}.tsv").write_text("\n".join(["label\ttext_a", *rows]), encoding="utf-8")
    monkeypatch.setenv("AFTERSALES_PUBLIC_DATA", str(tmp_path))
    data = load_public("chnsenticorp")
    assert [example.text for example in data.validation] == ["早餐难吃"]
    assert [(example.text, example.marks) for example in data.test] == [
        ("隔音太差", ()),
        ("位置不错", ("unseen",)),
        ("空调不制冷", ("unseen",)),
    ]
    assert data.notes == ["2 validation rows stand in train or test and were left out"]
