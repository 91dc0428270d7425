"""Train a recommender, measure it beside its floor, export it, log it. See configs/*.yaml for the launch lines."""

import hashlib
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import Field

from aftersales.core.config import Config, load
from aftersales.core.files import atomic_folder, write_text
from aftersales.core.paths import outputs
from aftersales.corpora.histories import Holdout, Scorer
from aftersales.corpora.load_interactions import InteractionsConfig, SplitInteractions, load_interactions
from aftersales.evaluation.card import recommender_card
from aftersales.evaluation.rank_metrics import METRICS
from aftersales.evaluation.ranking import CUTOFFS, Ranking, evaluate_ranking
from aftersales.evaluation.ranking_evidence import write_ranking_evidence
from aftersales.evaluation.ranking_report import RankingReport, tracked_name
from aftersales.recommenders import RECOMMENDERS, ModelConfig, Recommender, create
from aftersales.recommenders.base import Judge
from aftersales.recommenders.export import check_export
from aftersales.runtime.manifest import seal
from aftersales.tracking.outcome import Outcome
from aftersales.tracking.runs import Logged, log_run, run_name

TASK = "recommendation"
FLOOR = "popularity"
PARITY_USERS = 256
USERS_TO_CHOOSE_BY = 10_000
PYFUNC = Path(sys.modules[log_run.__module__].__file__ or "").with_name("pyfunc_recommender.py")
REQUIREMENTS = ["aftersales", "onnxruntime", "numpy", "pandas"]


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
    data: InteractionsConfig = InteractionsConfig()
    model: ModelConfig
    exclude_history: bool | None = None
    metric: str = Field(default="ndcg@10", pattern=rf"^({'|'.join(METRICS)})@({'|'.join(map(str, CUTOFFS))})$")
    seed: int = Field(default=1, ge=0, lt=2**32)
    threads: int = Field(default=1, ge=1)


def main(config: RecommendConfig) -> Outcome:
    """Fit on the past, judge on what users bought next, write the model folder and log the run."""
    torch.set_num_threads(config.threads)
    begun = time.monotonic()
    data = load_interactions(config.data, config.exclude_history)
    train = data.final_train
    print(f"{train.n_users:,} users, {train.n_items:,} items, {len(train.events):,} events to learn from")

    work = outputs() / "work" / work_name(config, data)
    learned = learn(config, data, work)
    model = learned.model

    started = time.monotonic()
    test = ranked(model.score, data.split.test, data)
    seconds = time.monotonic() - started
    blind = without_times(config, model, data)
    print(f"ranked {len(test.ranks):,} users x {train.n_items:,} items in {seconds:.1f} s")
    below = ranked(create(FLOOR).fit(train).score, data.split.test, data)
    report = RankingReport.of(test, below, data.split.test, train)

    folder = outputs() / "models" / TASK
    with atomic_folder(folder) as aside:
        write_model(aside, config, data, model, report)
    seconds = time.monotonic() - begun
    with tempfile.TemporaryDirectory() as scratch:
        more = {
            "metric": config.metric,
            "validation": learned.validation.figures(),
            "chosen": learned.chosen,
            "validation_curve": learned.curve,
            "without_times": blind,
        }
        write_ranking_evidence(Path(scratch), data, report, test, below, more)
        run_id = log_run(describe(config, data, learned, report, folder, Path(scratch), seconds))
    shutil.rmtree(work, ignore_errors=True)
    outcome = Outcome(
        task=TASK,
        metric=config.metric,
        figure=str(test.figure(config.metric)),
        floor=str(below.figure(config.metric)),
        seconds=seconds,
        folder=folder,
        run_id=run_id,
    )
    print(outcome.report())
    if blind:
        print(f"{config.metric} without times {blind[config.metric]:.4f}: requests may come earlier than the purchase")
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

    model: Recommender[Any]
    validation: Ranking
    chosen: dict[str, Any]
    curve: list[tuple[int, float]]
    seconds: float


