"""Train and evaluate a recommender.

Launch: python training/recommend.py configs/recommend.yaml
"""

import hashlib
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from aftersales.core.config import Config, load
from aftersales.core.errors import ConfigError, ModelError
from aftersales.core.files import atomic_folder, write_json, write_text
from aftersales.core.paths import outputs
from aftersales.corpora.histories import Histories, Holdout, Scorer
from aftersales.corpora.interaction_tables import Columns, read_interactions
from aftersales.corpora.interactions import Interactions, Split, leave_one_out
from aftersales.corpora.public.recommendation import load_public_interactions
from aftersales.corpora.synthetic_interactions import generate
from aftersales.evaluation.classification import Figure
from aftersales.evaluation.intervals import bootstrap_interval
from aftersales.evaluation.rank_metrics import METRICS
from aftersales.evaluation.ranking import Ranking, evaluate_ranking
from aftersales.evaluation.ranking_report import RankingReport
from aftersales.recommenders import Recommender as AnyRecommender
from aftersales.recommenders import create
from aftersales.recommenders.base import MAX_HISTORY, Judge
from aftersales.runtime.events import EVENT_KINDS, EventKind, ages_in_days
from aftersales.runtime.manifest import seal
from aftersales.runtime.recommender import Recommender
from aftersales.tracking.outcome import Outcome
from aftersales.tracking.runs import Logged, log_run, run_name

TASK = "recommendation"
FLOOR = "popularity"
PARITY_USERS = 256
USERS_TO_CHOOSE_BY = 10_000
SYNTHETIC = "synthetic"
AGE_DIGITS = 4  # of a day: nine seconds
PYFUNC = Path(sys.modules[log_run.__module__].__file__ or "").with_name("pyfunc_recommender.py")
REQUIREMENTS = ["aftersales", "onnxruntime", "numpy", "pandas"]


class Data(Config):
    """Where the interactions come from.

    Attributes:
        source: ``synthetic``, or the path of a CSV, TSV, JSON lines or Parquet file of events.
        public: a public set with one target a user, with its published split, instead of ``source``.
        items: path of the catalogue that belongs to ``source``, if there is one.
        user_column, item_column, time_column, kind_column: names in ``source``; without ``kind_column`` every
            event is a purchase.
        kind_map: event kind as written in ``source`` -> ours.
        seed, users: of the synthetic interactions.
        history: event kinds that models look at; one item of the history for each.
        target: the event kind to be predicted.
    """

    source: str = SYNTHETIC
    public: str | None = None
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

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.public and self.source != SYNTHETIC:
            raise ValueError("give either data.source or data.public")
        return self


