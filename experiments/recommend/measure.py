"""How good are the recommenders on public sets? Every target ranked among all items, beside popularity, with seeds.

AFTERSALES_PUBLIC_DATA=/path/to/sets python experiments/recommend/measure.py experiments/recommend/config.yaml

The results stand beside the config. Every fit runs in a process of its own, so that its memory is its own, and is kept
under outputs/experiments/recommend: a stopped measurement goes on where it was, and a changed recipe or data set is
measured anew.
"""

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from pydantic import Field

from aftersales.core.config import Config, load
from aftersales.core.errors import ConfigError, ModelError, nearest, told_errors
from aftersales.core.files import atomic_folder, write_json
from aftersales.core.paths import load_script, outputs, project_root
from aftersales.corpora.load_interactions import SplitInteractions, load_interactions
from aftersales.evaluation.list_metrics import ItemFacts, list_figures
from aftersales.evaluation.ranking import Ranking
from aftersales.evaluation.ranking_comparison import over_seeds
from aftersales.evaluation.results import Result, merge_results, write_table
from aftersales.recommenders import RECOMMENDERS, ModelConfig
from aftersales.tracking.provenance import provenance

RECOMMEND = load_script("training/recommend.py")
PEER = load_script("experiments/recommend/peer.py")
FLOOR = "popularity"
# Sessions have one target, so what is published as their precision is the share of hits.
OUR_NAMES = {"p@20": "hr@20"}
LISTS = ("coverage@10", "novelty@10", "diversity@10", "popularity_bias@10")


class MeasuredSet(Config):
    """One data set.

    Attributes:
        recipe: config of ``training/recommend.py`` that says the data, the metric to choose by and our model.
        split: as the table calls it.
        metrics: to be reported.
        percent: give them in percent.
        target: metric -> what was hoped for of the recipe's model.
        models: name in the table -> model, beside that of the recipe.
        peers: name in the table -> options of ``peer_rectools.py``.
    """

    recipe: Path
    split: str = "leave-one-out"
    metrics: tuple[str, ...] = ("hr@10", "ndcg@10")
    percent: bool = False
    target: dict[str, float] = {}
    models: dict[str, ModelConfig] = {}
    peers: dict[str, dict[str, Any]] = {}


class MeasureConfig(Config):
    """What to measure.

    Attributes:
        sets: data sets by name.
        only: sets to measure; all when left out.
        models: names of models to measure; all when left out.
        seeds: trainings of each model that has a seed.
        threads: of one training.
    """

    sets: dict[str, MeasuredSet]
    only: list[str] | None = None
    models: list[str] | None = None
    seeds: int = Field(default=3, ge=1)
    threads: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Run:
    """One fit.

    Attributes:
        ranking: of the test users.
        facts: ``seconds`` and ``peak_mb`` of the fit, ``commit``, the figures of ``LISTS``, and the validation
            ``curve`` as (epoch, figure).
    """

    ranking: Ranking
    facts: dict[str, Any]


def main(config: MeasureConfig, path: Path) -> None:
    """Measure, then write results.json, curves.json and the table of README.md beside the config at ``path``."""
    names = _known("only", config.only, config.sets)
    for name in names:
        one = config.sets[name]
        floor = run(config, path, name, FLOOR, 1)
        wanted = _known("models", config.models, models_of(one)) if config.models else list(models_of(one))
        for model in wanted:
            seeds = range(1, 1 + (config.seeds if has_seed(one, model) else 1))
            runs = [run(config, path, name, model, seed) for seed in seeds]
            found = list(results(one, name, model, runs, floor))
            print("\n".join(f"{row.dataset} {row.model} {row.metric}: {_figure(row)}" for row in found), flush=True)
            keep_curves(path.with_name("curves.json"), name, model, runs)
            report(config, merge_results(path.with_name("results.json"), found), path.with_name("README.md"))
        waiting = [row for peer in one.peers for row in PEER.results(config, name, peer, floor)]
        report(config, merge_results(path.with_name("results.json"), waiting), path.with_name("README.md"))


def _known(key: str, wanted: list[str] | None, there: dict[str, Any]) -> list[str]:
    for name in wanted or []:
        if name not in there:
            raise ConfigError(f"{key}: unknown {name!r}{nearest(name, list(there))}")
    return list(there) if wanted is None else wanted


def models_of(one: MeasuredSet) -> dict[str, ModelConfig]:
    """Return the models of a set by their names in the table: those beside, and that of the recipe."""
    ours = recipe_of(one, None, 1, 1).model
    return {**one.models, ours.name: ours}


