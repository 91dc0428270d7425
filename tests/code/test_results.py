"""Results of experiments: rows replace their like, a measured one is never lost, the table is the file's."""

import json

import numpy as np
import pytest

from aftersales.core.errors import DataError
from aftersales.evaluation.classification import figures, over_seeds
from aftersales.evaluation.results import BEGIN, END, Result, merge_results, read_results, write_table


def row(model, value=None, **more):
    return Result(dataset="set", split="test", model=model, metric="accuracy", value=value, **more)


def test_a_row_replaces_its_like_and_an_empty_one_never_replaces_a_measured_one(tmp_path):
    path = tmp_path / "results.json"
    merge_results(path, [row("a", 0.5), row("b", command="measure b")])
    rows = merge_results(path, [row("a", 0.7), row("a"), row("c", 0.1)])
    assert {one.model: one.value for one in rows} == {"a": 0.7, "b": None, "c": 0.1}
    assert read_results(path) == rows
    assert "value" not in next(one for one in json.loads(path.read_text()) if one["model"] == "b")


def test_rows_measured_on_other_data_are_taken_out(tmp_path):
    path = tmp_path / "results.json"
    merge_results(path, [row("a", 0.5, data_sha256="old"), row("b", 0.6, data_sha256="old"), row("c", command="c")])
    elsewhere = Result(dataset="other", split="test", model="a", metric="accuracy", value=1.0, data_sha256="old")
    merge_results(path, [elsewhere])
    rows = merge_results(path, [row("a", 0.7, data_sha256="new")])
    assert {(one.dataset, one.model): one.value for one in rows} == {
        ("set", "a"): 0.7, ("set", "c"): None, ("other", "a"): 1.0,
    }  # fmt: skip


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('[{"dataset": "set"}]')
    with pytest.raises(DataError, match=r"results\.json is not a list of results"):
        merge_results(path, [row("a", 0.5)])
    assert path.read_text() == '[{"dataset": "set"}]'


def test_the_table_stands_between_its_marks(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_table(readme, [row("a", 0.5)], {"model": lambda one: one.model, "value": lambda one: one.value})
    assert readme.read_text() == f"before\n{BEGIN}\n| model | value |\n| --- | --- |\n| a | 0.5 |\n{END}\nafter\n"
    readme.write_text("nothing")
    with pytest.raises(DataError, match="lacks the line"):
        write_table(readme, [], {})


def predictions(gold, wrong, seed):
    given = gold.copy()
    rows = np.random.default_rng(seed).choice(len(gold), wrong, replace=False)
    given[rows] = ~given[rows]
    return given


def test_one_seed_has_the_interval_of_its_rows_and_unlike_seeds_widen_it():
    gold = np.eye(2, dtype=bool)[np.random.default_rng(0).integers(0, 2, 300)]
    floor = predictions(gold, 90, 9)
    alike = [predictions(gold, 60, seed) for seed in range(5)]
    unlike = [predictions(gold, wrong, seed) for seed, wrong in enumerate((0, 30, 60, 90, 120))]
    one, over = over_seeds("accuracy", gold, alike[:1], [floor])
    assert one == figures(gold, alike[0])["accuracy"]
    assert over.value == pytest.approx(0.1)
    steady, _ = over_seeds("accuracy", gold, alike, [floor] * 5)
    shaky, _ = over_seeds("accuracy", gold, unlike, [floor] * 5)
    assert steady.value == pytest.approx(shaky.value)
    assert shaky.high - shaky.low > 1.5 * (steady.high - steady.low)


def test_a_floor_measured_against_itself_differs_by_nothing():
    gold = np.eye(3, dtype=bool)[np.random.default_rng(0).integers(0, 3, 100)]
    floors = [predictions(gold, 30, seed) for seed in range(3)]
    _, over = over_seeds("macro_f1", gold, floors, floors)
    assert (over.value, over.low, over.high) == (0, 0, 0)


def test_rows_of_a_model_with_other_weights_are_taken_out(tmp_path):
    path = tmp_path / "results.json"
    merge_results(path, [row("a", 0.5, model_sha256="old"), row("floor", 0.4)])
    elsewhere = row("a", 0.6, model_sha256="new").model_copy(update={"dataset": "other"})
    rows = merge_results(path, [elsewhere])
    assert sorted((one.dataset, one.model) for one in rows) == [("other", "a"), (row("floor").dataset, "floor")]
