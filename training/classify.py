"""Fine-tune a classifier, measure it beside its floor, export it, log it. See configs/*.yaml for the launch lines."""

import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from aftersales.classifiers.blend import choose_lexical_weight
from aftersales.classifiers.calibrate import Calibration, calibrate, judged, predictions
from aftersales.classifiers.export import Parity, Precision, check_parity, write_graph
from aftersales.classifiers.fit import FitConfig, Fitted, fit
from aftersales.classifiers.linear import Linear, fit_linear
from aftersales.core.config import Config, load
from aftersales.core.errors import ConfigError
from aftersales.core.files import atomic_folder, sha256_of_file, write_text
from aftersales.core.paths import outputs
from aftersales.corpora.labelled import Example, LabelledData, fingerprint
from aftersales.corpora.load import DataConfig, load_data
from aftersales.encoders.load import locate
from aftersales.evaluation.card import classifier_card
from aftersales.evaluation.classification import plain_metric
from aftersales.evaluation.evidence import Evaluation, evaluate, indicator, write_evidence
from aftersales.runtime.classifier import Classifier, calibrated
from aftersales.runtime.decision import decide, rescaled
from aftersales.runtime.manifest import seal
from aftersales.runtime.settings import InferenceSettings, LabelInfo
from aftersales.tasks import Task
from aftersales.tracking.outcome import Outcome
from aftersales.tracking.runs import Logged, log_run, run_name

PYFUNC = Path(sys.modules[log_run.__module__].__file__ or "").with_name("pyfunc_classifier.py")
ENCODER_FILES = {".json", ".safetensors", ".txt", ".bin"}  # its card may change without changing a figure
REQUIREMENTS = ["aftersales", "onnxruntime", "safetensors", "tokenizers", "numpy", "pandas"]


class ClassifyConfig(Config):
    """Everything a classification run depends on."""

    recipe: str
    data: DataConfig
    fit: FitConfig = FitConfig()
    answer_precision: float = Field(default=0.9, gt=0, le=1)
    precision: Precision = "float32"  # of the exported graph; int8 takes about half the time


@dataclass(frozen=True)
class Learned:
    """What training and validation give: both halves, their weight, and how scores become decisions."""

    fitted: Fitted
    linear: Linear
    lexical_weight: float
    calibration: Calibration
    calibration_alone: Calibration


@dataclass(frozen=True)
class Measured:
    """What the test rows give.

    Attributes:
        evaluation: every figure.
        logits: of the trained model, float32 of shape (rows, labels).
        predicted, below: labels given by the model and by its floor, boolean of that shape.
        alone, lexical: likewise by its encoder alone and by its lexical half alone.
        confidence: of the model's answers, shape (rows,).
    """

    evaluation: Evaluation
    logits: np.ndarray
    predicted: np.ndarray
    below: np.ndarray
    alone: np.ndarray
    lexical: np.ndarray
    confidence: np.ndarray


def main(config: ClassifyConfig) -> Outcome:
    """Run the recipe from data to a logged, exported model."""
    started = time.monotonic()
    data = load_data(config.data)
    for note in data.notes:
        print(f"note: {note}")
    print(f"{data.task.name}: {', '.join(f'{len(part)} {name}' for name, part in data.splits.items())} rows")
    work = outputs() / "work" / work_name(config, data)
    learned = learn(config, data, work)
    measured = measure(data, learned)
    seconds = time.monotonic() - started

    folder = outputs() / "models" / data.task.name
    with atomic_folder(folder) as aside:
        parity = write_model(aside, config, data, learned, measured, seconds)
    with tempfile.TemporaryDirectory() as scratch:
        more = {
            "test_fingerprint": fingerprint(data.test),
            "parity": vars(parity),
            "calibration": vars(learned.calibration),
            "lexical_weight": learned.lexical_weight,
            "seconds": seconds,
        }
        found = measured.evaluation, measured.predicted, measured.below, measured.confidence
        write_evidence(Path(scratch), data, *found, more)
        run_id = log_run(describe(config, data, measured.evaluation, parity, folder, Path(scratch), seconds))
    shutil.rmtree(work, ignore_errors=True)
    evaluation = measured.evaluation
    outcome = Outcome(
        task=data.task.name,
        metric=evaluation.metric,
        figure=str(evaluation.headline),
        floor=str(evaluation.floor[evaluation.metric]),
        seconds=seconds,
        folder=folder,
        run_id=run_id,
        parts=f", encoder alone {evaluation.encoder_alone[evaluation.metric]}, n-grams alone "
        f"{evaluation.lexical_alone[evaluation.metric]} (weight {learned.lexical_weight:g})",
    )
    print(outcome.report())
    return outcome


