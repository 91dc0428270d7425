"""Commands that use chosen models: score, package, serve, champions."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("text", required=False)
@click.option(
    "--file", "source", type=click.Path(path_type=Path), help="CSV, TSV, JSON lines or Parquet file to score."
)
@click.option(
    "--out", "target", type=click.Path(path_type=Path), help="File for the result; its ending says the format."
)
@click.option("--text-column", default="text", show_default=True, help="Column of --file that holds the text.")
@click.option("--task", "tasks", multiple=True, help="Score these tasks only; may be given several times.")
@click.option(
    "--model", "folders", multiple=True, type=click.Path(path_type=Path), help="Model folder instead of champions."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def score(
    text: str | None,
    source: Path | None,
    target: Path | None,
    text_column: str,
    tasks: tuple[str, ...],
    folders: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Score one TEXT, or every row of a file, with the champions.

    A file is read in a stream and may be larger than memory. Stopped, the same command goes on where it was.

    \b
    Examples:
      aftersales score "快递三天没动静了，再不发货就退款"
      aftersales score "屏幕碎了客服还不理人" --task complaint_cause --json
      aftersales score --file tickets.csv --out scored.parquet --text-column message
      aftersales score "在吗" --model outputs/models/intent
    """
    from aftersales.core.errors import ConfigError

    if (text is None) == (source is None):
        raise ConfigError("give either a TEXT or --file")
    if source is not None and target is None:
        raise ConfigError("--file needs --out, the file for the result")
    classifiers = load_classifiers(tasks, folders)
    if source is not None and target is not None:
        from aftersales.scoring.files import score_file

        rows = score_file(source, target, classifiers, text_column)
        click.echo(f"{rows} rows scored: {target}")
        return
    assert text is not None
    check_text(text)
    answers = {task: classifier.predict([text])[0] for task, classifier in classifiers.items()}
    if as_json:
        dumped = {task: answer.model_dump() for task, answer in answers.items()}
        click.echo(json.dumps(dumped, ensure_ascii=False, indent=2))
        return
    for task, answer in answers.items():
        shown = "  ".join(
            f"{f'{one.zh} ({one.name})' if one.zh else one.name} {one.score:.2f}" for one in answer.labels
        )
        click.echo(f"{task:<16} {answer.decision:<8} {shown or '-'}")


def check_text(text: str) -> None:
    """Refuse a text that no model can score.

    Raises:
        DataError: it is empty or over-long.
    """
    from aftersales.core.errors import DataError
    from aftersales.text.normalise import MAX_CHARACTERS, normalise

    if not normalise(text):
        raise DataError("the text is empty; give a message to score")
    if len(text) > MAX_CHARACTERS:
        raise DataError(f"the text has {len(text):,} characters, at most {MAX_CHARACTERS:,} are scored; cut it")


def load_classifiers(tasks: tuple[str, ...], folders: tuple[Path, ...]) -> dict[str, Any]:
    """Return task name -> classifier, from folders or from the champions of ``tasks`` (all when empty)."""
    from aftersales.core.errors import ConfigError, TrackingError
    from aftersales.runtime.classifier import Classifier

    if folders:
        loaded = [Classifier.load(folder) for folder in folders]
        found = {classifier.settings.task: classifier for classifier in loaded}
        if tasks or len(found) < len(loaded):
            raise ConfigError("--model names its task itself: leave out --task, and give one folder for each task")
        return found
    from aftersales.tracking.registry import champions, need_champion

    names = tasks or tuple(task for task in champions() if task != "recommendation")
    if not names:
        raise TrackingError("no classifier is champion yet: run `make demo`, or train and promote a model")
    return {task: Classifier.load(need_champion(task).folder) for task in names}


@click.command()
def champions() -> None:
    """List the champion of every task with its version, run and figure.

    \b
    Example:
      aftersales champions
    """
    from aftersales.tracking.registry import champions as known
    from aftersales.tracking.registry import need_champion, run_of

    for task in known():
        found = need_champion(task)
        run = run_of(found.run_id)
        metric = run.data.tags.get("metric", "")
        figure = run.data.metrics.get(metric, float("nan"))
        click.echo(f"{task:<18} version {found.version:<4} {metric} {figure:.3f}  run {found.run_id}  {found.folder}")


@click.command()
@click.option("--task", "tasks", multiple=True, help="Package these champions only; may be given several times.")
@click.option(
    "--challenger",
    "challengers",
    multiple=True,
    metavar="NAME=FOLDER",
    help="A further recommender, for the variants of an experiment that name it.",
)
def package(tasks: tuple[str, ...], challengers: tuple[str, ...]) -> None:
    """Build one Bento from the champions of all tasks.

    \b
    Examples:
      aftersales package
      aftersales package --task intent --task sentiment
      aftersales package --challenger return-aware=outputs/models/recommendation
    """
    from aftersales.core.errors import ConfigError
    from aftersales.tracking.registry import champions as known
    from aftersales.tracking.registry import need_champion

    named = {name: Path(folder) for name, _, folder in (one.partition("=") for one in challengers)}
    if len(named) < len(challengers) or not all(name and str(folder) != "." for name, folder in named.items()):
        raise ConfigError("--challenger wants NAME=FOLDER, each name once")
    click.echo(build_bento({task: need_champion(task).folder for task in tasks or known()}, named))


def build_bento(folders: dict[str, Path], challengers: dict[str, Path] | None = None) -> str:
    """Build a Bento from model folders, and further recommenders by name, and return its tag.

    Raises:
        TrackingError: there is no model to package.
    """
    from aftersales.core.errors import TrackingError
    from aftersales.core.paths import load_script

    if not folders:
        raise TrackingError("there is no champion to package: run `make demo`, or train and promote a model")
    return str(load_script("serving/package.py").build_bento(folders, challengers))


@click.command()
@click.argument("tag", default="aftersales-scoring:latest")
@click.option("--port", default=3000, show_default=True, help="Port to listen on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def serve(tag: str, port: int, host: str) -> None:
    """Serve a built Bento until Ctrl-C.

    \b
    Examples:
      aftersales serve
      aftersales serve aftersales-scoring:latest --port 8080
    """
    from aftersales.core.paths import load_script

    load_script("serving/launch.py").serve(tag, host, port)


COMMANDS = (score, champions, package, serve)
