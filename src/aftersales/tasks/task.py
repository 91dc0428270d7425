"""A classification task is one folder: ``task.yaml``, three splits, guidelines and a card. No code."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from aftersales.core.config import Config, build, read_yaml
from aftersales.core.errors import ConfigError, nearest
from aftersales.core.paths import project_root

SPLITS = ("train", "validation", "test")
NAME = r"^[a-z][a-z0-9_]*$"
LABEL = r"^[\w.\-]+$"
# Names that endpoints and the recommender's experiment bear.
RESERVED = ("triage", "recommend", "recommendation")


class Title(Config):
    """The name of a task as people read it."""

    en: str
    zh: str


class Group(Config):
    """The upper level of a two-level label set."""

    name: str
    zh: str


class Label(Config):
    """One label: its name in data and answers, its Chinese name, what it means and the group it belongs to."""

    name: str = Field(pattern=LABEL)
    zh: str = ""
    definition: str = ""
    parent: str | None = None


class Task(Config):
    """What ``task.yaml`` says.

    Attributes:
        name: the folder's name, and the name of model, endpoint and experiment.
        version: raised whenever the meaning of a label changes.
        kind: exactly one label a text, or any number of them (also none).
        metric: the headline figure, by which models are chosen.
        out_of_scope: the label of texts that the automaton must not answer, if there is one.
        handoff: labels that always go to a human.
    """

    name: str = Field(pattern=NAME)
    version: int = 1
    title: Title
    kind: Literal["single_label", "multi_label"]
    metric: Literal["accuracy", "macro_f1", "micro_f1"] = "macro_f1"
    out_of_scope: str | None = None
    handoff: list[str] = []
    groups: list[Group] = []
    labels: list[Label] = Field(min_length=2)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name in RESERVED:
            raise ValueError(f"the name {self.name!r} is taken by an endpoint or the recommender; choose another")
        names = self.label_names
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"label {doubled[0]!r} is defined twice")
        groups = {group.name for group in self.groups}
        for label in self.labels:
            if label.parent is not None and label.parent not in groups:
                raise ValueError(f"label {label.name!r} has the unknown parent {label.parent!r}")
        for special in (self.out_of_scope, *self.handoff):
            if special is not None and special not in names:
                raise ValueError(f"out_of_scope or handoff names the unknown label {special!r}")
        return self

    @property
    def label_names(self) -> list[str]:
        """The names in the order of the model's outputs."""
        return [label.name for label in self.labels]

    @property
    def multi_label(self) -> bool:
        """Whether a text may bear several labels or none."""
        return self.kind == "multi_label"


def load_task(folder: Path) -> Task:
    """Read the task in ``folder``.

    Raises:
        ConfigError: ``task.yaml`` is missing or wrong, or its name is not the folder's.
    """
    path = folder / "task.yaml"
    task = build(Task, read_yaml(path), str(path))
    if task.name != folder.name:
        raise ConfigError(f"{path}: name is {task.name!r} but the folder is {folder.name!r}; make them equal")
    return task


def known_tasks() -> list[str]:
    """Return the names of all task folders of the project."""
    return sorted(path.parent.name for path in (project_root() / "data" / "tasks").glob("*/task.yaml"))


def find_task(name: str) -> Path:
    """Return the folder of a task given by name or as a path to a folder.

    Raises:
        ConfigError: there is no such task; the nearest known one is named.
    """
    for folder in (project_root() / "data" / "tasks" / name, Path(name)):
        if (folder / "task.yaml").is_file():
            return folder.resolve()
    raise ConfigError(
        f"task {name!r} is not a folder with a task.yaml{nearest(name, known_tasks())}; "
        "`aftersales new-task` makes one from a file of labelled texts"
    )
