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
    assert {model for model, _ in rows} == {"tiny", "tiny-alone", "lexical-half", "tfidf-linear", "big/encoder"}
    assert rows["lexical-half", "test"]["value"] > rows["tiny-alone", "test"]["value"]
    assert {split for _, split in rows} == {"test", "test-sarcasm"}
    tiny = rows["tiny", "test"]
    assert tiny["seeds"] == 2
    assert tiny["ci95"][0] <= tiny["value"] <= tiny["ci95"][1]
    assert tiny["floor"] == rows["tfidf-linear", "test"]["value"]
    assert tiny["latency_ms"] > 0
    assert "target" in tiny and "target" not in rows["tiny-alone", "test"]  # it was set for the whole classifier
    assert rows["tiny", "test-sarcasm"]["n_test"] < tiny["n_test"]
    table = (project / "README.md").read_text()
    assert "0.200 reached" in table
    assert "models='{big/encoder: big/encoder}'" in table


def test_a_stopped_measurement_goes_on_and_another_recipe_is_measured_anew(experiment, project, monkeypatch, capsys):
    config = load(experiment.MeasureConfig, project / "config.yaml", ["seeds=1"])
    experiment.main(config, project)
    before = (project / "results.json").read_text()  # the latency too: it is measured once for the same weights

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(experiment, "train", refuse)
    experiment.main(config, project)
    assert (project / "results.json").read_text() == before
    with pytest.raises(AssertionError, match="trained again"):
        experiment.main(load(experiment.MeasureConfig, project / "config.yaml", ["seeds=1", "fit.epochs=2"]), project)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("only=[sentimnt]", r"only: unknown set 'sentimnt'.*sentiment"),
        ("sets.sentiment.fit.epoch=3", r"fit of sentiment: unknown key 'epoch'; did you mean 'epochs'"),
        ("sets.sentiment.marked.test-sarcasm=sarcasmm", r"no test row bears 'sarcasmm'; did you mean 'sarcasm'"),
        ("sets.sentiment.target.tset=0.5", r"target.tset is no split of this set; did you mean 'test'"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(experiment, project, monkeypatch, override, expected):
    monkeypatch.delattr(experiment, "train")
    with pytest.raises(ConfigError, match=expected):
        experiment.main(load(experiment.MeasureConfig, project / "config.yaml", [override]), project)


def test_pooled_folds_cover_every_row_once_each_with_a_seed_of_its_own(experiment, project, monkeypatch):
    folder = project / "public/unionpay_faq"
    folder.mkdir(parents=True)
    wishes = [f"第{number}次{'退钱' if number % 2 else '开户'}" for number in range(200)]
    entries = [f"    question :{wish}\n    x\n    subject:{wish[-2:]}" for wish in wishes]
    (folder / "data.txt").write_text("\n".join(entries), encoding="utf-8")
    monkeypatch.setenv("AFTERSALES_PUBLIC_DATA", str(project / "public"))
    (project / "config.yaml").write_text(
        """
seeds: 5
threads: 1
models: {random-weights: random}
fit: {epochs: 1, max_tokens: 16, batch_size: 64}
sets:
  unionpay_faq: {split: 5fold, data: {public: unionpay_faq}, folds: pooled}
"""
    )
    seeds = []
    trained = experiment.train
    monkeypatch.setattr(experiment, "train", lambda *all: seeds.append(all[0].fit.seed) or trained(*all))
    experiment.main(load(experiment.MeasureConfig, project / "config.yaml"), project)
    rows = {one["model"]: one for one in json.loads((project / "results.json").read_text())}
    assert seeds == [1, 2, 3, 4, 5]
    assert (rows["tfidf-linear"]["n_test"], rows["tfidf-linear"]["seeds"]) == (200, 5)
    assert rows["tfidf-linear"]["value"] > 0.95


@pytest.mark.parametrize("name", ["encoder", "objectives"])
def test_the_shipped_configs_are_valid(name):
    script = load_script("experiments/encoder/measure.py")
    config = load(script.MeasureConfig, ROOT / f"experiments/{name}/config.yaml")
    assert config.seeds >= 5
    for one in config.sets:
        assert script.data_config(config.sets[one], script.first_fold(config.sets[one]))
        for model in (*config.models, *config.awaited):
            assert script.fit_config(config, one, model, "embedded", seed=1)


@pytest.mark.parametrize("task", ["intent", "sentiment", "complaint_cause"])
def test_shipped_tasks_are_measured_with_their_own_recipe(task):
    script = load_script("experiments/encoder/measure.py")
    config = load(script.MeasureConfig, ROOT / "experiments/encoder/config.yaml")
    shipped = load(script.CLASSIFY.ClassifyConfig, ROOT / f"configs/{task}.yaml").fit
    assert script.fit_config(config, task, "embedded", "embedded", seed=shipped.seed) == shipped