def learn(config: ClassifyConfig, data: LabelledData, work: Path, linear: Linear | None = None) -> Learned:
    """Fit floor and encoder on the training split; choose everything else on validation.

    Args:
        config: the recipe.
        data: the rows.
        work: folder for checkpoints.
        linear: what ``learn_linear`` gave for the same rows, where it is known already.
    """
    labels, multi_label = data.task.label_names, data.task.multi_label
    if multi_label and config.fit.label_smoothing:
        raise ConfigError("fit.label_smoothing is for tasks with one label a text; leave it out")
    train, validation = rows_of(data.train, labels), rows_of(data.validation, labels)
    linear = linear or learn_linear(data)
    fitted = fit(config.fit, train, validation, labels, multi_label, work)
    alone, ngrams = fitted.logits(validation[0]), linear.half.lexical.scores(validation[0])
    metric = partial(plain_metric, data.task.metric)
    weight = choose_lexical_weight(alone, ngrams, validation[1], multi_label, metric)
    calibration, calibration_alone = (
        calibrate(logits, validation[1], multi_label, config.answer_precision)
        for logits in (alone + weight * ngrams, alone)
    )
    return Learned(fitted, linear, weight, calibration, calibration_alone)


def learn_linear(data: LabelledData) -> Linear:
    """Fit what does not depend on the encoder or a seed: the floor and the lexical half."""
    labels = data.task.label_names
    return fit_linear(rows_of(data.train, labels), rows_of(data.validation, labels), data.task.multi_label)


