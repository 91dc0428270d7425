"""Reading A/B tests: what is added up, what is refused, and what is said beside a verdict."""

import csv
import json
import math

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from aftersales.abtest.compare import holm
from aftersales.abtest.reading import ReadRequest, read
from aftersales.abtest.report import text_of
from aftersales.abtest.users import Column, read_users
from aftersales.core.config import build
from aftersales.core.errors import ConfigError, DataError


def write(path, rows):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return path


def request(path, *metrics, **options):
    return build(ReadRequest, {"data": path, "metric": list(metrics), "control": "a", **options}, "ab read")


def experiment(users=400, effect=0.0, seed=0, shares=(0.5, 0.5), names="ab"):
    """Rows of one user each, whose spend depends on what was spent before."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        variant = names[int(random.choice(len(names), p=shares))]
        before = random.normal(50, 10)
        spend = before + random.normal(0, 5) + effect * (variant == "b")
        rows.append({"user_id": f"u{user}", "variant": variant, "spend": spend, "before": before})
    return rows


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_events_are_added_up_for_each_user_in_every_format(tmp_path, ending):
    rows = [
        {"user_id": "1", "variant": "a", "spend": 2.5, "before": 7.0},
        {"user_id": "2", "variant": "b", "spend": 0.0, "before": None},
        {"user_id": "1", "variant": "a", "spend": 1.5, "before": None},
        {"user_id": "3", "variant": "b", "spend": -1.0, "before": 9.0},
    ]
    columns = (Column("spend"), Column("spend", "any"), Column("before", "once"))
    table = read_users(write(tmp_path / f"events{ending}", rows), columns)
    assert {name: places.tolist() for name, places in table.variants.items()} == {"a": [0], "b": [1, 2]}
    np.testing.assert_allclose(table.columns[columns[0]], [4.0, 0.0, -1.0])
    np.testing.assert_allclose(table.columns[columns[1]], [1.0, 0.0, 1.0])
    np.testing.assert_allclose(table.columns[columns[2]], [7.0, np.nan, 9.0])


def test_a_user_in_two_variants_is_reported_and_left_out(tmp_path):
    rows = experiment(effect=3.0)
    clean = read(request(write(tmp_path / "clean.csv", rows[1:]), "spend"))
    other = "b" if rows[0]["variant"] == "a" else "a"
    crossed = [*rows, {**rows[0], "variant": other, "spend": 1e6}]
    report = read(request(write(tmp_path / "crossed.csv", crossed), "spend"))
    assert any("1 users were seen in two variants and are left out" in text for text in report.warnings)
    assert report.comparisons == clean.comparisons and report.users == clean.users


def test_rows_without_a_variant_are_left_out_and_counted(tmp_path):
    rows = [*experiment(), {"user_id": "x", "variant": "", "spend": 1.0, "before": 1.0}]
    report = read(request(write(tmp_path / "rows.csv", rows), "spend"))
    assert any("1 rows without a variant" in text for text in report.warnings) and sum(report.users.values()) == 400


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"spend": math.nan}, "line 402: column 'spend' is empty or NaN; write 0"),
        ({"spend": ""}, "line 402: column 'spend' is empty or NaN"),
        ({"spend": "inf"}, "'inf', which is no finite number"),
        ({"spend": "12元"}, "'12元', which is no finite number"),
        ({"user_id": " "}, "line 402: column 'user_id' is empty"),
        ({"user_id": "u0", "variant": "KEEP", "before": 3.0}, "column 'before' holds 3 after"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, expected):
    rows = experiment()
    new = {"user_id": "new", "variant": "a", "spend": 1.0, "before": 1.0, **row}
    new["variant"] = rows[0]["variant"] if new["variant"] == "KEEP" else new["variant"]
    path = write(tmp_path / "rows.csv", [*rows, new])
    with pytest.raises(DataError) as error:
        read(request(path, "spend", cuped=["spend=before"]))
    assert expected in str(error.value)


def test_files_that_hold_no_experiment_are_refused(tmp_path):
    empty = tmp_path / "empty.csv"
    empty.write_text("", encoding="utf-8")
    header = tmp_path / "header.csv"
    header.write_text("user_id,variant,spend\n", encoding="utf-8")
    for path in (empty, header):
        with pytest.raises(DataError, match="has no rows"):
            read(request(path, "spend"))
    rows = experiment()
    path = write(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match="no column 'spent'; did you mean 'spend'"):
        read(request(path, "spent"))
    with pytest.raises(DataError, match="no user has the control variant 'c'; known: a, b"):
        read(request(path, "spend", control="c"))
    one = write(tmp_path / "one.csv", [row for row in rows if row["variant"] == "a"])
    with pytest.raises(DataError, match="only the variant 'a' has users"):
        read(request(one, "spend"))


def test_a_variant_that_the_experiment_does_not_know_is_named(tmp_path):
    config = tmp_path / "experiments.yaml"
    config.write_text(
        "experiments:\n- {name: e, salt: s, control: a, variants: [{name: a, weight: 0.5}, {name: bb, weight: 0.5}]}\n"
    )
    path = write(tmp_path / "rows.csv", experiment())
    with pytest.raises(DataError, match="unknown variant 'b'; did you mean 'bb'"):
        read(request(path, "spend", control=None, config=config))
    with pytest.raises(ConfigError, match="leave out --control"):
        read(request(path, "spend", config=config))
    config.write_text(config.read_text().replace("bb", "b"))
    assert read(request(path, "spend", control=None, config=config)).expected == {"a": 0.5, "b": 0.5}


def test_a_variant_that_was_switched_off_must_have_no_users(tmp_path):
    path = write(tmp_path / "rows.csv", experiment())
    with pytest.raises(DataError, match="variant 'b' has the share 0 and"):
        read(request(path, "spend", share=["a=1", "b=0"]))


def test_an_effect_is_found_with_its_direction(tmp_path):
    path = write(tmp_path / "rows.csv", experiment(effect=-4.0))
    (found,) = read(request(path, "spend", planned_users=400)).comparisons
    assert (found.verdict, found.kind) == ("lower", "mean")
    assert found.difference_interval[0] < -4 < found.difference_interval[1] < 0
    assert found.lift == pytest.approx(found.treatment / found.control - 1)


def test_no_effect_is_no_proof_of_none(tmp_path):
    path = write(tmp_path / "rows.csv", experiment())
    (found,) = read(request(path, "spend")).comparisons
    assert found.verdict == "no clear difference"


def test_before_the_planned_users_there_is_no_verdict(tmp_path):
    path = write(tmp_path / "rows.csv", experiment(effect=20.0))
    report = read(request(path, "spend", planned_users=401))
    assert report.comparisons[0].verdict == "too early" and report.comparisons[0].p < 1e-6
    assert any("400 of 401 planned users: this is a look on the way" in text for text in report.warnings)
    assert read(request(path, "spend", planned_users=400)).comparisons[0].verdict == "higher"
    for one in (report, read(request(path, "spend"))):
        assert any("do not allow looking every day" in text for text in one.warnings)


def test_p_values_are_corrected_over_all_variants_and_metrics(tmp_path):
    rows = experiment(users=900, effect=1.8, shares=(0.34, 0.33, 0.33), names="abc")
    path = write(tmp_path / "rows.csv", rows)
    report = read(request(path, "spend", "before:sum"))
    assert len(report.comparisons) == 4
    assert [one.p_corrected for one in report.comparisons] == pytest.approx(holm([one.p for one in report.comparisons]))
    alone = next(one for one in read(request(path, "spend")).comparisons if one.variant == "b")
    assert alone.p < alone.p_corrected


def test_cuped_narrows_the_interval(tmp_path):
    path = write(tmp_path / "rows.csv", experiment(effect=2.0))
    (plain,) = read(request(path, "spend")).comparisons
    (cuped,) = read(request(path, "spend", cuped=["spend=before"])).comparisons
    widths = [one.difference_interval[1] - one.difference_interval[0] for one in (plain, cuped)]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(25 / 125), abs=0.05)
    assert cuped.variance_kept == pytest.approx(25 / 125, abs=0.05) and plain.variance_kept is None


def test_a_covariate_that_the_treatment_has_moved_is_reported(tmp_path):
    rows = [{**row, "before": row["before"] + 8 * (row["variant"] == "b")} for row in experiment(effect=8.0)]
    report = read(request(write(tmp_path / "rows.csv", rows), "spend", cuped=["spend=before"]))
    assert any("'before' differs between 'b' and 'a'" in text for text in report.warnings)
    clean = read(request(write(tmp_path / "clean.csv", experiment(effect=8.0)), "spend", cuped=["spend=before"]))
    assert not any("differs between" in text for text in clean.warnings)


def test_a_sample_ratio_mismatch_withholds_the_verdict_unless_asked(tmp_path):
    rows = [row for number, row in enumerate(experiment(users=2000, effect=5.0)) if row["variant"] == "a" or number % 5]
    path = write(tmp_path / "rows.csv", rows)
    report = read(request(path, "spend"))
    assert report.ratio_p < 0.0005 and report.comparisons == []
    assert "instead of 50.00%" in report.withheld and "different people" in report.withheld
    asked = read(request(path, "spend", despite_mismatch=True))
    assert asked.withheld is None and asked.comparisons[0].verdict == "higher"
    assert any("sample ratio mismatch" in text for text in asked.warnings)
    assert "MISMATCH" in text_of(report) and "MISMATCH" in text_of(asked)
    right = read(request(path, "spend", share=["a=0.5556", "b=0.4444"]))
    assert right.withheld is None, "the shares that were meant are what counts"


def test_too_few_users_are_reported(tmp_path):
    rows = [{"user_id": i, "variant": "ab"[i % 2], "returned": int(i < 3), "spend": float(i)} for i in range(40)]
    report = read(request(write(tmp_path / "few.csv", rows), "returned", "spend"))
    assert [one.kind for one in report.comparisons] == ["proportion", "mean"]
    assert any("'returned': too few users of one outcome in a, b" in text for text in report.warnings)
    assert any("'spend': 20 users in 'a'" in text for text in report.warnings)


def test_skewed_metrics_need_more_users(tmp_path):
    rows = [{**row, "spend": 1000.0 if number == 7 else 1.0 + number % 3} for number, row in enumerate(experiment())]
    report = read(request(write(tmp_path / "rows.csv", rows), "spend"))
    (skewed,) = (text for text in report.warnings if "skewness" in text)
    assert f"in {rows[7]['variant']!r} with a skewness of" in skewed


def test_a_metric_that_cannot_be_compared_is_named(tmp_path):
    rows = [{**row, "spend": 5, "views": 0} for row in experiment()]
    path = write(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match="metric 'spend': the metric is the same for every user"):
        read(request(path, "spend"))
    with pytest.raises(DataError, match=r"metric 'before/views': .*'views' adds up to 0 in variant 'a'"):
        read(request(path, "before/views"))
    two = [{"user_id": 1, "variant": "a", "spend": 1.5}, {"user_id": 2, "variant": "b", "spend": 2.5}]
    with pytest.raises(DataError, match="fewer than two users"):
        read(request(write(tmp_path / "two.csv", two), "spend"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"metric": []}, "key 'metric'"),
        ({"metric": ["spend", "spend"]}, "given twice"),
        ({"metric": ["spend:median"]}, "not of the form COLUMN, COLUMN:any or COLUMN/COLUMN"),
        ({"metric": ["spend/"]}, "not of the form"),
        ({"metric": ["spend:any/views"]}, "not of the form"),
        ({"cuped": ["spent=before"]}, "did you mean 'spend'"),
        ({"cuped": ["spend"]}, "--cuped 'spend' is not of the form METRIC=COLUMN"),
        ({"control": None}, "name the control variant"),
        ({"share": ["a=0.5", "b=half"]}, "'half' is no number"),
        ({"share": ["a=0.5", "b=0.4"]}, "sum to 0.9"),
        ({"share": ["a=nan", "b=0.4"]}, "sum to nan"),
        ({"alpha": 0}, "key 'alpha'"),
        ({"planned_users": 0}, "key 'planned_users'"),
    ],
)
def test_a_wrong_request_is_named(tmp_path, options, expected):
    path = write(tmp_path / "rows.csv", experiment())
    with pytest.raises(ConfigError) as error:
        read(build(ReadRequest, {"data": path, "metric": ["spend"], "control": "a", **options}, "ab read"))
    assert expected in str(error.value)
