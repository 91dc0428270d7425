"""Rows of other libraries' models: the same split, the same choice by validation figures, the same metrics.

A peer runs in an environment of its own (``peer_requirements.txt``), named by AFTERSALES_PEER_PYTHON. It reads the
split from a file and writes the lists it would show; what they are worth is computed here.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from aftersales.core.errors import ModelError
from aftersales.core.files import atomic_folder, write_json
from aftersales.core.paths import load_script, project_root
from aftersales.corpora.load_interactions import SplitInteractions
from aftersales.evaluation.ranking import Ranking
from aftersales.evaluation.results import Result
from aftersales.tracking.provenance import provenance

PYTHON = "AFTERSALES_PEER_PYTHON"
SCRIPT = "experiments/recommend/peer_rectools.py"
# Places of the lists that a peer gives; a target that is not among them is a miss at every cut-off.
PLACES = 20


def results(config: Any, name: str, peer: str, floor: Any) -> Iterator[Result]:
    """Yield the rows of a peer on one set: measured ones where its environment is named, else the command for them."""
    measure, one = load_script("experiments/recommend/measure.py"), config.sets[name]
    python = os.environ.get(PYTHON)
    if python is None:
        command = (
            f"{PYTHON}=/path/to/bin/python python experiments/recommend/measure.py "
            f"experiments/recommend/config.yaml only='[{name}]' models='[]'"
        )
        for metric in one.metrics:
            yield Result(dataset=name, split=one.split, model=peer, metric=metric, command=command)
        return
    runs = [_run(measure, config, name, peer, seed, python) for seed in range(1, config.seeds + 1)]
    yield from measure.results(one, name, peer, runs, floor)


def _run(measure: Any, config: Any, name: str, peer: str, seed: int, python: str) -> Any:
    one = config.sets[name]
    data, options = measure.data_of(one.recipe), {**one.peers[peer], "seed": seed, "threads": config.threads}
    key = sha256(json.dumps([options | {"threads": 1}, data.fingerprint]).encode()).hexdigest()[:16]
    kept = measure.store() / f"{name.replace('/', '_')}-{peer}-{seed}-{key}"
    if not kept.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "split.npz", Path(folder) / "lists.npz"
            write_split(source, data)
            command = [python, str(project_root() / SCRIPT), str(source), str(target), json.dumps(options)]
            if code := subprocess.run(command, check=False).returncode:  # noqa: S603
                raise ModelError(f"{name} {peer} seed {seed}: the peer ended with code {code}; its message is above")
            with np.load(target) as found:
                _keep(measure, kept, data, found["lists"], json.loads(str(found["facts"])))
    with np.load(kept / "ranking.npz") as arrays:
        return measure.Run(Ranking(arrays["ranks"], {}, arrays["lists"]), json.loads((kept / "facts.json").read_text()))


def write_split(path: Path, data: SplitInteractions) -> None:
    """Write what a peer needs: sequences to learn from, histories and targets of validation, histories of test."""
    if data.final_train is not data.split.train:
        raise ModelError("a peer is measured on sets whose tested model learns from the training part alone")
    parts = {
        "train": data.split.train.histories(),
        "validation": data.split.validation.histories,
        "test": data.split.test.histories,
    }
    arrays = {f"{name}_{field}": getattr(part, field) for name, part in parts.items() for field in ("items", "offsets")}
    np.savez_compressed(
        path,
        validation_targets=data.split.validation.targets,
        exclude_history=np.array(data.exclude_history),
        **arrays,
    )


def ranking_of(lists: np.ndarray, targets: np.ndarray, n_items: int) -> Ranking:
    """Return where targets stand in lists of shape (users, places), 0 for no item; last where they do not."""
    hit = lists == targets[:, None]
    ranks = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, n_items)
    coverage = {k: len(np.setdiff1d(lists[:, :k], [0])) / n_items for k in (5, 10, PLACES)}
    return Ranking(ranks.astype(np.int64), coverage, lists)


def _keep(measure: Any, kept: Path, data: SplitInteractions, lists: np.ndarray, facts: dict[str, Any]) -> None:
    ranking = ranking_of(lists, data.split.test.targets, data.final_train.n_items)
    described = ranking.figures() | measure.list_figures(
        lists, data.split.test.targets, measure.ItemFacts.of(data.final_train), tuple(ranking.coverage)
    )
    said = {"commit": provenance()["commit"], "machine": provenance()["machine"], "chosen": {}}
    with atomic_folder(kept) as aside:
        np.savez_compressed(aside / "ranking.npz", ranks=ranking.ranks, lists=lists)
        write_json(aside / "facts.json", facts | said | {metric: described[metric] for metric in measure.LISTS})