def rows_of(part: Sequence[Example], labels: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return texts and labels, boolean of shape (rows, labels)."""
    return [example.text for example in part], indicator(part, labels)


def measure(data: LabelledData, learned: Learned) -> Measured:
    """Score the test split with the model, its encoder alone and its floor."""
    multi_label, texts = data.task.multi_label, [example.text for example in data.test]
    alone = learned.fitted.logits(texts)
    logits = alone + learned.lexical_weight * learned.linear.half.lexical.scores(texts)
    predicted, confidence = _answers(logits, learned.calibration, multi_label)
    below, lexical_alone = learned.linear.floor.predictions(texts), learned.linear.half.predictions(texts)
    encoder_alone, _ = _answers(alone, learned.calibration_alone, multi_label)
    chosen = settings(data, learned)
    probabilities = calibrated(logits, learned.calibration.temperature, multi_label)
    answered = np.array([decide(row, chosen).decision == "answer" for row in probabilities])
    evaluation = evaluate(data, predicted, below, (encoder_alone, lexical_alone), confidence, answered)
    return Measured(evaluation, logits, predicted, below, encoder_alone, lexical_alone, confidence)


def write_model(
    folder: Path, config: ClassifyConfig, data: LabelledData, learned: Learned, measured: Measured, seconds: float
) -> Parity:
    """Write the model folder and compare it with the trained model on the test rows.

    Raises:
        ModelError: the exported model answers otherwise.
    """
    write_graph(learned.fitted, folder, config.precision)
    learned.linear.half.lexical.write(folder)
    settings(data, learned).write(folder)
    write_text(
        folder / "README.md",
        classifier_card(data, measured.evaluation, (config.fit.encoder, config.precision), seconds),
    )
    seal(folder, "classifier", data.task.name)
    exported = Classifier.load(folder, threads=2).logits([example.text for example in data.test])
    given, _ = _answers(exported, learned.calibration, data.task.multi_label)
    return check_parity(measured.logits, exported, (measured.predicted, given))


def work_name(config: ClassifyConfig, data: LabelledData) -> str:
    """Return a name for the checkpoints of exactly this recipe, data and encoder (its weights, shape and tokenizer)."""
    source = Path(locate(config.fit.encoder))
    files = [sha256_of_file(path) for path in sorted(source.rglob("*")) if path.suffix in ENCODER_FILES]
    return hashlib.sha256(f"{config.data}{config.fit}{data.fingerprint}{files}".encode()).hexdigest()[:16]


def _answers(logits: np.ndarray, calibration: Calibration, multi_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels given, boolean of shape (rows, labels), and the confidence of each row's answer."""
    probabilities = calibrated(logits, calibration.temperature, multi_label)
    predicted = predictions(probabilities, multi_label, calibration.label_threshold)
    raw, _ = judged(probabilities, predicted, multi_label, calibration.label_threshold)
    return predicted, rescaled(raw, calibration.confidence_scale, calibration.confidence_shift)


def settings(data: LabelledData, learned: Learned) -> InferenceSettings:
    """Return what the runtime must know besides graph and tokenizer."""
    task: Task = data.task
    groups = {group.name: group.zh for group in task.groups}
    return InferenceSettings(
        task=task.name,
        task_version=task.version,
        data_fingerprint=data.fingerprint,
        kind=task.kind,
        labels=[
            LabelInfo(name=label.name, zh=label.zh, group=label.parent, group_zh=groups.get(label.parent or ""))
            for label in task.labels
        ],
        max_tokens=learned.fitted.max_tokens,
        lexical_weight=learned.lexical_weight,
        out_of_scope=task.out_of_scope,
        handoff_labels=task.handoff,
        **vars(learned.calibration),
    )


def describe(
    config: ClassifyConfig,
    data: LabelledData,
    evaluation: Evaluation,
    parity: Parity,
    folder: Path,
    evidence: Path,
    seconds: float,
) -> Logged:
    """Gather what the experiment store shows of this run."""
    metrics = {name: figure.value for name, figure in evaluation.figures.items()}
    headline, floor = evaluation.headline, evaluation.floor[evaluation.metric]
    metrics |= {
        f"{evaluation.metric}_low": headline.low,
        f"{evaluation.metric}_high": headline.high,
        f"{evaluation.metric}_floor": floor.value,
        f"{evaluation.metric}_over_floor": evaluation.over_floor.value,
        f"{evaluation.metric}_encoder_alone": evaluation.encoder_alone[evaluation.metric].value,
        f"{evaluation.metric}_lexical_alone": evaluation.lexical_alone[evaluation.metric].value,
        "ece": evaluation.ece,
        "answered_share": evaluation.answered[0],
        "answered_precision": evaluation.answered[1],
        "parity_agreement": parity.agreement,
        "train_seconds": seconds,
        "model_mb": sum(path.stat().st_size for path in folder.iterdir()) / 1e6,
    }
    fitting = config.fit.model_dump()
    example = pd.DataFrame({"text": [data.train[0].text]})
    answer = Classifier.load(folder).predict(example["text"].tolist(), top_k=1)
    return Logged(
        experiment=data.task.name,
        name=run_name(config.fit.encoder, f"lr{config.fit.learning_rate:g}", f"seed{config.fit.seed}"),
        params={**fitting, "data": data.fingerprint[:12], "train_rows": len(data.train), "precision": config.precision},
        metrics=metrics,
        tags={
            "encoder": config.fit.encoder,
            "data_version": data.fingerprint[:12],
            "test_fingerprint": fingerprint(data.test)[:12],
            "metric": evaluation.metric,
            "config": json.dumps(config.model_dump(mode="json"), ensure_ascii=False),
        },
        dataset=_table(data.train),
        dataset_name=data.task.name,
        dataset_digest=data.fingerprint,
        folder=folder,
        evidence=evidence,
        pyfunc=PYFUNC,
        example=example,
        prediction=pd.DataFrame([one.flat() for one in answer]),
        requirements=REQUIREMENTS,
    )


def _table(examples: Sequence[Example]) -> pd.DataFrame:
    return pd.DataFrame({"text": [e.text for e in examples], "labels": ["|".join(e.labels) for e in examples]})


if __name__ == "__main__":
    main(load(ClassifyConfig, Path(sys.argv[1]), sys.argv[2:]))
