"""Commands that make and choose models: train, promote, demo."""

from pathlib import Path
from typing import Any

import click

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@OVERRIDES
def train(config: Path, overrides: tuple[str, ...]) -> None:
    """Run the recipe that CONFIG names, with dotted KEY=VALUE overrides.

    The finished run is logged to MLflow and its model folder written to outputs/models. A classifier or an encoder
    whose training was stopped goes on from its last checkpoint with the same command.

    \b
    Examples:
      aftersales train configs/intent.yaml
      aftersales train configs/sentiment.yaml fit.epochs=5 fit.seed=2
      aftersales train configs/sentiment.yaml data.path=my.csv data.text_column=review data.label_column=stars
      aftersales train configs/recommend_ease.yaml model.options.l2=20
    """
    run_recipe(config, overrides)


@click.command()
@click.argument("run")
@click.option("--changed-test", is_flag=True, help="The test rows were changed on purpose since the champion.")
def promote(run: str, changed_test: bool) -> None:
    """Make RUN (an id or unique name) the champion of its task, if it passes the gate.

    \b
    Examples:
      aftersales promote 0a1b2c3d4e5f60718293a4b5c6d7e8f9
      aftersales promote embedded-lr0.0003-seed1-1122-093000
      aftersales promote embedded-lr0.0003-seed1-1122-093000 --changed-test
    """
    recipe("promote").main(run, changed_test)


@click.command()
@click.option("--port", default=5000, show_default=True, help="Port of the page, on this machine only.")
def ui(port: int) -> None:
    """Open the MLflow page on the local experiment store, until Ctrl-C.

    \b
    Examples:
      aftersales ui
      aftersales ui --port 5001
    """
    from aftersales.tracking.store import connect, serve_page

    experiments = [one for one in connect().search_experiments() if one.name != "Default"]
    for one in sorted(experiments, key=lambda one: str(one.name)):
        click.echo(f"{one.name:<18} http://127.0.0.1:{port}/#/experiments/{one.experiment_id}/runs")
    serve_page(port)


@click.command()
@click.option("--keep-serving", is_flag=True, help="Leave the service running at the end.")
def demo(keep_serving: bool) -> None:
    """Run the whole loop on the shipped corpora: train, track, choose, package, serve, score.

    \b
    Examples:
      aftersales demo
      aftersales demo --keep-serving
    """
    recipe("demo").main(keep_serving=keep_serving)


def run_recipe(config: Path, overrides: tuple[str, ...]) -> Any:
    """Load the recipe that a config names, check the config against it, and run it.

    Raises:
        ConfigError: the config or its recipe does not exist, or a key or value is wrong.
    """
    from aftersales.core.config import apply_overrides, build, read_yaml
    from aftersales.core.errors import ConfigError, nearest

    values = apply_overrides(read_yaml(config), overrides)
    name = values.get("recipe")
    if name not in RECIPES:
        raise ConfigError(f"{config}: recipe is {name!r}{nearest(str(name), RECIPES)}")
    module = recipe(name)
    return module.main(build(getattr(module, RECIPES[name]), values, str(config)))


# Recipe -> the class of its configuration.
RECIPES = {"classify": "ClassifyConfig", "recommend": "RecommendConfig", "pretrain": "PretrainConfig"}


def recipe(name: str) -> Any:
    """Return the module ``training/<name>.py`` of the project."""
    from aftersales.core.paths import load_script

    return load_script(f"training/{name}.py")


COMMANDS = (train, promote, ui, demo)
