"""The config of the recommendation recipe: what is wrong is named with its key and the way out, before data is read."""

import json
from pathlib import Path

import pytest

from aftersales.cli.training import run_recipe
from aftersales.core.errors import ConfigError, DataError
from aftersales.corpora.load_interactions import InteractionsConfig, load_interactions
from aftersales.recommenders import ModelConfig
from aftersales.runtime.events import DAY
from aftersales.tracking.registry import evidence_of, run_of

T = 1_700_000_000
CONFIG = Path(__file__).parents[2] / "configs/recommend_ease.yaml"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.name=eas"], r"key 'model\.name': there is no such recommender; did you mean 'ease'\?"),
        (["model.options.l3=1"], r"key 'model\.options': options of ease: unknown key 'l3'; did you mean 'l2'\?"),
        (["model.options.l2=-1"], r"key 'model\.options': options of ease: key 'l2': .*greater than 0"),
        (["model.name=ials", "model.options.l2=0"], r"key 'model\.options': options of ials: key 'l2'"),
        (["metric=auc@10"], r"key 'metric': .*ndcg.*auc@10"),
        (["seed=-1"], "key 'seed'"),
        (["data.public=ml1m_gsasrec", "data.source=x.csv"], r"give either data\.source or data\.public"),
        (["data.public=ml1m_gsasrec", "data.target=buy"], r"leave out data\.target"),
        (["data.public=ml1m_gsasrec", "data.time_column=t"], r"data\.time_column goes with data\.source=<file>"),
        (["data.items=x.csv"], r"data\.items goes with data\.source=<file>"),
        (["data.public=ml1m_gsasrec", "data.split=time"], r"leave out data\.split"),
        (["data.split=tim"], r"key 'data\.split': .*'time'"),
        (["data.test_days=7"], r"data\.test_days goes with data\.split=time; add it, or leave out data\.test_days"),
        (["data.split=time", "data.test_days=0"], r"key 'data\.test_days': .*greater than 0"),
        (["data.target=return"], r"data\.target 'return' is not in data\.history \(buy, service\); add it"),
        (["data.history=[buy, purchase]"], r"key 'data\.history\.1': .*'return' or 'service' \(got 'purchase'\)"),
        (["data.source=x.csv", "data.kind_map.购买=bought"], r"key 'data\.kind_map\.购买': .*\(got 'bought'\)"),
        (["data.source=x.csv", "data.kind_map.1=buy", "data.kind_column=null"], r"needs data\.kind_column"),
    ],
)
def test_a_wrong_key_or_value_is_named_before_data_is_read(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_recipe(CONFIG, tuple(overrides))


def test_options_of_another_model_say_how_to_leave_them_out() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'l2'.*another model\.name.*model\.options=\{\}"):
        run_recipe(CONFIG, ("model.name=item_knn",))
    assert ModelConfig(name="item_knn").options == {}


def events(path: Path, rows: list[list[object]]) -> Path:
    path.write_text("\n".join(json.dumps(dict(zip("uixk", row, strict=True))) for row in rows), encoding="utf-8")
    return path


def own(path: Path, **more: object) -> InteractionsConfig:
    columns = {f"{name}_column": key for name, key in zip(("user", "item", "time", "kind"), "uixk", strict=True)}
    return InteractionsConfig.model_validate({"source": str(path), **columns, **more})


def test_own_events_are_split_with_their_own_words_for_kinds(tmp_path: Path) -> None:
    path = events(tmp_path / "e.jsonl", [["u", f"i{n}", 1_700_000_000 + n, 1] for n in range(4)])
    data = load_interactions(own(path, kind_map={1: "buy"}))
    assert data.split.test.targets.tolist() == [4] and data.final_train is data.split.train
    assert not data.exclude_history and load_interactions(own(path, kind_map={"1": "buy"}), True).exclude_history
    assert own(path).origin == "`e.jsonl`"
    with pytest.raises(DataError, match=r"line 1: column 'k': unknown event kind '1'.*data\.kind_map"):
        load_interactions(own(path))
    with pytest.raises(DataError, match=r"no column 'time'.*data\.time_column=…"):
        load_interactions(own(path, time_column="time"))
    with pytest.raises(DataError, match=r"no user has 3 'service' events"):
        load_interactions(own(path, kind_map={1: "buy"}, target="service"))


def test_the_split_by_time_holds_out_the_first_target_of_each_user_after_one_moment(tmp_path: Path) -> None:
    bought = {"u": [0, 1, 12, 13, 25, 26], "v": [2, 11], "new": [28]}
    rows = [[user, f"i{day:02d}", T + day * DAY, "buy"] for user, days in bought.items() for day in days]
    path = events(tmp_path / "e.jsonl", [*rows, ["u", "i30", T + 30 * DAY, "view"]])
    more = {"history": ["buy", "view"], "split": "time", "validation_days": 10, "test_days": 10}
    split = load_interactions(own(path, **more)).split
    assert split.train.events["timestamp"].max() == T + 2 * DAY
    ids = split.train.items["item_id"].to_numpy()
    for part, asked in ((split.validation, {"u": "i12", "v": "i11"}), (split.test, {"new": "i28", "u": "i25"})):
        assert part.offsets is None
        assert dict(zip(part.histories.users, ids[part.targets - 1], strict=True)) == asked
    assert split.test.histories.lengths.tolist() == [0, 4]
    with pytest.raises(DataError, match=r"no event lies before the last 60 days"):
        load_interactions(own(path, split="time"))


def test_a_model_that_sees_times_is_judged_without_them_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ("data.users=100", "model.options.epochs=2", "model.options.dimensions=8", "threads=1")
    outcome = run_recipe(project / "configs/recommend.yaml", (*quick, "model.options.times=true"))
    evaluation = json.loads((evidence_of(run_of(outcome.run_id)) / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["without_times"].keys() >= {"ndcg@10", "hr@10", "coverage@10"}
    assert evaluation["without_times"] != evaluation["figures"]
    assert f"ndcg@10 without times {evaluation['without_times']['ndcg@10']:.4f}" in capsys.readouterr().out


def test_a_run_may_split_by_time(project: Path) -> None:
    short = ("data.users=150", "data.split=time", "data.validation_days=20", "data.test_days=20", "threads=1")
    outcome = run_recipe(project / "configs/recommend_ease.yaml", short)
    lines = (evidence_of(run_of(outcome.run_id)) / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines and all(isinstance(json.loads(line)["target"], str) for line in lines)
