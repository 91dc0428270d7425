"""The registry: one registered model a task, whose alias ``champion`` is what serving runs."""

from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from aftersales.core.errors import TrackingError, nearest
from aftersales.runtime.manifest import verify
from aftersales.tracking.provenance import user
from aftersales.tracking.runs import EVIDENCE, EVIDENCE_DIGEST, MODEL, MODEL_VERSION, digest_of_evidence
from aftersales.tracking.store import connect, reported

ALIAS = "champion"
PREFIX = "aftersales-"
VERDICT, PASSED = "gate", "passed"  # tag of a run that was put through the gate
# What MLflow answers where there is no such model, or a model without the alias; anything else is a failure.
NOT_FOUND = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True)
class Champion:
    """The chosen model of a task, with its folder on this machine."""

    task: str
    version: str
    run_id: str
    folder: Path


def champion(task: str) -> Champion | None:
    """Return the champion of a task, or None when there is none yet.

    Raises:
        TrackingError: the store cannot be used, or the champion's files are gone.
    """
    client = connect()
    try:
        version = client.get_model_version_by_alias(PREFIX + task, ALIAS)
    except MlflowException as error:
        if error.error_code in NOT_FOUND:
            return None
        raise TrackingError(f"the registry cannot say who is champion of {task!r}: {error}; try again") from None
    run = run_of(str(version.run_id))
    return Champion(task, str(version.version), run.info.run_id, _folder(str(version.source), run))


def need_champion(task: str) -> Champion:
    """Return the champion of a task.

    Raises:
        TrackingError: there is none; the way to one is named.
    """
    found = champion(task)
    if found is None:
        raise TrackingError(f"task {task!r} has no champion{_why_none(task)}")
    return found


def _why_none(task: str) -> str:
    client = connect()
    experiment = client.get_experiment_by_name(task)
    runs = client.search_runs([experiment.experiment_id], max_results=1) if experiment else []
    if not runs:
        near = nearest(task, champions()) if champions() else ""
        return f"{near}: `make demo` trains all shipped ones, or `aftersales train CONFIG` and `aftersales promote RUN`"
    name, verdict = runs[0].info.run_name, runs[0].data.tags.get(VERDICT)
    if verdict is None:
        return f": its last run {name!r} was not put through the gate yet; `aftersales promote {runs[0].info.run_id}`"
    if verdict == PASSED:
        return f": its last run {name!r} passed the gate and lost the alias since; `aftersales promote` it again"
    return (
        f": the gate refused its last run {name!r} ({verdict}); train a better one, or look at it all the same with "
        f"`aftersales score TEXT --model outputs/models/{task}`"
    )


def champions() -> list[str]:
    """Return the tasks that have a champion."""
    models = connect().search_registered_models()
    return sorted(m.name.removeprefix(PREFIX) for m in models if m.name.startswith(PREFIX) and ALIAS in m.aliases)


def run_of(run_id: str) -> mlflow.entities.Run:
    """Return a run by id or by unique name.

    Raises:
        TrackingError: there is no such run, or several bear the name.
    """
    client = connect()
    try:
        return client.get_run(run_id)
    except MlflowException:
        everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
        quoted = run_id.replace("'", "")
        named = client.search_runs(everywhere, f"attributes.run_name = '{quoted}'")
    if len(named) != 1:
        what = "no run has" if not named else f"{len(named)} runs have"
        raise TrackingError(f"{what} the id or name {run_id!r}; copy an id from the MLflow page")
    return named[0]


def evidence_of(run: mlflow.entities.Run) -> Path:
    """Return the folder with a run's evidence on this machine.

    Raises:
        TrackingError: the run has none, because it is not one of ours or did not finish, or it was changed since.
    """
    connect()
    try:
        folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=EVIDENCE))
        digest = digest_of_evidence(folder)
    except (MlflowException, OSError):
        raise TrackingError(
            f"run {run.info.run_name!r} has no {EVIDENCE!r} artifacts, which the gate reads; train it again"
        ) from None
    if digest != run.data.tags.get(EVIDENCE_DIGEST):
        raise TrackingError(f"the {EVIDENCE!r} of run {run.info.run_name!r} is not what it logged; train it again")
    return folder


def model_folder_of(run: mlflow.entities.Run) -> Path:
    """Return the model folder that a run logged.

    Raises:
        TrackingError: the run has none, or it was changed since.
    """
    return _folder(_source(run), run)


def crown(run: mlflow.entities.Run, reason: str) -> str:
    """Register a run's model, set the alias and return the version's number.

    Args:
        run: the run that won.
        reason: the gate's lines, kept as the version's description.
    """
    client = connect()
    task = run.data.tags["task"]
    with reported("model registry"):
        version = mlflow.register_model(_source(run), PREFIX + task, tags={"promoted_by": user()})
        client.update_model_version(PREFIX + task, version.version, description=reason)
        client.set_registered_model_alias(PREFIX + task, ALIAS, version.version)
    return str(version.version)


def keep_verdict(run: mlflow.entities.Run, failures: list[str]) -> None:
    """Write on the run what the gate said of it: ``passed``, or the rules that failed."""
    with reported("experiment store"):
        connect().set_tag(run.info.run_id, VERDICT, "; ".join(failures) or PASSED)


def _source(run: mlflow.entities.Run) -> str:
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise TrackingError(f"run {run.info.run_name!r} logged no {MODEL!r}; train it again")
    return f"models:/{outputs[0].model_id}"


def _folder(source: str, run: mlflow.entities.Run) -> Path:
    with reported(f"model {source}"):
        packed = Path(mlflow.artifacts.download_artifacts(artifact_uri=source))
    folders = [path for path in (packed / "artifacts").glob("*") if path.is_dir()]
    if len(folders) != 1:
        raise TrackingError(f"model {source} does not hold one model folder; train it again")
    if verify(folders[0]).version != run.data.tags.get(MODEL_VERSION):
        raise TrackingError(f"{folders[0]} is not the model that run {run.info.run_name!r} logged; train it again")
    return folders[0]
