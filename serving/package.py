"""Package exported models with the service as one Bento, which runs without this repository and without torch."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import yaml

import aftersales
from aftersales.core.errors import ConfigError, ModelError
from aftersales.core.files import write_text
from aftersales.runtime.classifier import Classifier
from aftersales.runtime.manifest import Manifest, verify
from aftersales.runtime.protocol import EXAMPLE_TEXTS, HistoryEvent, ModelInfo, RecommendRequest
from aftersales.runtime.recommender import Recommender
from serving.contents import NO_TASKS, Contents, Packaged, PackagedClassifier, PackagedRecommender
from serving.home import VARIABLE, bentoml_home

# Not "aftersales": BentoML takes a Bento's name for a module first, and would import the checkout's package.
BENTO = "aftersales-scoring"
# Rooms that serving runs on, and the files of this package that go into the Bento.
ROOMS = ("core", "text", "runtime")
SERVICE_FILES = (
    "__init__.py",
    "contents.py",
    "docs.py",
    "door.py",
    "exposures.py",
    "logs.py",
    "metrics.py",
    "recommending.py",
    "service.py",
    "settings.py",
    "shop.py",
)
REQUIREMENTS = (
    "numpy",
    "onnxruntime",
    "prometheus-client",
    "pydantic",
    "PyYAML",
    "safetensors",
    "starlette",
    "tokenizers",
)  # BentoML adds itself


def build_bento(models: Mapping[str, Path], challengers: Mapping[str, Path] | None = None) -> str:
    """Build one Bento of model folders and return its tag.

    Args:
        models: a model's name, as its manifest has it, and its folder; classifiers become endpoints in this order.
        challengers: a name, as variants of an experiment use it, and the folder of a further recommender.

    Raises:
        ModelError: a folder is no intact model, is not the one named, or cannot answer an example.
        ConfigError: BentoML refuses the build, or it was imported before its store was decided.
    """
    if not models:
        raise ModelError("there is no model to package; give at least one model folder")
    home = bentoml_home()
    contents = _describe(models)
    for packaged in contents.models:
        _store(packaged, models[packaged.model.name], home)
    for name, challenger in (challengers or {}).items():
        contents.challengers[name] = _challenger(name, challenger, contents)
        _store(contents.challengers[name], challenger, home)
    with tempfile.TemporaryDirectory(prefix="aftersales-bento-") as folder:
        stage = Path(folder)
        _stage(stage, contents)
        return _build(stage)


def _describe(models: Mapping[str, Path]) -> Contents:
    """Check every folder, let every model answer an example, and return what the Bento will hold."""
    contents = Contents(classifiers=[])
    for name, folder in models.items():
        manifest = verify(folder)
        if manifest.name != name or name in NO_TASKS:
            raise ModelError(f"{folder} holds the model {manifest.name!r} and cannot be packaged as {name!r}")
        if manifest.kind == "classifier":
            contents.classifiers.append(_describe_classifier(folder))
        elif contents.recommender is None:
            contents.recommender = _describe_recommender(folder)
        else:
            raise ModelError(f"{folder} is a second recommender; package one")
    return contents


def _describe_classifier(folder: Path) -> PackagedClassifier:
    classifier = Classifier.load(folder)
    return PackagedClassifier(
        model=_info(classifier.manifest, classifier.settings.data_fingerprint),
        labels=classifier.settings.labels,
        example=classifier.predict(EXAMPLE_TEXTS),
    )


def _describe_recommender(folder: Path) -> PackagedRecommender:
    recommender = Recommender.load(folder)
    known = [item.item_id for item in recommender.items if item.kind == "product"][:2]
    history = [HistoryEvent(item_id=item, days_ago=days) for item, days in zip(known, (30.0, 2.0), strict=False)]
    request = RecommendRequest(user_id="U000001", history=history, k=3, exclude_items=known[:1])
    described = json.loads((folder / "recommender.json").read_text(encoding="utf-8"))
    return PackagedRecommender(
        model=_info(verify(folder), described.get("data_fingerprint", "unknown")),
        example_request=request,
        example=recommender.recommend(request.events(0), request.k, request.filters()),
    )


def _challenger(name: str, folder: Path, contents: Contents) -> Packaged:
    """Check a further recommender."""
    if contents.recommender is None:
        raise ModelError(f"{name!r} has no recommender to challenge; package the champion of recommendation, too")
    packaged = _describe_recommender(folder)
    if name in contents.recommenders or packaged.tag in {one.tag for one in contents.models}:
        raise ModelError(f"{folder} or the name {name!r} is in the Bento already; give another folder and name")
    return Packaged(model=packaged.model)


def _info(manifest: Manifest, data_version: str) -> ModelInfo:
    return ModelInfo(name=manifest.name, version=manifest.version, data_version=data_version)


def _store(packaged: Packaged, folder: Path, home: Path) -> None:
    """Put a model folder into BentoML's store under its own version, unless exactly it is there."""
    import bentoml

    try:
        stored = Path(bentoml.models.get(packaged.tag).path)
    except bentoml.exceptions.NotFound:
        pass
    else:
        try:
            packaged.check(stored)
            return
        except ModelError:
            bentoml.models.delete(packaged.tag)
    labels = {"task": packaged.model.name, "data_version": packaged.model.data_version[:63]}
    with bentoml.models.create(packaged.tag, labels=labels, metadata=packaged.model.model_dump()) as model:
        shutil.copytree(folder, packaged.folder(Path(model.path)))
    where = Path(bentoml.models.get(packaged.tag).path)
    if not where.resolve().is_relative_to(home):
        raise ConfigError(f"BentoML stored a model in {where}: set {VARIABLE} to {home} before it is first used")


def _stage(stage: Path, contents: Contents) -> None:
    """Lay out in ``stage`` everything that the Bento holds, and BentoML's build file."""
    here, library = Path(__file__).parent, Path(aftersales.__file__).parent
    (stage / "serving").mkdir()
    for name in SERVICE_FILES:
        shutil.copy(here / name, stage / "serving" / name)
    contents.write(stage / "serving")
    (stage / "aftersales").mkdir()
    shutil.copy(library / "__init__.py", stage / "aftersales")
    for room in ROOMS:
        shutil.copytree(library / room, stage / "aftersales" / room, ignore=shutil.ignore_patterns("__pycache__"))
    build_file = {
        "service": "serving.service:AfterSales",
        "name": BENTO,
        "description": "售后消息打分与推荐 · Scores after-sales messages and recommends items and services.",
        "labels": {one.model.name: one.model.version for one in reversed(contents.models)},  # the champion's stays
        "include": ["serving/*", "aftersales/**/*.py", "aftersales/*.py"],
        "models": [packaged.tag for packaged in contents.models],
        "python": {"packages": [f"{name}=={version(name)}" for name in REQUIREMENTS], "lock_packages": False},
    }
    write_text(stage / "bentofile.yaml", yaml.safe_dump(build_file, allow_unicode=True, sort_keys=False))


def _build(stage: Path) -> str:
    """Build in a process of its own, which sees the staged files only and so proves that they are enough."""
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag"]
    done = subprocess.run(  # noqa: S603  (our own interpreter, no shell)
        command, cwd=stage, env=environment, capture_output=True, text=True, check=False
    )
    tag = done.stdout.partition("__tag__:")[2].strip()
    if done.returncode != 0 or not tag:
        raise ConfigError(f"BentoML did not build the Bento:\n{(done.stdout + done.stderr)[-2000:]}")
    return tag
