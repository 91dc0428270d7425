"""One training run in MLflow: the parameters we choose, the figures on test, the model, and what the gate needs."""

import hashlib
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from aftersales.core.files import sha256_of_file
from aftersales.runtime.manifest import verify
from aftersales.tracking.provenance import provenance
from aftersales.tracking.store import connect, experiment_id, reported

EVIDENCE = "evidence"
MODEL = "model"
# Tags by which later readers know that evidence and model are those which were logged.
EVIDENCE_DIGEST, MODEL_VERSION = "evidence_sha256", "model_version"


@dataclass(frozen=True)
class Logged:
    """What a recipe hands over for tracking.

    Attributes:
        experiment: name of the task or ``recommendation``.
        name: what tells this run from its neighbours.
        params: the settings a person would change.
        metrics: figures on test rows; floors end in ``_floor``, interval ends in ``_low`` and ``_high``.
        tags: what the run was made from, besides its provenance.
        dataset: rows of the training split, for the dataset input.
        dataset_name: name and digest shown for it.
        dataset_digest: its fingerprint.
        folder: the model folder.
        evidence: folder with evaluation.json, predictions and plots.
        pyfunc: file with the models-from-code script that loads the folder.
        example: example input of the model.
        prediction: what the model answers to it.
        requirements: packages that the model needs, logged with the versions installed here.
    """

    experiment: str
    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    dataset: pd.DataFrame
    dataset_name: str
    dataset_digest: str
    folder: Path
    evidence: Path
    pyfunc: Path
    example: pd.DataFrame
    prediction: pd.DataFrame
    requirements: Sequence[str]


def log_run(logged: Logged) -> str:
    """Write a finished training run into the store and return its id.

    Raises:
        TrackingError: the store cannot be used; the model folder stays on disk.
    """
    client = connect()
    with reported(f"experiment store (the trained model is kept in {logged.folder})"):
        experiment = experiment_id(client, logged.experiment)
        tags = {
            **provenance(),
            **logged.tags,
            "task": logged.experiment,
            EVIDENCE_DIGEST: digest_of_evidence(logged.evidence),
            MODEL_VERSION: verify(logged.folder).version,
        }
        begun = int(1000 * (time.time() - logged.metrics["train_seconds"]))  # so that the page shows the true duration
        created = client.create_run(experiment, start_time=begun, run_name=logged.name, tags=tags)
        with mlflow.start_run(run_id=created.info.run_id) as run:
            mlflow.log_params({key: str(value)[:250] for key, value in logged.params.items()})
            mlflow.log_metrics({key: float(value) for key, value in logged.metrics.items()})
            warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer column")
            dataset = mlflow.data.from_pandas(  # type: ignore[attr-defined]
                logged.dataset, name=logged.dataset_name, digest=logged.dataset_digest[:12]
            )
            mlflow.log_input(dataset, context="training")
            mlflow.log_artifacts(str(logged.evidence), EVIDENCE)
            mlflow.pyfunc.log_model(
                name=MODEL,
                python_model=str(logged.pyfunc),
                artifacts={"folder": str(logged.folder)},
                signature=mlflow.models.infer_signature(logged.example, logged.prediction),
                input_example=logged.example,
                pip_requirements=[f"{name}=={version(name)}" for name in logged.requirements],
            )
            return str(run.info.run_id)


def digest_of_evidence(folder: Path) -> str:
    """Return one SHA-256 over the figures and the predictions row by row, which the gate reads."""
    digests = [sha256_of_file(folder / name) for name in ("evaluation.json", "predictions.jsonl")]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def log_pretraining(
    name: str,
    params: Mapping[str, Any],
    figures: Mapping[str, float],
    curve: Sequence[tuple[int, float]],
    fingerprint: str,
    folder: Path,
    seconds: float,
) -> str:
    """Write a finished pre-training into the experiment ``pretraining`` and return the run's id.

    Args:
        name: of the run.
        params: its settings.
        figures: held-out loss, speed.
        curve: (step, smoothed training loss).
        fingerprint: of the corpus.
        folder: of the encoder; its card and ``pretraining.json`` are kept with the run, the weights stay there.
        seconds: since the start.

    Raises:
        TrackingError: the store cannot be used; the encoder stays on disk.
    """
    client = connect()
    with reported(f"experiment store (the encoder is kept in {folder})"):
        experiment = experiment_id(client, "pretraining")
        now = int(1000 * time.time())
        tags = {**provenance(), "data_version": fingerprint[:12], "encoder_folder": str(folder)}
        run = client.create_run(experiment, start_time=now - int(1000 * seconds), run_name=name, tags=tags)
        shown = [mlflow.entities.Param(key, str(value)[:250]) for key, value in params.items()]
        last = curve[-1][0] if curve else 0
        points = [mlflow.entities.Metric("loss", loss, now, step) for step, loss in curve]
        points += [mlflow.entities.Metric(key, float(value), now, last) for key, value in figures.items()]
        client.log_batch(run.info.run_id, params=shown)
        for first in range(0, len(points), 1000):
            client.log_batch(run.info.run_id, metrics=points[first : first + 1000])
        for file in ("README.md", "pretraining.json"):
            client.log_artifact(run.info.run_id, str(folder / file))
        client.set_terminated(run.info.run_id)
        return str(run.info.run_id)


def run_name(*parts: object) -> str:
    """Return a run name that says what differs: the chosen settings and the time."""
    said = "-".join(str(value).rstrip("/").rpartition("/")[2] for value in parts)
    return f"{said}-{time.strftime('%m%d-%H%M%S')}"