def learn(config: RecommendConfig, data: SplitInteractions, work: Path) -> Learned:
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


def work_name(config: RecommendConfig, data: SplitInteractions) -> str:
    """Return a name for the checkpoints of exactly this model and data."""
    said = f"{config.model}{config.data}{config.exclude_history}{config.metric}{config.seed}{data.fingerprint}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def judge_of(config: RecommendConfig, data: SplitInteractions) -> Judge:
    """Return what a model chooses by while it is fitted: the headline metric on users of the validation part."""
    holdout = data.split.validation.thinned(USERS_TO_CHOOSE_BY)
    return lambda score: float(ranked(score, holdout, data).values(config.metric).mean())


def ranked(score: Scorer, holdout: Holdout, data: SplitInteractions) -> Ranking:
    """Rank the targets of one part of the data."""
    return evaluate_ranking(score, holdout, data.candidates, data.exclude_history)


def without_times(config: RecommendConfig, model: Recommender[Any], data: SplitInteractions) -> dict[str, float] | None:
    """Return the test figures of a model that sees times when it is given none; None where it sees none anyway."""
    if not config.model.options.get("times"):
        return None
    return ranked(model.score, data.split.test.without_times(), data).figures()


def with_run_settings(config: RecommendConfig) -> dict[str, Any]:
    """Return the model's options with the run's seed and target where it has such options and none are given."""
    settings = {"seed": config.seed, "targets": [config.data.target]}
    taken = RECOMMENDERS[config.model.name].config_type.model_fields
    return {key: value for key, value in settings.items() if key in taken} | config.model.options


def write_model(
    folder: Path, config: RecommendConfig, data: SplitInteractions, model: Recommender[Any], report: RankingReport
) -> None:
    """Write the model folder, and compare its scores with those of the model for the first test users.

    Raises:
        ModelError: the exported model gives other scores.
    """
    model.export(folder)
    figures = report.markdown(config.metric, model.name, FLOOR)
    card = recommender_card(model.name, data, config.data.origin, config.seed, model.cold_items, figures)
    write_text(folder / "README.md", card)
    seal(folder, "recommender", TASK)
    histories = data.split.test.histories.select(0, PARITY_USERS)
    check_export(folder, histories, model.score(histories))


def describe(
    config: RecommendConfig,
    data: SplitInteractions,
    learned: Learned,
    report: RankingReport,
    folder: Path,
    evidence: Path,
    seconds: float,
) -> Logged:
    """Gather what the experiment store shows of this run."""
    metrics = report.tracked(config.metric) | {
        "fit_seconds": learned.seconds,
        "train_seconds": seconds,
        "model_mb": sum(path.stat().st_size for path in folder.iterdir()) / 1e6,
    }
    history = data.final_train.items["item_id"].tolist()[:2]
    example = pd.DataFrame({"history": ["|".join(history)]})
    return Logged(
        experiment=TASK,
        name=run_name(config.model.name, *config.model.options.values(), f"seed{config.seed}"),
        params={
            "model": config.model.name,
            **config.model.options,
            **learned.chosen,
            "seed": config.seed,
            "data": data.fingerprint[:12],
        },
        metrics=metrics,
        tags={
            "model": config.model.name,
            "data_version": data.fingerprint[:12],
            "metric": tracked_name(config.metric),
            "config": json.dumps(config.model_dump(mode="json"), ensure_ascii=False),
        },
        dataset=data.final_train.events,
        dataset_name=config.data.public or config.data.source,
        dataset_digest=data.fingerprint,
        folder=folder,
        evidence=evidence,
        pyfunc=PYFUNC,
        example=example,
        prediction=pd.DataFrame({"items": ["|".join(history)], "reason": ["history"]}),
        requirements=REQUIREMENTS,
    )


if __name__ == "__main__":
    main(load(RecommendConfig, Path(sys.argv[1]), sys.argv[2:]))
