"""A project folder of its own for every test that writes, and a tiny encoder made by the real recipe."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def make_project(folder: Path) -> Path:
    """Lay out a project with this checkout's code and tasks but outputs of its own."""
    for name in ("training", "serving", "configs", "data/encoder", "data/interactions"):
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists() and name != "configs":
            link.symlink_to(ROOT / name, target_is_directory=True)
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copytree(ROOT / "data/tasks", folder / "data/tasks")
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh project folder, set as the one in use."""
    folder = make_project(tmp_path / "project")
    monkeypatch.setenv("AFTERSALES_HOME", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as Python has it; a shell that runs the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def shipped_texts() -> list[str]:
    """A few hundred shipped messages."""
    rows = (ROOT / "data/tasks/sentiment/train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(row)["text"] for row in rows[:400]]


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory, shipped_texts: list[str]) -> Iterator[Path]:
    """An encoder of 2 layers x 32 that the real pre-training recipe made in a few steps."""
    folder = make_project(tmp_path_factory.mktemp("encoder") / "project")
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "texts.txt").write_text("\n".join(shipped_texts), encoding="utf-8")
    before = os.environ.get("AFTERSALES_HOME")
    os.environ["AFTERSALES_HOME"] = str(folder)
    try:
        pretrain(folder, steps=20)
    finally:
        os.environ.pop("AFTERSALES_HOME") if before is None else os.environ.update(AFTERSALES_HOME=before)
    yield folder / "outputs" / "tiny" / "encoder"


TINY = {"vocabulary": 2000, "layers": 2, "hidden": 32, "heads": 2, "intermediate": 64, "positions": 64}


def pretrain_config(folder: Path, steps: int = 10, out: str = "outputs/tiny", **settings: Any) -> Any:
    """The config of a tiny encoder from ``folder/corpus``; ``settings`` replace keys of it."""
    from aftersales.core.config import build
    from aftersales.encoders.pretrain_config import PretrainConfig

    values = {
        "recipe": "pretrain",
        "corpus": {"folder": folder / "corpus", "files": {"texts.txt": 1}},
        "out": out,
        "steps": steps,
        "warmup": min(2, steps // 4),
        "decay": min(4, steps // 2),
        "batch_size": 4,
        "sequence_length": 32,
        "threads": 1,
        "checkpoint_every": 10,
        **settings,
        "architecture": {**TINY, **settings.get("architecture", {})},
    }
    return build(PretrainConfig, values, "tiny")


def pretrain(folder: Path, steps: int, out: str = "outputs/tiny", **settings: Any) -> None:
    """Pre-train a tiny encoder on ``folder/corpus``; ``settings`` replace keys of the config."""
    from aftersales.core.paths import load_script

    load_script("training/pretrain.py").main(pretrain_config(folder, steps, out, **settings))
