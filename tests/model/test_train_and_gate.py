"""The loop on a small scale, with a real MLflow store: train, log, the gate, score, altered files refused."""

import json
import shutil
from collections import Counter

import mlflow
import onnx
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from aftersales.classifiers.export import check_parity, write_graph
from aftersales.classifiers.fit import Fitted
from aftersales.cli.training import run_recipe
from aftersales.core.errors import ModelError, TrackingError
from aftersales.encoders.load import load_for_classification, load_tokenizer
from aftersales.runtime.classifier import Classifier
from aftersales.runtime.lexical import Lexical
from aftersales.runtime.manifest import seal
from aftersales.runtime.settings import GRAPH
from aftersales.tracking.gate import GateRefused, promote
from aftersales.tracking.registry import champion, evidence_of, model_folder_of, need_champion, run_of
from aftersales.tracking.runs import EVIDENCE, EVIDENCE_DIGEST, digest_of_evidence

ROWS = 60
WORDS = {"return": "退货退回去", "invoice": "发票抬头税号", "parcel": "快递物流包裹"}


@pytest.fixture
def task(project):
    """A task that is learned in seconds, whose floor can be beaten or not."""
    folder = project / "data/tasks/easy"
    folder.mkdir()
    labels = "".join(f"  - {{name: {label}, zh: {word[:2]}}}\n" for label, word in WORDS.items())
    (folder / "task.yaml").write_text(
        f"name: easy\ntitle: {{en: Easy, zh: 容易}}\nkind: single_label\nlabels:\n{labels}", encoding="utf-8"
    )
    for split, start, count in (("train", 0, ROWS), ("validation", 1000, 12), ("test", 2000, 24)):
        rows = []
        for number in range(start, start + count):
            label = list(WORDS)[number % 3]
            rows.append({"id": str(number), "text": f"{number}号{WORDS[label]}", "label": label})
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    config = project / "configs" / "easy.yaml"
    config.write_text("# aftersales train configs/easy.yaml\nrecipe: classify\ndata:\n  task: easy\n")
    return config


def train(task, tiny_encoder, *overrides):
    return run_recipe(task, (f"fit.encoder={tiny_encoder}", "fit.learning_rate=0.003", "fit.batch_size=8", *overrides))


def test_a_graph_in_8_bits_answers_like_the_model(project, task, tiny_encoder):
    outcome = train(task, tiny_encoder, "fit.epochs=6", "precision=int8")
    kinds = Counter(node.op_type for node in onnx.load(outcome.folder / GRAPH).graph.node)
    layers = json.loads((outcome.folder / "config.json").read_text())["num_hidden_layers"]
    assert kinds["MatMulInteger"] >= 5 * layers
    assert kinds["MatMul"] == 3 * layers, "scores and mixing of attention, and what comes after the activation"
    assert "computes in int8" in (outcome.folder / "README.md").read_text()


def test_8_bits_are_refused_for_an_encoder_without_a_known_inner_width(tiny_encoder, tmp_path):
    model = load_for_classification(str(tiny_encoder), ["a", "b"], False, 0.0)
    model.config.intermediate_size = 7
    with pytest.raises(ModelError, match="use float32"):
        write_graph(Fitted(model.eval(), load_tokenizer(str(tiny_encoder)), 16), tmp_path, "int8")


def weaken(run_id, column):
    """Spoil one column of a run's recorded predictions, so that the run's model wins over it."""
    path = evidence_of(run_of(run_id)) / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows[:6]:
        row[column] = ["return" if row["gold"] != ["return"] else "invoice"]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    client = mlflow.MlflowClient()
    client.log_artifact(run_id, str(path), EVIDENCE)
    client.set_tag(run_id, EVIDENCE_DIGEST, digest_of_evidence(path.parent))


def test_from_training_to_the_champion_and_no_further(project, task, tiny_encoder):
    outcome = train(task, tiny_encoder, "fit.epochs=6")

    run = run_of(outcome.run_id)
    assert run.data.metrics["parity_agreement"] >= 0.995
    assert {"encoder", "commit", "data_version", "lock_sha256", "config"} <= run.data.tags.keys()
    assert len(run.data.params) < 20, "only the settings a person chose"
    assert run.inputs.dataset_inputs[0].dataset.digest == run.data.tags["data_version"]

    with pytest.raises(GateRefused, match=r"FAIL  beats its floor"):
        promote(outcome.run_id)  # the floor is perfect on this task, and equal is not better
    assert champion("easy") is None
    with pytest.raises(TrackingError, match=r"the gate refused its last run .*beats its floor: .* against 1\.0000"):
        need_champion("easy")

    weaken(outcome.run_id, "floor")
    assert "there is no champion yet" in promote(outcome.run_id).report()
    found = champion("easy")
    assert found is not None and found.run_id == outcome.run_id

    with pytest.raises(GateRefused, match=r"is the champion already"):
        promote(outcome.run_id)
    assert run_of(outcome.run_id).data.tags["gate"] == "passed"

    second = train(task, tiny_encoder, "fit.epochs=6", "fit.seed=2")
    weaken(second.run_id, "floor")
    with pytest.raises(GateRefused, match=r"FAIL  beats the champion \(version 1\) on the same 24 test rows"):
        promote(second.run_id)
    assert champion("easy") == found

    text = "第8号退货退回去"
    folder = AutoModelForSequenceClassification.from_pretrained(found.folder)
    assert list(folder.config.id2label.values()) == list(WORDS)
    classifier = Classifier.load(found.folder)
    logits = folder(**AutoTokenizer.from_pretrained(found.folder)(text, return_tensors="pt")).logits
    assert classifier.settings.lexical_weight > 0
    lexical = classifier.settings.lexical_weight * Lexical.read(found.folder).scores([text])[0]
    assert classifier.logits([text])[0] == pytest.approx(logits[0].detach().numpy() + lexical, abs=1e-4)
    logged = mlflow.pyfunc.load_model("models:/aftersales-easy@champion").predict([{"text": text}])
    assert logged["label"][0] == classifier.predict([text], top_k=1)[0].labels[0].name

    card = (found.folder / "README.md").read_text(encoding="utf-8")
    assert "floor" in card and "model-index" in card
    assert not [path for path in found.folder.rglob("*") if path.suffix in {".pt", ".bin", ".pkl"}]