class Model(Config):
    """Which recommender, with the options of its own configuration."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class RecommendConfig(Config):
    """Everything a run depends on.

    Attributes:
        data: what to learn from and to be judged on.
        model: which recommender.
        exclude_history: leave the items of the history out of the list; None: as published for a public set, else no.
        metric: the headline.
        seed: of the model, where it has one.
        threads: of torch and of the models' libraries.
    """

    recipe: str
    data: Data = Data()
    model: Model
    exclude_history: bool | None = None
    metric: str = Field(default="ndcg@10", pattern=rf"^({'|'.join(METRICS)})@(5|10|20)$")
    seed: int = 1
    threads: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Loaded:
    """What is learned from, what is predicted, and how it is judged.

    Attributes:
        split: the split; the model is chosen on what ``split.train`` teaches.
        final_train: what the model that is tested learns from.
        candidates: items that are ranked, shape (n_items,).
        exclude_history: whether items of the history are left out of the list.
        fingerprint: SHA-256 of the data.
    """

    split: Split
    final_train: Interactions
    candidates: NDArray[np.bool_]
    exclude_history: bool
    fingerprint: str


def main(config: RecommendConfig) -> Outcome:
    """Fit on the past, judge on what users bought next, write the model folder and log the run."""
    torch.set_num_threads(config.threads)
    begun = time.monotonic()
    data = read(config)
    train = data.final_train
    print(f"{train.n_users:,} users, {train.n_items:,} items, {len(train.events):,} events to learn from")

    work = outputs() / "work" / work_name(config, data)
    learned = learn(config, data, work)
    model = learned.model

    started = time.monotonic()
    test = ranked(model.score, data.split.test, data)
    seconds = time.monotonic() - started
    print(f"ranked {len(test.ranks):,} users x {train.n_items:,} items in {seconds:.1f} s")
    below = ranked(create(FLOOR).fit(train).score, data.split.test, data)
    report = RankingReport.of(test, below, data.split.test, train)
    found = Found(data, learned, test, below, report)

    folder = outputs() / "models" / TASK
    with atomic_folder(folder) as aside:
        model.export(aside)
        write_text(aside / "README.md", card(config, found))
        seal(aside, "recommender", TASK)
        histories = data.split.test.histories
        check_export(model.score(histories.select(0, PARITY_USERS)), aside, histories)
    seconds = time.monotonic() - begun
    with tempfile.TemporaryDirectory() as scratch:
        write_evidence(Path(scratch), config, found)
        run_id = log_run(describe(config, found, folder, Path(scratch), seconds))
    shutil.rmtree(work, ignore_errors=True)
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


@dataclass(frozen=True)
class Learned:
    """What training and validation give.

    Attributes:
        model: to be tested.
        validation: the validation targets, ranked by what ``split.train`` teaches.
        chosen: options that were chosen by the validation figure.
        curve: validation figures on the way, as (epoch, figure).
        seconds: for the fit of ``model``.
    """

    model: AnyRecommender[Any]
    validation: Ranking
    chosen: dict[str, Any]
    curve: list[tuple[int, float]]
    seconds: float


def learn(config: RecommendConfig, data: Loaded, work: Path) -> Learned:
    """Fit and choose on ``split.train``, then fit what is chosen on all that the tested model learns from."""
    options = with_run_settings(config)
    started = time.monotonic()
    model = create(config.model.name, options).fit(data.split.train, judge_of(config, data), work / "chosen")
    chosen, curve, seconds = model.chosen, model.curve, time.monotonic() - started
    validation = ranked(model.score, data.split.validation, data)
    if data.final_train is not data.split.train:
        started = time.monotonic()
        model = create(config.model.name, options | chosen).fit(data.final_train, work=work / "final")
        seconds = time.monotonic() - started
    return Learned(model, validation, chosen, curve, seconds)


def work_name(config: RecommendConfig, data: Loaded) -> str:
    """Return a name for the checkpoints of exactly this model and data."""
    said = f"{config.model}{config.data}{config.exclude_history}{config.metric}{config.seed}{data.fingerprint}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def judge_of(config: RecommendConfig, data: Loaded) -> Judge:
    """Return what a model chooses by while it is fitted: the headline metric on users of the validation part."""
    holdout = data.split.validation.thinned(USERS_TO_CHOOSE_BY)
    return lambda score: float(ranked(score, holdout, data).values(config.metric).mean())


def ranked(score: Scorer, holdout: Holdout, data: Loaded) -> Ranking:
    """Rank the targets of one part of the data."""
    return evaluate_ranking(score, holdout, data.candidates, data.exclude_history)


def check_export(scores: NDArray[np.float32], folder: Path, histories: Histories) -> None:
    """Compare the scores of the first users with those of the exported model.

    Raises:
        ModelError: they differ by more than a thousandth of their spread.
    """
    inputs = histories.select(0, len(scores)).inputs(MAX_HISTORY)
    difference = float(np.abs(Recommender.load(folder).scores(inputs) - scores).max())
    if difference > 1e-3 * float(scores.std()):
        raise ModelError(
            f"the exported recommender gives other scores than the trained one (by up to {difference:.3g}); "
            "the model is not written"
        )


@dataclass(frozen=True)
class Found:
    """What a run found, for its card, its evidence and the experiment store."""

    data: Loaded
    learned: Learned
    test: Ranking
    floor: Ranking
    report: RankingReport


def shown(ranking: Ranking, metric: str) -> str:
    """Return a figure with its interval over users."""
    values = ranking.values(metric)
    return str(Figure(float(values.mean()), *bootstrap_interval(values)))


def read(config: RecommendConfig) -> Loaded:
    """Generate the synthetic interactions, or read the user's own or a public set.

    Raises:
        ConfigError: the public set is unknown or has several targets a user.
        DataError: a file is wrong, or no user has enough events.
    """
    if config.data.public:
        return read_public(config.data.public, config.exclude_history)
    interactions = read_own(config.data)
    split = leave_one_out(interactions.only(config.data.history), config.data.target)
    candidates = candidates_of(interactions, split)
    return Loaded(split, split.train, candidates, bool(config.exclude_history), interactions.fingerprint)


def read_public(name: str, exclude_history: bool | None) -> Loaded:
    """Read a public set with its published split."""
    found = load_public_interactions(name)
    if found.split.test.offsets is not None:
        raise ConfigError(
            f"data.public: {name} has several targets a user, which the evidence of a run cannot hold; rank it with "
            "aftersales.evaluation.ranking.evaluate_ranking"
        )
    every = np.ones(found.interactions.n_items, dtype=bool)
    exclude = found.exclude_history if exclude_history is None else exclude_history
    return Loaded(found.split, found.published_train, every, exclude, found.fingerprint)


def read_own(data: Data) -> Interactions:
    """Generate the synthetic interactions or read the user's own."""
    if data.source == SYNTHETIC:
        return generate(data.seed, data.users)
    columns = Columns(
        data.user_column, data.item_column, data.time_column, data.kind_column, kinds=data.kind_map or None
    )
    return read_interactions(Path(data.source).expanduser(), data.items, columns)


def with_run_settings(config: RecommendConfig) -> dict[str, Any]:
    """Return the model's options with the run's seed and target where it has such options and none are given."""
    name, options = config.model.name, config.model.options
    settings = {"seed": config.seed, "targets": [config.data.target]}
    taken = create(name, options).config.model_fields
    return {key: value for key, value in settings.items() if key in taken} | options


