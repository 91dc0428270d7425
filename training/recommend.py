"""Train and evaluate a recommender.

Launch: python training/recommend.py configs/recommend.yaml
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field

from aftersales.core.config import Config, load
from aftersales.core.errors import ModelError
from aftersales.core.files import atomic_folder, write_json, write_text
from aftersales.core.paths import outputs
from aftersales.corpora.interaction_tables import Columns, read_interactions
from aftersales.corpora.interactions import EventKind, Histories, Interactions, Split, leave_one_out
from aftersales.corpora.synthetic_interactions import generate
from aftersales.evaluation.intervals import bootstrap_interval
from aftersales.evaluation.ranking import Ranking, evaluate_ranking
from aftersales.recommenders import create
from aftersales.recommenders.base import MAX_HISTORY
from aftersales.runtime.manifest import seal
from aftersales.runtime.recommender import Recommender
from aftersales.tracking.outcome import Outcome
from aftersales.tracking.runs import Logged, log_run, run_name

TASK = "recommendation"
FLOOR = "popularity"
PARITY_USERS = 256
SYNTHETIC = "synthetic"
PYFUNC = Path(sys.modules[log_run.__module__].__file__ or "").with_name("pyfunc_recommender.py")
REQUIREMENTS = ["aftersales", "onnxruntime", "numpy", "pandas"]


class Data(Config):
    """Where the interactions come from.

    Attributes:
        source: ``synthetic``, or the path of a CSV, TSV, JSON lines or Parquet file of events.
        items: path of the catalogue that belongs to ``source``, if there is one.
        user_column, item_column, time_column, kind_column: names in ``source``; without ``kind_column`` every
            event is a purchase.
        kind_map: event kind as written in ``source`` -> ours.
        seed, users: of the synthetic interactions.
        history: event kinds that models look at; one item of the history for each.
        target: the event kind to be predicted.
    """

    source: str = SYNTHETIC
    items: Path | None = None
    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"
    kind_column: str | None = "kind"
    kind_map: dict[str, str] = Field(default_factory=dict)
    seed: int = Field(default=1, ge=0)
    users: int = Field(default=2000, ge=1)
    history: tuple[EventKind, ...] = ("buy", "service")
    target: EventKind = "buy"


class Model(Config):
    """Which recommender, with the options of its own configuration."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class RecommendConfig(Config):
    """Everything a run depends on."""

    recipe: str
    data: Data = Data()
    model: Model
    exclude_history: bool = False
    metric: str = Field(default="ndcg@10", pattern=r"^(hr|ndcg|mrr)@(5|10|20)$")
    seed: int = 1
    threads: int = Field(default=1, ge=1)


def main(config: RecommendConfig) -> Outcome:
    """Fit on the past, judge on each user's last purchase, write the model folder and log the run."""
    torch.set_num_threads(config.threads)
    begun = time.monotonic()
    interactions = read(config.data)
    print(f"{interactions.n_users:,} users, {interactions.n_items:,} items, {len(interactions.events):,} events")
    split = leave_one_out(interactions.only(config.data.history), config.data.target)

    options = with_seed(config.model.name, config.model.options, config.seed)
    floor, model = create(FLOOR).fit(split.train), create(config.model.name, options)
    started = time.monotonic()
    model.fit(split.train)
    fit_seconds = time.monotonic() - started

    candidates = candidates_of(interactions, split)
    validation = evaluate_ranking(model.score, split.validation, candidates, config.exclude_history)
    test = evaluate_ranking(model.score, split.test, candidates, config.exclude_history)
    below = evaluate_ranking(floor.score, split.test, candidates, config.exclude_history)
    found = Found(interactions, split, candidates, validation, test, below, fit_seconds)

    folder = outputs() / "models" / TASK
    with atomic_folder(folder) as aside:
        model.export(aside)
        write_text(aside / "README.md", card(config, found))
        seal(aside, "recommender", TASK)
        check_export(model.score(split.test.histories.select(0, PARITY_USERS)), aside, split.test.histories)
    seconds = time.monotonic() - begun
    with tempfile.TemporaryDirectory() as scratch:
        write_evidence(Path(scratch), config, found)
        run_id = log_run(describe(config, found, folder, Path(scratch), seconds))
    outcome = Outcome(
        task=TASK,
        metric=config.metric,
        figure=shown(test, config.metric),
        floor=shown(below, config.metric),
        seconds=seconds,
        folder=folder,
        run_id=run_id,
    )
    print(outcome.report())
    return outcome


def check_export(scores: NDArray[np.float32], folder: Path, histories: Histories) -> None:
    """Compare the scores of the first users with those of the exported model.

    Raises:
        ModelError: they differ by more than a thousandth of their spread.
    """
    rows = histories.select(0, len(scores)).padded()[:, -MAX_HISTORY:]
    difference = float(np.abs(Recommender.load(folder).scores(rows) - scores).max())
    if difference > 1e-3 * float(scores.std()):
        raise ModelError(
            f"the exported recommender gives other scores than the trained one (by up to {difference:.3g}); "
            "the model is not written"
        )


@dataclass(frozen=True)
class Found:
    """What a run found, for its card, its evidence and the experiment store."""

    interactions: Interactions
    split: Split
    candidates: NDArray[np.bool_]
    validation: Ranking
    test: Ranking
    floor: Ranking
    fit_seconds: float


def shown(ranking: Ranking, metric: str) -> str:
    """Return a figure with its interval over users."""
    values = ranking.values(metric)
    low, high = bootstrap_interval(values)
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def read(data: Data) -> Interactions:
    """Generate the synthetic interactions or read the user's own."""
    if data.source == SYNTHETIC:
        return generate(data.seed, data.users)
    columns = Columns(
        data.user_column, data.item_column, data.time_column, data.kind_column, kinds=data.kind_map or None
    )
    return read_interactions(Path(data.source).expanduser(), data.items, columns)


