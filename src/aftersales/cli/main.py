"""``aftersales``: the entry point. A user's mistake ends with one clear line and exit code 2."""

import os
import sys

import click

from aftersales import __version__
from aftersales.cli import ab, data, histories, service, training
from aftersales.core.errors import told_errors

# Set before any library is imported: nothing we ship reports to anybody.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """Train, track, choose, package, serve and score models of Chinese after-sales messages.

    \b
    Examples:
      aftersales demo
      aftersales train configs/sentiment.yaml data.path=my.csv
      aftersales score "快递三天没动静了，再不发货就退款"
    """


for command in (*training.COMMANDS, *service.COMMANDS, *histories.COMMANDS, *data.COMMANDS, *ab.COMMANDS):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        with told_errors():
            cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("stopped; run the same command again to go on", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