def has_seed(one: MeasuredSet, model: str) -> bool:
    """Say whether another seed gives another model."""
    return "seed" in RECOMMENDERS[models_of(one)[model].name].config_type.model_fields


def recipe_of(one: MeasuredSet, model: str | None, seed: int, threads: int) -> Any:
    """Return the config of one training; of the recipe's own model when ``model`` is None."""
    config = load(RECOMMEND.RecommendConfig, project_root() / one.recipe)
    settings: dict[str, Any] = {"seed": seed, "threads": threads}
    if model is not None:
        settings["model"] = models_of(one)[model]
    return config.model_copy(update=settings)


@lru_cache(maxsize=1)
def data_of(recipe: Path) -> SplitInteractions:
    """Return the data of a recipe, loaded once for all its models."""
    config = load(RECOMMEND.RecommendConfig, project_root() / recipe)
    return load_interactions(config.data, config.exclude_history)


def run(config: MeasureConfig, path: Path, name: str, model: str, seed: int) -> Run:
    """Return one fit, from disk where the same recipe was fitted to the same data before.

    A change of the code is not noticed: remove the folder of ``store`` to measure it anew.
    """
    kept = kept_at(config, name, model, seed)
    if not kept.is_dir():
        command = [sys.executable, str(project_root() / "experiments/recommend/measure.py"), str(path.resolve())]
        command += [f"threads={config.threads}", "--fit", name, model, str(seed)]
        if code := subprocess.run(command, check=False).returncode:  # noqa: S603
            raise ModelError(f"{name} {model} seed {seed}: the fit ended with code {code}; its message stands above")
        print(f"{kept.name}: {json.loads((kept / 'facts.json').read_text())['seconds']:.0f} s", flush=True)
    with np.load(kept / "ranking.npz") as arrays:
        ranking = Ranking(arrays["ranks"], {}, arrays["lists"])
    return Run(ranking, json.loads((kept / "facts.json").read_text()))


def kept_at(config: MeasureConfig, name: str, model: str, seed: int) -> Path:
    """Return the folder in which a fit is kept."""
    one = config.sets[name]
    recipe, data = recipe_of(one, model, seed, config.threads), data_of(one.recipe)
    key = RECOMMEND.work_name(recipe.model_copy(update={"threads": 1}), data)
    return store() / f"{name.replace('/', '_')}-{model}-{seed}-{key}"