def candidates_of(interactions: Interactions, split: Split) -> NDArray[np.bool_]:
    """Return the items to rank: products alone where every target is one, so that services do not fill the list."""
    products = interactions.is_product
    targets = np.concatenate([split.validation.targets, split.test.targets])
    return products if products[targets - 1].all() else np.ones(len(products), dtype=bool)


def origin_of(data: Data) -> str:
    """Say where the rows come from."""
    if data.public:
        return f"the public set `{data.public}`"
    if data.source == SYNTHETIC:
        return (
            f"the synthetic interactions of `data/interactions`, seed {data.seed}: the figures say nothing about real "
            "customers"
        )
    return f"`{Path(data.source).name}`"


def card(config: RecommendConfig, found: Found) -> str:
    """Return the model card."""
    data, name = found.data, config.model.name
    train = data.final_train
    repeats = "left out of the list" if data.exclude_history else "may be recommended again"
    cold = "have scores of their own" if create(name, config.model.options).cold_items else "come last"
    return "\n".join(
        [
            f"# Recommender: {name}",
            "",
            f"Trained on {origin_of(config.data)}: {len(train.events):,} events, {train.n_users:,} users, "
            f"{train.n_items:,} items. Data SHA-256 `{data.fingerprint[:12]}`, seed {config.seed}.",
            "",
            f"Evaluated on what came next for {len(found.test.ranks):,} users (full ranking; items of the history "
            f"{repeats}).",
            "",
            *found.report.markdown(config.metric, name, FLOOR),
            "",
            "`model.onnx`: `history` (item indices from 1), `kinds` (1-based index into "
            f"{', '.join(EVENT_KINDS)}) and `ages` (days before the request, 0 where not known), all of shape (batch, "
            "length), right-aligned after zeros, to `scores` (batch, items) in the order of `items.json`. An empty "
            f"history is answered with popularity; items without events in training {cold}.",
            "",
        ]
    )


def write_evidence(folder: Path, config: RecommendConfig, found: Found) -> None:
    """Write evaluation.json and predictions.jsonl, which the gate and reviewers read."""
    data = found.data
    ids = np.array(data.final_train.items["item_id"])
    evaluation = {
        "kind": "recommender",
        "metric": config.metric,
        "rows": len(found.test.ranks),
        "figures": found.report.figures,
        "intervals": {metric: (one.low, one.high) for metric, (one, _) in found.report.intervals.items()},
        "floor": found.report.floor,
        "apart": found.report.apart,
        "validation": found.learned.validation.figures(),
        "chosen": found.learned.chosen,
        "validation_curve": found.learned.curve,
        "exclude_history": data.exclude_history,
        "candidates": ids[data.candidates].tolist(),
    }
    write_json(folder / "evaluation.json", evaluation)
    lines = [
        {
            **asked(data.split.test, row, ids),
            "rank": int(found.test.ranks[row]),
            "floor_rank": int(found.floor.ranks[row]),
        }
        for row in range(len(found.test.ranks))
    ]
    write_text(folder / "predictions.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def asked(holdout: Holdout, row: int, ids: NDArray[np.str_]) -> dict[str, Any]:
    """Return what is asked of a model for one user, and the right answer."""
    events = holdout.histories.select(row, row + 1)
    days = ages_in_days(events.now[0] - events.times).astype(np.float64).round(AGE_DIGITS)
    return {
        "user": str(events.users[0]),
        "history": ids[events.items - 1].tolist(),
        "kinds": [EVENT_KINDS[kind - 1] for kind in events.kinds],
        "days_ago": days.tolist() if events.timed else [None] * len(days),
        "target": str(ids[holdout.targets[row] - 1]),
    }


def describe(config: RecommendConfig, found: Found, folder: Path, evidence: Path, seconds: float) -> Logged:
    """Gather what the experiment store shows of this run."""
    figure, over_floor = found.report.intervals[config.metric]
    metrics = {name.replace("@", "_at_"): value for name, value in found.report.figures.items()}
    headline = config.metric.replace("@", "_at_")
    metrics |= {
        f"{headline}_low": figure.low,
        f"{headline}_high": figure.high,
        f"{headline}_floor": found.report.floor[config.metric],
        f"{headline}_over_floor": over_floor.value,
        "fit_seconds": found.learned.seconds,
        "train_seconds": seconds,
        "model_mb": sum(path.stat().st_size for path in folder.iterdir()) / 1e6,
    }
    fingerprint = found.data.fingerprint
    history = [item.item_id for item in Recommender.load(folder).items[:2]]
    example = pd.DataFrame({"history": ["|".join(history)]})
    return Logged(
        experiment=TASK,
        name=run_name(config.model.name, *config.model.options.values(), f"seed{config.seed}"),
        params={
            "model": config.model.name,
            **config.model.options,
            **found.learned.chosen,
            "seed": config.seed,
            "data": fingerprint[:12],
        },
        metrics=metrics,
        tags={
            "model": config.model.name,
            "data_version": fingerprint[:12],
            "metric": headline,
            "config": json.dumps(config.model_dump(mode="json"), ensure_ascii=False),
        },
        dataset=found.data.final_train.events,
        dataset_name=config.data.public or config.data.source,
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
