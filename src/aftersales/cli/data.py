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
    from aftersales.core.errors import ConfigError
    from aftersales.corpora.load import DataConfig, load_data

    values = read_yaml(Path(source)) if source.endswith(".yaml") else {"recipe": "classify", "data": {"task": source}}
    if values.get("recipe") != "classify":
        raise ConfigError(f"{source} is a config of the recipe {values.get('recipe')!r}; check reads labelled texts")
    others = [override for override in overrides if not override.startswith("data.")]
    if others:
        raise ConfigError(f"check reads only keys of the section data, not {others[0]!r}; write data.KEY=VALUE")
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
@click.option("--skip-bad-rows", is_flag=True, help="Leave out rows without a text or label and say how many.")
def new_task(
    name: str,
    path: Path,
    text_column: str,
    label_column: str | None,
    multi_label: bool,
    separator: str,
    title_zh: str | None,
    skip_bad_rows: bool,
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
    made = make_task(name, path, columns, multi_label, title_zh, skip_bad_rows)
    for note in made.notes:
        click.echo(f"note: {note}")
    folder, config = (path.relative_to(project_root()) for path in (made.folder, made.config))
    click.echo(f"task folder: {folder}\nconfig:      {config}\nnext:")
    click.echo(f"  fill in the Chinese names and definitions in {folder}/task.yaml and write {folder}/guidelines.md")
    click.echo(f"  aftersales check {name}")
    click.echo(f"  aftersales train {config}")


COMMANDS = (check, new_task)
