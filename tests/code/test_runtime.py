"""The exported model: its manifest, its scores in any company, its decisions."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.tiny_models import TASKS, tiny_classifier

from aftersales.core.errors import ModelError
from aftersales.runtime import classifier as classifier_module
from aftersales.runtime.classifier import Classifier, calibrated
from aftersales.runtime.decision import decide, label_confidence
from aftersales.runtime.manifest import MANIFEST, seal, verify
from aftersales.runtime.settings import SETTINGS, InferenceSettings, LabelInfo


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("model") / "intent", "intent", TASKS["intent"])


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"weights")
    (tmp_path / "inner" / "words.txt").write_text("快递")
    seal(tmp_path, "classifier", "intent")
    return tmp_path


def test_an_intact_folder_is_verified_and_named_by_its_files(sealed: Path) -> None:
    first = verify(sealed, kind="classifier")
    assert set(first.files) == {"weights.bin", "inner/words.txt"}
    assert seal(sealed, "classifier", "intent").version == first.version
    (sealed / "weights.bin").write_bytes(b"other")
    assert seal(sealed, "classifier", "intent").version != first.version


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "weights.bin").write_bytes(b"weightS"), "weights.bin is corrupt or was altered"),
        (lambda folder: (folder / "inner" / "words.txt").unlink(), "words.txt is missing"),
        (lambda folder: (folder / "inner" / "more.bin").write_bytes(b""), "holds 'inner/more.bin'"),
        (lambda folder: (folder / MANIFEST).unlink(), "has no manifest.json"),
        (lambda folder: (folder / MANIFEST).write_text("{}"), "cannot be read"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff"), "cannot be read"),
        (lambda folder: seal(folder, "recommender", "recommendation"), "holds a recommender, not a classifier"),
    ],
)
def test_a_harmed_folder_is_refused_by_the_file(sealed: Path, harm: object, message: str) -> None:
    harm(sealed)  # type: ignore[operator]
    with pytest.raises(ModelError, match=message):
        verify(sealed, kind="classifier")


def test_a_text_scores_the_same_in_any_company(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier.load(model)
    texts = ["快递三天没动静了", "好", "再不发货就退款" * 5, "😡😡", "Ａ１", "空调什么时候来安装？" * 9, "退"]
    singles = np.concatenate([classifier.logits([text]) for text in texts])
    assert np.ptp(singles, axis=0).min() > 0.1, "the texts must differ, else this shows nothing"
    for budget in (1, 64, 4096):
        monkeypatch.setattr(classifier_module, "TOKEN_BUDGET", budget)
        for order in (range(7), reversed(range(7)), (3, 0, 6, 1, 5, 2, 4)):
            chosen = list(order)
            np.testing.assert_allclose(classifier.logits([texts[row] for row in chosen]), singles[chosen], atol=1e-4)


def test_predictions_are_ranked_and_cut(model: Path) -> None:
    classifier = Classifier.load(model)
    prediction = classifier.predict(["再不发货就退款"], top_k=2)[0]
    assert len(prediction.labels) == 2
    assert prediction.labels[0].score >= prediction.labels[1].score
    assert prediction.confidence == pytest.approx(prediction.labels[0].score)
    assert classifier.predict([]) == []


def test_an_over_long_text_is_cut_not_refused(model: Path) -> None:
    assert len(Classifier.load(model).predict(["退款" * 5000])) == 1


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", SETTINGS])
def test_an_unreadable_file_is_named_although_its_hash_is_right(model: Path, tmp_path: Path, name: str) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(b"{" if file.name == name else file.read_bytes())
    seal(tmp_path, "classifier", "intent")
    with pytest.raises(ModelError, match=name):
        Classifier.load(tmp_path)


def test_loading_and_scoring_import_no_training_library(model: Path) -> None:
    code = (
        "import sys, json; from pathlib import Path; from aftersales.runtime.classifier import Classifier;"
        f"Classifier.load(Path({str(model)!r})).predict(['退款']); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "transformers", "mlflow", "pandas", "sklearn", "datasets"}


def settings(**changed: object) -> InferenceSettings:
    values: dict[str, object] = {
        "task": "t",
        "task_version": 1,
        "data_fingerprint": "f",
        "kind": "single_label",
        "labels": [LabelInfo(name=name, zh=name.upper()) for name in ("refund", "human", "other")],
        "max_tokens": 8,
        "answer_threshold": 0.8,
        "clarify_threshold": 0.5,
        "out_of_scope": "other",
        "handoff_labels": ["human"],
    }
    return InferenceSettings.model_validate(values | changed)


@pytest.mark.parametrize(
    ("probabilities", "decision", "reason"),
    [
        ((0.81, 0.1, 0.09), "answer", "confident"),
        ((0.79, 0.12, 0.09), "clarify", "unsure"),
        ((0.49, 0.3, 0.21), "handoff", "very_unsure"),
        ((0.01, 0.98, 0.01), "handoff", "needs_human"),
        ((0.01, 0.01, 0.98), "handoff", "out_of_scope"),
    ],
)
def test_a_decision_follows_from_label_and_confidence(
    probabilities: tuple[float, ...], decision: str, reason: str
) -> None:
    found = decide(np.array(probabilities, dtype=np.float32), settings())
    assert (found.decision, found.reason) == (decision, reason)
    assert found.confidence == pytest.approx(max(probabilities))


def test_a_multi_label_decision_gives_every_label_over_the_threshold() -> None:
    multi = settings(kind="multi_label", out_of_scope=None, handoff_labels=[], label_threshold=0.4)
    found = decide(np.array([0.45, 0.02, 0.9], dtype=np.float32), multi, top_k=1)
    assert [label.name for label in found.labels] == ["other", "refund"]
    assert found.confidence == pytest.approx(0.5 + 0.5 * 0.05 / 0.6, abs=1e-6), "the least sure answer counts"
    assert found.decision == "clarify"
    none = decide(np.array([0.01, 0.02, 0.03], dtype=np.float32), multi)
    assert (none.labels, none.decision) == ([], "answer")


def test_any_label_that_goes_to_a_human_does_so() -> None:
    labels = [LabelInfo(name=name) for name in ("slow", "injury", "rude")]
    common = {"task": "t", "task_version": 1, "data_fingerprint": "d", "labels": labels, "max_tokens": 8}
    many = InferenceSettings(kind="multi_label", handoff_labels=["injury"], **common)
    assert decide(np.array([0.99, 0.98, 0.01]), many).reason == "needs_human"
    assert decide(np.array([0.99, 0.01, 0.01]), many).decision == "answer"
    one = InferenceSettings(kind="single_label", handoff_labels=["injury"], **common)
    assert decide(np.array([0.9, 0.08, 0.02]), one).decision == "answer", "only the likeliest label counts"


def test_a_graph_that_does_not_fit_its_labels_is_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(model, folder)
    settings = InferenceSettings.read(folder)
    settings.model_copy(update={"labels": [*settings.labels, LabelInfo(name="more")]}).write(folder)
    seal(folder, "classifier", "intent")
    with pytest.raises(ModelError, match=r"the graph scores 4 labels and inference\.json lists 5"):
        Classifier.load(folder)


def test_label_confidence_is_a_coin_throw_at_the_threshold_and_sure_at_the_ends() -> None:
    rows = np.array([[0.3, 0.3], [0.0, 1.0], [0.3, 1.0]])
    np.testing.assert_allclose(label_confidence(rows, 0.3), [0.5, 1.0, 0.5])


def test_calibration_keeps_order_and_softens() -> None:
    logits = np.array([[4.0, 1.0, -2.0], [1000.0, -1000.0, 0.0]], dtype=np.float32)
    sharp, soft = calibrated(logits, 1.0, False), calibrated(logits, 4.0, False)
    np.testing.assert_allclose(sharp.sum(axis=1), 1, rtol=1e-6)
    assert soft[0, 0] < sharp[0, 0]
    assert (np.argsort(soft) == np.argsort(sharp)).all()
    np.testing.assert_allclose(calibrated(logits[:1], 2.0, True)[0], 1 / (1 + np.exp(-logits[0] / 2)), rtol=1e-6)
