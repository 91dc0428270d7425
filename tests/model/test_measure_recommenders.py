"""The experiment that measures recommenders: real fits in processes of their own, kept, resumed, and beside a peer."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tests.conftest import ROOT

from aftersales.core.config import load
from aftersales.core.errors import ConfigError, ModelError
from aftersales.core.paths import load_script
from aftersales.evaluation.results import BEGIN, END

RECIPE = """
recipe: recommend
data: {source: synthetic, users: 80}
model: {name: sequential, options: {dimensions: 8, epochs: 2, batch_size: 64}}
"""
CONFIG = """
seeds: 2
sets:
  tiny:
    recipe: tiny.yaml
    target: {hr@10: 0.0, ndcg@10: 1.0}
    models: {popularity: {name: popularity}, ease: {name: ease}}
    peers: {other: {places: 20}}
"""
# Shows everybody the items 1 to 20, best first.
PEER = """
import json, sys
import numpy as np
split, options = np.load(sys.argv[1]), json.loads(sys.argv[3])
users = len(split["test_offsets"]) - 1
lists = np.tile(np.arange(1, options["places"] + 1), (users, 1))
np.savez(sys.argv[2], lists=lists, facts=json.dumps({"seconds": 1.5, "peak_mb": 7, "curve": [[1, 0.5]]}))
"""


@pytest.fixture
def experiment(project, monkeypatch):
    (project / "experiments").symlink_to(ROOT / "experiments", target_is_directory=True)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.delenv("AFTERSALES_PEER_PYTHON", raising=False)
    (project / "tiny.yaml").write_text(RECIPE)
    (project / "README.md").write_text(f"{BEGIN}\n{END}\n")
    (project / "config.yaml").write_text(CONFIG)
    return load_script("experiments/recommend/measure.py")


def measured(experiment, project, *overrides):
    path = project / "config.yaml"
    experiment.main(load(experiment.MeasureConfig, path, list(overrides)), path)
    rows = json.loads((project / "results.json").read_text())
    return {(one["model"], one["metric"]): one for one in rows}


def test_rows_of_every_model_and_a_stopped_measurement_goes_on(experiment, project, monkeypatch):
    rows = measured(experiment, project)
    assert {model for model, _ in rows} == {"popularity", "ease", "sequential", "other"}
    ours, linear = rows["sequential", "hr@10"], rows["ease", "hr@10"]
    assert (ours["seeds"], linear["seeds"]) == (2, 1) and ours["target"] == 0.0 and "target" not in linear
    assert ours["ci95"][0] <= ours["value"] <= ours["ci95"][1] and ours["seconds"] > 0 < ours["peak_mb"]
    assert ours["floor"] == rows["popularity", "hr@10"]["value"] and "over_floor" not in rows["popularity", "hr@10"]
    assert 0 < rows["ease", "coverage@10"]["value"] <= 1
    assert "AFTERSALES_PEER_PYTHON=" in rows["other", "hr@10"]["command"]
    curves = json.loads((project / "curves.json").read_text())["tiny"]["sequential"]
    assert [[epoch for epoch, _ in curve] for curve in curves] == [[1, 2], [1, 2]]
    table = (project / "README.md").read_text()
    assert "0.0 reached" in table and "1.0 missed" in table and (project / "curves.png").stat().st_size > 1000

    def refuse(*_, **__):
        raise AssertionError("fitted again")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert measured(experiment, project) == rows
    (project / "tiny.yaml").write_text(RECIPE.replace("epochs: 2", "epochs: 3"))
    with pytest.raises(AssertionError, match="fitted again"):
        measured(experiment, project)


def test_a_peer_is_measured_by_the_lists_that_it_gives(experiment, project, monkeypatch):
    peer = load_script("experiments/recommend/peer.py")
    (project / "peer.py").write_text(PEER)
    monkeypatch.setattr(peer, "SCRIPT", "peer.py")
    monkeypatch.setenv("AFTERSALES_PEER_PYTHON", sys.executable)
    rows = measured(experiment, project, "models=[]")
    targets = experiment.data_of(experiment.load(experiment.MeasureConfig, project / "config.yaml").sets["tiny"].recipe)
    expected = (targets.split.test.targets <= 10).mean()
    assert rows["other", "hr@10"]["value"] == pytest.approx(expected, abs=1e-4)
    assert rows["other", "hr@10"]["seconds"] == 1.5


def test_a_target_outside_a_peers_list_is_a_miss(experiment):
    found = load_script("experiments/recommend/peer.py").ranking_of(np.array([[3, 1], [2, 0]]), np.array([1, 4]), 9)
    assert found.ranks.tolist() == [2, 9] and found.coverage[5] == pytest.approx(3 / 9)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("only=[tinny]", "only: unknown 'tinny'; did you mean 'tiny'"),
        ("models=[eas]", "models: unknown 'eas'; did you"),
    ],
)
def test_unknown_names_are_told(experiment, project, override, expected):
    with pytest.raises(ConfigError, match=expected):
        measured(experiment, project, override)


def test_a_fit_that_ends_is_told(experiment, project, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 3))
    with pytest.raises(ModelError, match="tiny popularity seed 1: the fit ended with code 3"):
        measured(experiment, project)


def test_the_shipped_config_is_valid(experiment):
    config = load(experiment.MeasureConfig, ROOT / "experiments/recommend/config.yaml")
    for one in config.sets.values():
        assert experiment.recipe_of(one, "popularity", 2, 1).seed == 2
        assert set(one.target) <= set(one.metrics)
