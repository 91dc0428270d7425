"""One real Bento of tiny models, really served, for all tests of the service."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from serving.home import VARIABLE
from serving.launch import running_bento
from serving.package import build_bento
from serving.settings import VARIABLES
from tests.tiny_models import TASKS, tiny_classifier, tiny_recommender

from aftersales.corpora.history_store import build_histories
from aftersales.corpora.interaction_tables import Columns
from aftersales.corpora.interactions import Event
from aftersales.runtime.events import DAY


@dataclass(frozen=True)
class Served:
    """A running Bento, the folders it was built from, and where BentoML keeps it."""

    url: str
    client: httpx.Client
    tag: str
    log: Path
    home: Path
    models: dict[str, Path]

    def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.client.post(path, json=body, headers=headers)

    @property
    def source(self) -> Path:
        return self.home / "bentos" / self.tag.replace(":", "/") / "src"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    folders = {task: tiny_classifier(folder / task, task, labels) for task, labels in TASKS.items()}
    return {**folders, "recommendation": tiny_recommender(folder / "recommendation")}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """BentoML opens its store once a process, so that one home serves the whole session."""
    before = os.environ.get(VARIABLE)
    folder = tmp_path_factory.mktemp("bentoml")
    os.environ[VARIABLE] = str(folder)
    yield folder
    if before is None:
        del os.environ[VARIABLE]
    else:
        os.environ[VARIABLE] = before


@pytest.fixture(scope="session")
def tag(models: dict[str, Path], home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    backwards = tiny_recommender(tmp_path_factory.mktemp("backwards") / "model", backwards=True)
    return build_bento(models, {"backwards": backwards})


@pytest.fixture(scope="session")
def served(tag: str, models: dict[str, Path], home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running_bento(tag, log=log) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield Served(url, client, tag, log, home, models)


@dataclass(frozen=True)
class Platform:
    """A running Bento with every setting of a platform."""

    client: httpx.Client
    log: Path
    stock: Path

    def recommend(self, **body: object) -> httpx.Response:
        return self.client.post("/v1/recommend", json=body)


EXPERIMENT = """
experiments:
  - name: order
    salt: "1"
    control: today
    variants:
      - {name: today, weight: 0.5}
      - {name: backwards, weight: 0.5, recommender: backwards, explore: 1.0}
"""
NOW = 1_750_000_000  # a moment after all stored events


@pytest.fixture(scope="session")
def platform(tag: str, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    events = [Event("甲", "P001", "buy", NOW - 5 * DAY), Event("甲", "P002", "view", NOW - DAY)]
    events += [Event("乙", "gone", "buy", NOW - DAY), Event("未来", "P003", "buy", NOW + DAY)]
    rows = "".join(json.dumps(event._asdict(), ensure_ascii=False) + "\n" for event in events)
    (folder / "events.jsonl").write_text(rows, encoding="utf-8")
    build_histories(folder / "events.jsonl", folder / "histories.sqlite", Columns(), NOW + 2 * DAY)
    (folder / "sold.txt").write_text("\n".join(f"P{number:03d}" for number in range(29)) + "\nS0\n")  # P029, S1: gone
    (folder / "out.txt").write_text("P000\nnever-heard-of\n")
    (folder / "experiment.yaml").write_text(EXPERIMENT, encoding="utf-8")
    files = ("histories.sqlite", "sold.txt", "out.txt", "experiment.yaml", "shown.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        for name, file in zip(VARIABLES, files, strict=True):
            patch.setenv(name, str(folder / file))
        with running_bento(tag) as url, httpx.Client(base_url=url, timeout=20) as client:
            yield Platform(client, folder / "shown.jsonl", folder / "out.txt")
