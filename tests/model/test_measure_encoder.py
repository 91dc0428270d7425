"""The experiment that measures encoders: real fits on a little data, resumed, and its errors."""

import json

import pytest
from tests.conftest import ROOT

from aftersales.core.config import load
from aftersales.core.errors import ConfigError
from aftersales.core.paths import load_script
from aftersales.evaluation.results import BEGIN, END


@pytest.fixture
def experiment(project, tiny_encoder):
    (project / "experiments").symlink_to(ROOT / "experiments", target_is_directory=True)
    script = load_script("experiments/encoder/measure.py")
    (project / "README.md").write_text(f"{BEGIN}\n{END}\n")
    (project / "config.yaml").write_text(
        f"""
seeds: 2
threads: 1
models: {{tiny: {tiny_encoder}}}
awaited: {{big/encoder: {{learning_rate: 2.0e-5}}}}
fit: {{epochs: 1, max_tokens: 32, batch_size: 64}}
sets:
  sentiment:
    data: {{task: sentiment, limit: 150}}
    target: {{test: 0.2, test-sarcasm: 1.0}}
    marked: {{test-sarcasm: sarcasm}}
"""
    )
    return script


def test_rows_for_model_encoder_alone_floor_and_those_not_measured_yet(experiment, project):
    config = load(experiment.MeasureConfig, project / "config.yaml")
    experiment.main(config, project)
    rows = {(one["model"], one["split"]): one for one in json.loads((project / "results.json").read_text())}
    assert {model for model, _ in rows} == {"tiny", "tiny-alone", "tfidf-linear", "big/encoder"}
    assert {split for _, split in rows} == {"test", "test-sarcasm"}
    tiny = rows["tiny", "test"]
    assert tiny["seeds"] == 2
    assert tiny["ci95"][0] <= tiny["value"] <= tiny["ci95"][1]
    assert tiny["floor"] == rows["tfidf-linear", "test"]["value"]
    assert tiny["latency_ms"] > 0
    assert rows["tiny", "test-sarcasm"]["n_test"] < tiny["n_test"]
    table = (project / "README.md").read_text()
    assert "0.200 reached" in table
    assert "models='{big/encoder: big/encoder}'" in table


def figures_of(project):
    rows = json.loads((project / "results.json").read_text())
    return [{key: value for key, value in row.items() if key != "latency_ms"} for row in rows]


def test_a_stopped_measurement_goes_on_and_another_recipe_is_measured_anew(experiment, project, monkeypatch, capsys):
    config = load(experiment.MeasureConfig, project / "config.yaml", ["seeds=1"])
    experiment.main(config, project)
    before = figures_of(project)

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(experiment, "train", refuse)
    experiment.main(config, project)
    assert figures_of(project) == before
    with pytest.raises(AssertionError, match="trained again"):
        experiment.main(load(experiment.MeasureConfig, project / "config.yaml", ["seeds=1", "fit.epochs=2"]), project)


def test_an_unknown_set_is_named(experiment, project):
    config = load(experiment.MeasureConfig, project / "config.yaml", ["only=[sentimnt]"])
    with pytest.raises(ConfigError, match=r"only: unknown set 'sentimnt'.*sentiment"):
        experiment.main(config, project)


def test_the_shipped_config_is_valid():
    script = load_script("experiments/encoder/measure.py")
    config = load(script.MeasureConfig, ROOT / "experiments/encoder/config.yaml")
    assert config.seeds >= 5
    for name in config.sets:
        assert script.data_config(config.sets[name], None if config.sets[name].folds == "none" else 0)
