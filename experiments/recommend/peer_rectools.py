"""SASRec as RecTools trains it, on a split that ``peer.py`` wrote. It runs in an environment of its own.

python experiments/recommend/peer_rectools.py SPLIT.npz LISTS.npz '{"seed": 1, "threads": 1}'
"""

import json
import resource
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

PLACES = 20
OPTIONS: dict[str, Any] = {
    "n_factors": 128,
    "n_blocks": 2,
    "n_heads": 2,
    "dropout_rate": 0.2,
    "session_max_len": 50,
    "lr": 1e-3,
    "batch_size": 128,
    "loss": "softmax",
    # Not of the model: passes at most, passes between two validation figures, and how many without a better one end it.
    "epochs": 60,
    "judge_every": 2,
    "patience": 4,
}


def main(source: Path, target: Path, wanted: dict[str, Any]) -> None:
    """Train, keep what is best on validation (nDCG@10), and write the lists of the test users."""
    options = OPTIONS | wanted
    seed, threads = options.pop("seed"), options.pop("threads")
    epochs, every, patience = (options.pop(key) for key in ("epochs", "judge_every", "patience"))
    torch.set_num_threads(threads)
    seed_everything(seed, verbose=False)
    split = np.load(source)
    train, exclude = dataset(split, "train"), bool(split["exclude_history"])
    model = SASRecModel(**options, epochs=every, get_trainer_func=trainer, deterministic=False)
    best, best_at, curve, lists = -1.0, 0, [], np.zeros(0)
    started = time.monotonic()
    for done in range(every, epochs + 1, every):
        model.fit_partial(train, min_epochs=every, max_epochs=every)
        figure = ndcg(recommended(model, split, "validation", exclude), split["validation_targets"])
        curve.append((done, figure))
        print(f"epoch {done}: {figure:.4f}", flush=True)
        if figure > best:
            best, best_at, lists = figure, done, recommended(model, split, "test", exclude)
        if done - best_at >= patience * every:
            break
    facts = {
        "seconds": round(time.monotonic() - started, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "curve": curve,
    }
    np.savez_compressed(target, lists=lists, facts=json.dumps(facts))


def trainer() -> Trainer:
    """Return a trainer that prints and keeps nothing."""
    return Trainer(
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def dataset(split: Mapping[str, np.ndarray], part: str) -> Dataset:
    """Return the sequences of a part; the place in a sequence is its time, in days."""
    items, offsets = split[f"{part}_items"], split[f"{part}_offsets"]
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    places = np.arange(len(items)) - offsets[users]
    table = pd.DataFrame(
        {
            Columns.User: users,
            Columns.Item: items,
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2000-01-01") + pd.to_timedelta(places, unit="D"),
        }
    )
    return Dataset.construct(table)


def recommended(model: SASRecModel, split: Mapping[str, np.ndarray], part: str, exclude: bool) -> np.ndarray:
    """Return the lists of a part's users, shape (users, PLACES), 0 where a list ends earlier."""
    users = len(split[f"{part}_offsets"]) - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.recommend(
            np.arange(users), dataset(split, part), k=PLACES, filter_viewed=exclude, on_unsupported_targets="ignore"
        )
    lists = np.zeros((users, PLACES), dtype=np.int64)
    lists[found[Columns.User], found[Columns.Rank] - 1] = found[Columns.Item]
    return lists


def ndcg(lists: np.ndarray, targets: np.ndarray) -> float:
    """Return nDCG@10 with one target a user."""
    hit = lists[:, :10] == targets[:, None]
    return float(np.where(hit.any(axis=1), 1 / np.log2(hit.argmax(axis=1) + 2), 0.0).mean())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
