"""From a served experiment to its reading: the log that serving writes is what the commands on A/B tests take."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from serving.exposures import CAPACITY
from serving.recommending import Recommending
from serving.settings import Settings
from tests.serving.conftest import EXPERIMENT, Platform
from tests.serving.test_recommending import experiment_file, rows_of

from aftersales.cli.main import cli
from aftersales.runtime.exploring import ordered
from aftersales.runtime.protocol import ModelInfo, RecommendRequest
from aftersales.runtime.recommender import Recommender

USERS = 40


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(cli, ["ab", *map(str, arguments), "--json"], catch_exceptions=False)
    return json.loads(done.output)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_served_log_is_read_by_both_commands(platform: Platform, tmp_path: Path) -> None:
    rows = []
    for number in range(USERS):
        user = f"读{number}"
        assert platform.recommend(user_id=user, k=3).status_code == 200
        rows += rows_of(platform.log, user, 3)
    assert len(rows) == 3 * USERS
    # The policy to be judged: the same order without chance.
    joined = [
        {**row, "reward": row["position"] == 1, "target_propensity": float(row["rank"] == row["position"])}
        for row in rows
    ]
    log = written(tmp_path / "joined.jsonl", joined)
    report = run("offpolicy", log)
    assert (report["rows"], report["users"], report["left_out"]) == (3 * USERS, USERS, {})
    low, high = report["weight_interval"]
    assert low - 0.1 <= 1 <= high + 0.1 and report["estimates"]["snips"]["value"] == pytest.approx(1 / 3, abs=0.1)
    today = [row for row in joined if row["variant"] == "today"]
    assert {row["target_propensity"] for row in today} == {1.0}, "what leaves nothing to chance is this policy"
    assert {row["target_propensity"] for row in joined} == {0.0, 1.0}
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT, encoding="utf-8")
    read = run("read", log, "--config", tmp_path / "experiment.yaml", "--metric", "reward")
    assert sum(read["users"].values()) == USERS


def test_another_order_of_the_candidates_can_be_judged_by_the_log_alone(platform: Platform, tmp_path: Path) -> None:
    rows = []
    for number in range(3 * USERS):
        user = f"序{number}"
        if platform.recommend(user_id=user, k=1).json()["experiment"]["variant"] == "backwards":
            rows += rows_of(platform.log, user, 1)
    for row in rows:
        scores = [score for _, score in row["candidates"]]
        chance = {place.rank: place.propensity for place in (ordered(scores, 1, 1.0, n / 5000)[0] for n in range(5000))}
        assert row["propensity"] == pytest.approx(chance[row["rank"] - 1]), "at the temperature that was served"
        # The policy to be judged shows the second of the candidates first.
        row["target_propensity"] = float(row["candidates"][1][0] == row["item_id"])
        row["reward"] = row["rank"] == 2
    report = run("offpolicy", written(tmp_path / "joined.jsonl", rows))
    low, high = report["weight_interval"]
    assert low - 0.2 <= 1 <= high + 0.2 and report["estimates"]["snips"]["value"] == pytest.approx(1)


def test_the_logged_chances_tell_what_the_order_without_chance_would_have_earned(
    models: dict[str, Path], tmp_path: Path
) -> None:
    recommender = Recommender.load(models["recommendation"])
    info = ModelInfo(name="recommendation", version=recommender.version, data_version="d")
    hot = "{name: a, weight: 1, explore: 1.0}, {name: b, weight: 0}"
    path = tmp_path / "shown.jsonl"
    settings = Settings(experiment=experiment_file(tmp_path / "e.yaml", hot), log=path)
    recommending = Recommending({"champion": recommender}, {"champion": info}, settings)
    for number in range(CAPACITY // 2):
        recommending.answer(RecommendRequest(user_id=f"u{number}", history=[], k=2), f"r{number}", float(number))
    recommending.close()
    best = [item.item_id for item in recommender.recommend([], 2, RecommendRequest(history=[]).filters()).items]
    worth = {item: 1.0 / (1 + place) for place, item in enumerate(recommender.items.ids)}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == CAPACITY
    for row in rows:
        row["reward"] = worth[row["item_id"]]
        row["target_propensity"] = float(row["rank"] == row["position"])
        assert (best[row["position"] - 1] == row["item_id"]) == (row["rank"] == row["position"])
    report = run("offpolicy", written(tmp_path / "joined.jsonl", rows))
    low, high = report["weight_interval"]
    assert low - 0.05 <= 1 <= high + 0.05
    truth = sum(worth[item] for item in best) / 2
    estimate = report["estimates"]["snips"]
    assert estimate["value"] == pytest.approx(truth, rel=0.1)
    assert abs(estimate["value"] - truth) < abs(report["logged"] - truth)
