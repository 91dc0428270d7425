"""Commands on labelled data: check, new-task."""

from pathlib import Path

import click


@click.command()
@click.argument("task")
@click.option("--path", type=click.Path(path_type=Path), help="Check this file instead of the task's own splits.")
@click.option("--text-column", default="text", show_default=True)
@click.option("--label-column", default="label", show_default=True)
def check(task: str, path: Path | None, text_column: str, label_column: str) -> None:
    """Check the rows of TASK (a name or folder), or of a file labelled for it, and print the counts.

    \b
    Examples:
      aftersales check intent
      aftersales check sentiment --path my.csv --text-column review --label-column mood
    """
    from collections import Counter

    from aftersales.corpora.load import DataConfig, load_data

    data = load_data(DataConfig(task=task, path=path, text_column=text_column, label_column=label_column))
    for note in data.notes:
        click.echo(f"note: {note}")
    counts = {name: Counter(label for e in part for label in e.labels) for name, part in data.splits.items()}
    click.echo(f"{'label':<28}" + "".join(f"{name:>12}" for name in counts))
    for label in data.task.label_names:
        click.echo(f"{label:<28}" + "".join(f"{count[label]:>12}" for count in counts.values()))
    click.echo(f"{'rows':<28}" + "".join(f"{len(part):>12}" for part in data.splits.values()))
    click.echo(f"fingerprint {data.fingerprint[:16]}")


@click.command(name="new-task")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--text-column", default="text", show_default=True)
@click.option("--label-column", default="label", show_default=True)
@click.option("--multi-label", is_flag=True, help="Any number of labels a text.")
@click.option("--separator", default="|", show_default=True, help="Between several labels in one cell.")
@click.option("--title-zh", help="Chinese title; the name when not given.")
def new_task(
    name: str,
    path: Path,
    text_column: str,
    label_column: str,
    multi_label: bool,
    separator: str,
    title_zh: str | None,
) -> None:
    """Make the task folder and the config of a new classification task from a file of labelled texts.

    The labels are those of the file; the rows are split by the hash of their text. Afterwards fill in the Chinese
    names and definitions in task.yaml, write guidelines.md, and train with the printed command.

    \b
    Examples:
      aftersales new-task urgency tickets.csv --text-column message --label-column urgent
      aftersales new-task topics tickets.jsonl --label-column topics --multi-label
    """
    from aftersales.corpora.labelled import Columns
    from aftersales.corpora.new_task import make_task

    columns = Columns(text_column, label_column, "id", separator)
    folder, config = make_task(name, path, columns, multi_label, title_zh)
    click.echo(f"task folder: {folder}\nconfig:      {config}\nnext:        aftersales train {config}")


COMMANDS = (check, new_task)
