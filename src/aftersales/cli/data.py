"""Commands on labelled data: check, new-task."""

from pathlib import Path

import click


@click.command()
@click.argument("source", metavar="TASK|CONFIG")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def check(source: str, overrides: tuple[str, ...]) -> None:
    """Check every row of a task, or of the data that a config names, and print the counts of each label.

    \b
    Examples:
      aftersales check intent
      aftersales check configs/sentiment.yaml data.path=my.csv data.text_column=review data.label_column=mood
      aftersales check sentiment data.path=my.csv data.label_map.1=negative data.label_map.5=positive
    """
    from collections import Counter

    from aftersales.core.config import apply_overrides, build, read_yaml
    from aftersales.corpora.load import DataConfig, load_data

    values = read_yaml(Path(source)) if source.endswith(".yaml") else {"data": {"task": source}}
    merged = apply_overrides({"data": values.get("data", {})}, overrides)
    data = load_data(build(DataConfig, merged["data"], f"{source}, section data"))
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
@click.option("--label-column", help="Default: label, or labels with --multi-label.")
@click.option("--multi-label", is_flag=True, help="Any number of labels a text.")
@click.option("--separator", default="|", show_default=True, help="Between several labels in one cell.")
@click.option("--title-zh", help="Chinese title; the name when not given.")
def new_task(
    name: str,
    path: Path,
    text_column: str,
    label_column: str | None,
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
    from aftersales.core.paths import project_root
    from aftersales.corpora.labelled import Columns
    from aftersales.corpora.new_task import make_task

    columns = Columns(text_column, label_column, "id", separator)
    folder, config = make_task(name, path, columns, multi_label, title_zh)
    root = project_root()
    click.echo(f"task folder: {folder.relative_to(root)}\nconfig:      {config.relative_to(root)}")
    click.echo(f"next:        aftersales train {config.relative_to(root)}")


COMMANDS = (check, new_task)