def fit(config: MeasureConfig, name: str, model: str, seed: int) -> None:
    """Fit one model in this process, rank the test users and keep what was found."""
    torch.set_num_threads(config.threads)
    one, kept, commit = config.sets[name], kept_at(config, name, model, seed), provenance()["commit"]
    recipe, data, work = recipe_of(one, model, seed, config.threads), data_of(one.recipe), kept.with_suffix(".work")
    went_on, started = work.is_dir(), time.monotonic()
    learned = RECOMMEND.learn(recipe, data, work)
    seconds = None if went_on else round(time.monotonic() - started, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ranking = RECOMMEND.ranked(learned.model.score, data.split.test, data)
    lists = ranking.figures() | list_figures(
        ranking.lists, data.split.test.targets, ItemFacts.of(data.final_train), tuple(ranking.coverage)
    )
    facts = {
        "seconds": seconds,
        "peak_mb": round(peak),
        "commit": commit,
        "machine": provenance()["machine"],
        "chosen": learned.chosen,
        "curve": learned.curve,
        **{metric: lists[metric] for metric in LISTS},
    }
    with atomic_folder(kept) as aside:
        np.savez_compressed(aside / "ranking.npz", ranks=ranking.ranks, lists=ranking.lists)
        write_json(aside / "facts.json", facts)
    shutil.rmtree(work, ignore_errors=True)


def results(one: MeasuredSet, name: str, model: str, runs: list[Run], floor: Run) -> Iterator[Result]:
    """Yield a row for every metric of one model on one set, and one for each figure of its lists."""
    data, scale = data_of(one.recipe), 100 if one.percent else 1
    ours = recipe_of(one, None, 1, 1).model.name
    names = {metric: OUR_NAMES.get(metric, metric) for metric in one.metrics}
    found = over_seeds(list(names.values()), [run.ranking for run in runs], [floor.ranking] * len(runs))
    times = [run.facts["seconds"] for run in runs if run.facts["seconds"] is not None]
    same = {
        "dataset": name,
        "split": one.split,
        "model": model,
        "seeds": len(runs),
        "n_test": len(floor.ranking.ranks),
        "data_sha256": data.fingerprint,
        "commit": " ".join(sorted({run.facts["commit"] for run in runs})),
        "machine": " ".join(sorted({run.facts["machine"] for run in runs})),
        "seconds": round(float(np.mean(times)), 1) if times else None,
        "peak_mb": max(run.facts["peak_mb"] for run in runs),
    }
    for metric, known_as in names.items():
        figure, over = found[known_as]
        yield Result(
            **same,
            metric=metric,
            value=round(scale * figure.value, 4),
            ci95=(round(scale * figure.low, 4), round(scale * figure.high, 4)),
            floor=round(scale * (figure.value - over.value), 4),
            over_floor=None if model == FLOOR else (round(scale * over.low, 4), round(scale * over.high, 4)),
            target=one.target.get(metric) if model == ours else None,
        )
    for metric in LISTS:
        yield Result(**same, metric=metric, value=round(float(np.mean([run.facts[metric] for run in runs])), 4))


def keep_curves(path: Path, name: str, model: str, runs: list[Run]) -> None:
    """Put the validation curves of one model on one set into the file at ``path``, and draw all beside it."""
    curves = json.loads(path.read_text()) if path.is_file() else {}
    if not any(run.facts["curve"] for run in runs):
        return
    curves.setdefault(name, {})[model] = [run.facts["curve"] for run in runs]
    write_json(path, curves)
    figure, axes = plt.subplots(1, len(curves), figsize=(4.5 * len(curves), 3.5), squeeze=False, layout="constrained")
    for axis, (title, models) in zip(axes[0], curves.items(), strict=True):
        for color, (label, seeds) in enumerate(models.items()):
            for number, curve in enumerate(seeds):
                axis.plot(*zip(*curve, strict=True), color=f"C{color}", label=None if number else label, linewidth=1)
        axis.set(title=title, xlabel="epoch", ylabel="validation")
        axis.legend()
    figure.savefig(path.with_suffix(".png"), dpi=80)
    plt.close(figure)


def store() -> Path:
    """Return the folder of everything this experiment keeps between calls."""
    return outputs() / "experiments" / "recommend"


def report(config: MeasureConfig, rows: list[Result], readme: Path) -> None:
    """Write the table of ``readme``: a line for each model, sets in the order of the config, the floor first."""
    places = {name: place for place, name in enumerate(config.sets)}
    first = {row.key[:3]: row for row in reversed(rows) if row.metric not in LISTS}
    cells = {row.key: row for row in rows}

    def order(row: Result) -> tuple[Any, ...]:
        return places.get(row.dataset, len(places)), row.model != FLOOR, row.value or 2, row.model

    def of(row: Result, number: int) -> str:
        metrics = config.sets[row.dataset].metrics if row.dataset in config.sets else ()
        return _cell(cells[(*row.key[:3], metrics[number])]) if row.value is not None and number < len(metrics) else ""

    def beside(metric: str, row: Result) -> str:
        known = cells.get((*row.key[:3], metric))
        return "" if known is None or known.value is None else f"{known.value:.3f}"

    write_table(
        readme,
        sorted(first.values(), key=order),
        {
            "set": lambda row: row.dataset,
            "model": lambda row: row.model,
            "HR@10, or P@20": lambda row: of(row, 0) if row.value is not None else f"not measured: `{row.command}`",
            "NDCG@10, or MRR@20": lambda row: of(row, 1),
            **{metric: partial(beside, metric) for metric in LISTS},
            "seeds": lambda row: row.seeds or "",
            "users": lambda row: row.n_test or "",
            "seconds": lambda row: "" if row.seconds is None else f"{row.seconds:,.0f}",
            "MB": lambda row: "" if row.peak_mb is None else f"{row.peak_mb:,.0f}",
        },
    )


def _figure(row: Result) -> str:
    if row.ci95 is None:
        return f"{row.value:.4f}"
    digits = 2 if row.ci95[1] > 1 else 4
    return f"{row.value:.{digits}f} [{row.ci95[0]:.{digits}f}, {row.ci95[1]:.{digits}f}]"


def _cell(row: Result) -> str:
    if row.target is None or row.value is None:
        return _figure(row)
    return f"{_figure(row)}; {row.target} {'reached' if row.value >= row.target else 'missed'}"


if __name__ == "__main__":
    with told_errors():
        arguments = sys.argv[1:]
        if "--fit" in arguments:
            at = arguments.index("--fit")
            settings = load(MeasureConfig, Path(arguments[0]), arguments[1:at])
            fit(settings, arguments[at + 1], arguments[at + 2], int(arguments[at + 3]))
        else:
            main(load(MeasureConfig, Path(arguments[0]), arguments[1:]), Path(arguments[0]))
