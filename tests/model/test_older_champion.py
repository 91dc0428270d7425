"""A champion from before graphs took kinds and times: it is served, judged, and can be replaced."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest
import torch
from torch import Tensor, nn

from aftersales.cli.training import run_recipe
from aftersales.recommenders.export import OPSET
from aftersales.runtime.events import PastEvent
from aftersales.runtime.manifest import seal
from aftersales.runtime.rankers import SCORE_GRAPH
from aftersales.runtime.recommender import Recommender
from aftersales.tracking.gate import GateRefused, promote
from aftersales.tracking.registry import champion, evidence_of, model_folder_of, run_of
from aftersales.tracking.runs import EVIDENCE, EVIDENCE_DIGEST, MODEL_VERSION, digest_of_evidence

OVERRIDES = ("data.users=60", "model.name=popularity", "model.options={}")


class HistoryAlone(nn.Module):
    """A graph as it was: scores by a fixed order of the items, with one at the tenth place, whatever the history."""

    def __init__(self, n_items: int, tenth: int) -> None:
        super().__init__()
        order = -torch.arange(n_items, dtype=torch.float32)
        order[tenth] = -8.5
        self.register_buffer("order", order)

    def forward(self, history: Tensor) -> Tensor:
        return self.order + 0.0 * history.sum(dim=1, keepdim=True).float()


def made_old(folder: Path, tenth: str | None = None) -> str:
    """Turn a model folder into one of the first format, and return its version."""
    listed = json.loads((folder / "items.json").read_text(encoding="utf-8"))
    known = ("item_id", "title", "category", "kind")
    (folder / "items.json").write_text(json.dumps([{name: item[name] for name in known} for item in listed]))
    described = json.loads((folder / "recommender.json").read_text(encoding="utf-8"))
    (folder / "recommender.json").write_text(json.dumps({"max_history": described["max_history"]}))
    torch.onnx.export(
        HistoryAlone(len(listed), [item["item_id"] for item in listed].index(tenth) if tenth else -1),
        (torch.tensor([[0, 1], [1, 1]]),),
        str(folder / SCORE_GRAPH),
        input_names=["history"],
        output_names=["scores"],
        dynamic_axes={"history": {0: "batch", 1: "length"}, "scores": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )
    return seal(folder, "recommender", "recommendation").version


def make_run_old(run_id: str) -> None:
    """Let a run look as if it had been logged before: its rows hold no kinds and times, and its floor is low."""
    run, client = run_of(run_id), mlflow.MlflowClient()
    path = evidence_of(run) / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    client.set_tag(run_id, MODEL_VERSION, made_old(model_folder_of(run), rows[0]["target"]))
    kept = [{"history": row["history"], "target": row["target"], "rank": 1, "floor_rank": 10**6} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    client.log_artifact(run_id, str(path), EVIDENCE)
    client.set_tag(run_id, EVIDENCE_DIGEST, digest_of_evidence(path.parent))


def test_an_older_folder_answers(project: Path, tmp_path: Path) -> None:
    folder = run_recipe(project / "configs/recommend_ease.yaml", OVERRIDES).folder
    shutil.copytree(folder, tmp_path / "model")
    made_old(tmp_path / "model")
    served = Recommender.load(tmp_path / "model")
    assert list(served.event_kinds) == ["buy", "service"]
    first, second = list(served.index)[:2]
    found = served.recommend([PastEvent(second, "buy", 3.0), PastEvent(second, "view", 2.0)], k=2)
    assert [item.item_id for item in found.items] == [first, second] and found.reason == "history"


def test_an_older_champion_is_judged_and_can_be_replaced(project: Path) -> None:
    config = project / "configs/recommend_ease.yaml"
    older = run_recipe(config, OVERRIDES).run_id
    make_run_old(older)
    assert "there is no champion yet" in promote(older).report()
    better = run_recipe(config, ("data.users=60",)).run_id
    with pytest.raises(GateRefused, match="promote with --changed-test"):
        promote(better)
    report = promote(better, changed_test=True).report()
    assert "pass  beats the champion (version 1) on the same" in report
    found = champion("recommendation")
    assert found is not None and found.run_id == better