def test_evidence_or_a_model_changed_after_logging_is_refused(project, task, tiny_encoder):
    outcome = train(task, tiny_encoder, "fit.epochs=1")
    (evaluation,) = (project / "outputs/mlartifacts").rglob("evidence/evaluation.json")
    evaluation.write_text(evaluation.read_text() + " ")
    with pytest.raises(TrackingError, match=r"is not what it logged"):
        promote(outcome.run_id)
    (settings,) = (project / "outputs/mlartifacts").rglob("inference.json")
    folder = settings.parent
    settings = json.loads((folder / "inference.json").read_text())
    (folder / "inference.json").write_text(json.dumps({**settings, "answer_threshold": 0.0}))
    seal(folder, "classifier", "easy")
    with pytest.raises(TrackingError, match=r"is not the model that run .* logged"):
        model_folder_of(run_of(outcome.run_id))


def test_a_candidate_of_other_test_rows_must_say_so(project, task, tiny_encoder):
    first = train(task, tiny_encoder, "fit.epochs=6")
    weaken(first.run_id, "floor")
    promote(first.run_id)
    split = project / "data/tasks/easy/test.jsonl"
    split.write_text(split.read_text(encoding="utf-8").replace("2000号", "3000号"), encoding="utf-8")
    second = train(task, tiny_encoder, "fit.epochs=6", "fit.seed=2")
    weaken(second.run_id, "floor")
    with pytest.raises(GateRefused, match=r"FAIL  is measured on the champion's test rows: 1 of its 24 .* 1 are gone"):
        promote(second.run_id)
    with pytest.raises(GateRefused, match=r"pass  is measured on the champion's test rows.*accepted by --changed-test"):
        promote(second.run_id, changed_test=True)  # the rule that still fails: it is no better
    for name in ("train", "validation", "test"):
        path = project / f"data/tasks/easy/{name}.jsonl"
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(rows[:15]), encoding="utf-8")
    with pytest.raises(GateRefused, match=r"FAIL  is measured on 15 test rows, at least 20"):
        promote(train(task, tiny_encoder, "fit.epochs=1").run_id)


def test_an_altered_missing_or_added_file_is_named(project, task, tiny_encoder, tmp_path):
    folder = train(task, tiny_encoder, "fit.epochs=1").folder
    for name, spoil, expected in (
        ("model.onnx", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "corrupt or was altered"),
        ("tokenizer.json", lambda path: path.unlink(), "is missing"),
        ("extra.bin", lambda path: path.write_bytes(b"x"), "does not list"),
        ("manifest.json", lambda path: path.write_text("{"), "cannot be read"),
    ):
        copy = tmp_path / name.replace(".", "_")
        shutil.copytree(folder, copy)
        spoil(copy / name)
        with pytest.raises(ModelError, match=expected) as error:
            Classifier.load(copy)
        assert name in str(error.value)


def test_a_killed_training_goes_on_from_its_checkpoint(project, task, tiny_encoder, monkeypatch):
    from aftersales.classifiers import fit as fitting

    whole = train(task, tiny_encoder, "fit.epochs=4", "fit.seed=5")
    stop = fitting._Progress.on_step_end

    def kill(self, args, state, control, **rest):
        stop(self, args, state, control, **rest)
        if state.global_step == 18:
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting._Progress, "on_step_end", kill)
    with pytest.raises(KeyboardInterrupt):
        train(task, tiny_encoder, "fit.epochs=4", "fit.seed=5")
    work = list((project / "outputs/work").iterdir())
    assert len(work) == 1 and any(work[0].glob("checkpoint-*"))
    monkeypatch.setattr(fitting._Progress, "on_step_end", stop)
    resumed = train(task, tiny_encoder, "fit.epochs=4", "fit.seed=5")
    assert resumed.figure == whole.figure
    first, second = (
        json.loads((evidence_of(run_of(o.run_id)) / "evaluation.json").read_text()) for o in (whole, resumed)
    )
    assert first["calibration"] == pytest.approx(second["calibration"], rel=1e-4)
    assert not list((project / "outputs/work").iterdir())


def test_a_graph_that_answers_otherwise_is_refused():
    import numpy as np

    logits = np.random.default_rng(0).normal(size=(100, 3))
    given = logits == logits.max(axis=1, keepdims=True)
    other = np.roll(given, 1, axis=1)
    assert check_parity(logits, logits, (given, given)).agreement == 1
    with pytest.raises(ModelError, match=r"gives other labels than the trained model on 100.0% of 100 rows"):
        check_parity(logits, logits, (given, other))


def test_a_run_of_somebody_else_is_refused(project):
    from aftersales.tracking.store import connect

    connect()
    with mlflow.start_run(run_name="foreign") as run:
        pass
    with pytest.raises(TrackingError, match=r"was not logged by `aftersales train`"):
        promote(run.info.run_id)
