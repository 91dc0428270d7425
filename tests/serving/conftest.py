"""One real Bento of tiny models, really served, for all tests of the service."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from serving.home import VARIABLE
from serving.launch import running_bento
from serving.package import build_bento
from tests.tiny_models import TASKS, tiny_classifier, tiny_recommender


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
def tag(models: dict[str, Path], home: Path) -> str:
    return build_bento(models)


@pytest.fixture(scope="session")
def served(tag: str, models: dict[str, Path], home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running_bento(tag, log=log) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield Served(url, client, tag, log, home, models)