def with_seed(name: str, options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the options with the run's seed where the model has one and none is given."""
    takes_seed = "seed" in create(name, options).config.model_fields
    return {"seed": seed} | options if takes_seed else options


def candidates_of(interactions: Interactions, split: Split) -> NDArray[np.bool_]:
    """Return the items to rank: products alone where every target is one, so that services do not fill the list."""
    products = interactions.is_product
    targets = np.concatenate([split.validation.targets, split.test.targets])
    return products if products[targets - 1].all() else np.ones(len(products), dtype=bool)


def intervals_of(ranking: Ranking) -> dict[str, tuple[float, float]]:
    """Return the bootstrap interval of every metric that is a mean over users."""
    metrics = [metric for metric in ranking.figures() if not metric.startswith("coverage")]
    return {metric: bootstrap_interval(ranking.values(metric)) for metric in metrics}


def card(config: RecommendConfig, found: Found) -> str:
    """Return the model card."""
    interactions, split = found.interactions, found.split
    intervals, floor = intervals_of(found.test), found.floor.figures()
    rows = []
    for metric, value in found.test.figures().items():
        bounds = f"{intervals[metric][0]:.4f} – {intervals[metric][1]:.4f}" if metric in intervals else ""
        rows.append(f"| {metric} | {value:.4f} | {bounds} | {floor[metric]:.4f} |")
    origin = (
        f"the synthetic interactions of `data/interactions`, seed {config.data.seed}: the figures say nothing "
        "about real customers"
        if config.data.source == SYNTHETIC
        else f"`{Path(config.data.source).name}`"
    )
    repeats = "left out of the list" if config.exclude_history else "may be recommended again"
    return "\n".join(
        [
            f"# Recommender: {config.model.name}",
            "",
            f"Trained on {origin}: {len(split.train.events):,} events ({', '.join(config.data.history)}), "
            f"{interactions.n_users:,} users, {interactions.n_items:,} items. Data SHA-256 "
            f"`{interactions.fingerprint[:12]}`, seed {config.seed}.",
            "",
            f"Evaluated on the last `{config.data.target}` of {len(split.test.targets):,} users (leave-one-out by "
            f"time, full ranking; items of the history {repeats}).",
            "",
            f"| metric | {config.model.name} | 95 % interval over users | floor: {FLOOR} |",
            "|---|---|---|---|",
            *rows,
            "",
            "`model.onnx`: `history` (batch, length) of item indices from 1, right-aligned after zeros, to `scores` "
            "(batch, items) in the order of `items.json`. An empty history is answered with popularity.",
            "",
        ]
    )


def write_evidence(folder: Path, config: RecommendConfig, found: Found) -> None:
    """Write evaluation.json and predictions.jsonl, which the gate and reviewers read."""
    ids = np.array(found.interactions.items["item_id"])
    evaluation = {
        "kind": "recommender",
        "metric": config.metric,
        "rows": len(found.test.ranks),
        "figures": found.test.figures(),
        "intervals": intervals_of(found.test),
        "floor": found.floor.figures(),
        "validation": found.validation.figures(),
        "exclude_history": config.exclude_history,
        "candidates": ids[found.candidates].tolist(),
    }
    write_json(folder / "evaluation.json", evaluation)
    holdout, lines = found.split.test, []
    for row, user in enumerate(holdout.histories.users):
        history = holdout.histories.select(row, row + 1).items
        lines.append(
            {
                "user": str(user),
                "history": ids[history - 1].tolist(),
                "target": str(ids[holdout.targets[row] - 1]),
                "rank": int(found.test.ranks[row]),
                "floor_rank": int(found.floor.ranks[row]),
            }
        )
    write_text(folder / "predictions.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def describe(config: RecommendConfig, found: Found, folder: Path, evidence: Path, seconds: float) -> Logged:
    """Gather what the experiment store shows of this run."""
    values, below = found.test.values(config.metric), found.floor.values(config.metric)
    low, high = bootstrap_interval(values)
    metrics = {name.replace("@", "_at_"): value for name, value in found.test.figures().items()}
    headline = config.metric.replace("@", "_at_")
    metrics |= {
        f"{headline}_low": low,
        f"{headline}_high": high,
        f"{headline}_floor": float(below.mean()),
        f"{headline}_over_floor": float((values - below).mean()),
        "fit_seconds": found.fit_seconds,
        "train_seconds": seconds,
        "model_mb": sum(path.stat().st_size for path in folder.iterdir()) / 1e6,
    }
    fingerprint = found.interactions.fingerprint
    history = [item.item_id for item in Recommender.load(folder).items[:2]]
    example = pd.DataFrame({"history": ["|".join(history)]})
    return Logged(
        experiment=TASK,
        name=run_name(config.model.name, *config.model.options.values(), f"seed{config.seed}"),
        params={"model": config.model.name, **config.model.options, "seed": config.seed, "data": fingerprint[:12]},
        metrics=metrics,
        tags={
            "model": config.model.name,
            "data_version": fingerprint[:12],
            "metric": headline,
            "config": json.dumps(config.model_dump(mode="json"), ensure_ascii=False),
        },
        dataset=found.split.train.events,
        dataset_name=config.data.source,
        dataset_digest=fingerprint,
        folder=folder,
        evidence=evidence,
        pyfunc=PYFUNC,
        example=example,
        prediction=pd.DataFrame({"items": ["|".join(history)], "reason": ["history"]}),
        requirements=REQUIREMENTS,
    )


if __name__ == "__main__":
    main(load(RecommendConfig, Path(sys.argv[1]), sys.argv[2:]))
