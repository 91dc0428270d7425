"""Which encoder earns its place? Fine-tune each on every set with several seeds, beside the TF-IDF floor.

AFTERSALES_PUBLIC_DATA=/path/to/sets python experiments/encoder/measure.py experiments/encoder/config.yaml

The results stand beside the config. Every fit is kept under outputs/experiments/encoder, so a stopped measurement goes
on where it was, and a changed recipe, encoder or data set is measured anew.
"""

import json
import math
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from transformers import AutoConfig, AutoModel

from aftersales.classifiers.export import Precision, write_graph
from aftersales.classifiers.fit import FitConfig, Fitted
from aftersales.classifiers.linear import Linear
from aftersales.core.config import Config, build, load
from aftersales.core.errors import ConfigError, DataError, nearest, told_errors
from aftersales.core.files import atomic_folder
from aftersales.core.paths import load_script, outputs
from aftersales.corpora.labelled import FOLDS, LabelledData
from aftersales.corpora.load import DataConfig, load_data
from aftersales.encoders.architecture import digest
from aftersales.encoders.load import EMBEDDED, load_for_classification, load_tokenizer, locate
from aftersales.evaluation.classification import over_seeds
from aftersales.evaluation.evidence import indicator
from aftersales.evaluation.results import Result, merge_results, read_results, write_table
from aftersales.runtime.graph import open_graph
from aftersales.runtime.settings import GRAPH
from aftersales.tracking.provenance import provenance

FLOOR, ALONE, LEXICAL = "tfidf-linear", "-alone", "lexical-half"
RANDOM = "random"
CLASSIFY = load_script("training/classify.py")
LATENCY_TOKENS, LATENCY_RUNS = 32, 300


class MeasuredSet(Config):
    """One data set: where it comes from, how to fine-tune on it, and what was hoped for."""

    data: dict[str, Any]
    dataset: str | None = None
    split: str = "test"
    folds: Literal["none", "pooled", "one_a_seed"] = "none"
    marked: dict[str, str] = {}
    fit: dict[str, Any] = {}
    target: dict[str, float] = {}

    @property
    def splits(self) -> dict[str, str | None]:
        """Name of every measured part of the test rows -> the mark its rows bear."""
        return {self.split: None, **self.marked}

    @model_validator(mode="after")
    def _targets_are_splits(self) -> Self:
        for split in self.target:
            if split not in self.splits:
                raise ValueError(f"target.{split} is no split of this set{nearest(split, list(self.splits))}")
        return self


class MeasureConfig(Config):
    """What to measure.

    Attributes:
        sets: data sets by name.
        models: name in the table -> encoder.
        awaited: encoders that are not here; what each wants otherwise than ``fit``.
        otherwise: likewise for those of ``models``.
        fit: the recipe of every set, which a set may change.
        only: sets to measure; all when left out.
        seeds: trainings of each model on each set.
        threads: of one training.
    """

    sets: dict[str, MeasuredSet]
    models: dict[str, str]
    awaited: dict[str, dict[str, Any]] = {}
    otherwise: dict[str, dict[str, Any]] = {}
    fit: dict[str, Any] = {}
    only: list[str] | None = None
    seeds: int = Field(default=5, ge=1)
    threads: int = Field(default=2, ge=1)


@dataclass(frozen=True)
class Scored:
    """The test rows of one training (several where folds are pooled).

    Attributes:
        arrays: the labels ``gold`` and those that ``model``, its encoder ``alone``, its ``lexical`` half and ``floor``
            give, boolean of shape (rows, labels), and the ``marks`` of each row, joined by blanks.
        seconds: of the training; None when it was stopped and went on.
        peak_mb: most memory of the process so far.
        commit: of the code that trained.
    """

    arrays: dict[str, np.ndarray]
    seconds: float | None
    peak_mb: float
    commit: str


def main(config: MeasureConfig, folder: Path) -> None:
    """Measure, then write results.json and the table of README.md in ``folder``."""
    torch.set_num_threads(config.threads)
    chosen = config.sets if config.only is None else config.only
    if unknown := [name for name in chosen if name not in config.sets]:
        raise ConfigError(f"only: unknown set {unknown[0]!r}{nearest(unknown[0], list(config.sets))}")
    for name in chosen:
        check(config, name)
    before = read_results(folder / "results.json")
    facts = {name: facts_of(name, encoder, before) for name, encoder in config.models.items()}
    for name in chosen:
        merge_results(folder / "results.json", list(awaited_rows(config, name)))
        for model, encoder in config.models.items():
            runs = [scored(config, name, model, encoder, turn) for turn in range(repetitions(config, name))]
            found = list(results(config, name, model, runs, facts[model]))
            print("\n".join(f"{row.dataset}/{row.split} {row.model}: {_figure(row)}" for row in found), flush=True)
            report(config, merge_results(folder / "results.json", found), folder / "README.md")


def check(config: MeasureConfig, name: str) -> None:
    """Refuse a wrong recipe, data set or mark before hours of training.

    Raises:
        ConfigError: names it.
    """
    one = config.sets[name]
    for model in config.models:
        fit_config(config, name, model, EMBEDDED, seed=1)
    marks = {mark for example in loaded_rows(one, first_fold(one)).test for mark in example.marks}
    for split, mark in one.marked.items():
        if mark not in marks:
            raise ConfigError(f"sets.{name}.marked.{split}: no test row bears {mark!r}{nearest(mark, marks)}")


def repetitions(config: MeasureConfig, name: str) -> int:
    """Return how often the whole set is gone through: five seeds are five trainings, which five folds make in one."""
    return math.ceil(config.seeds / FOLDS) if config.sets[name].folds == "pooled" else config.seeds


def scored(config: MeasureConfig, name: str, model: str, encoder: str, turn: int) -> Scored:
    """Fine-tune and score every test row once; where folds are pooled, each fold has a seed of its own."""
    plan: dict[str, list[tuple[int, int | None]]] = {
        "none": [(turn + 1, None)],
        "one_a_seed": [(turn + 1, turn % FOLDS)],
        "pooled": [(turn * FOLDS + fold + 1, fold) for fold in range(FOLDS)],
    }
    parts = [one_fit(config, name, model, encoder, fold, seed) for seed, fold in plan[config.sets[name].folds]]
    seconds = [part.seconds for part in parts if part.seconds is not None]
    return Scored(
        arrays={field: np.concatenate([part.arrays[field] for part in parts]) for field in parts[0].arrays},
        seconds=statistics.mean(seconds) if seconds else None,
        peak_mb=max(part.peak_mb for part in parts),
        commit=" ".join(sorted({part.commit for part in parts})),
    )


def one_fit(config: MeasureConfig, name: str, model: str, encoder: str, fold: int | None, seed: int) -> Scored:
    """Return one training's scores, from disk where the same recipe, data and encoder were scored before.

    A change of the code is not noticed: remove the folder of ``store`` to measure it anew.
    """
    fit, data = fit_config(config, name, model, encoder_of(encoder, seed), seed), loaded_rows(config.sets[name], fold)
    recipe = CLASSIFY.ClassifyConfig(recipe="classify", data=data_config(config.sets[name], fold), fit=fit)
    rows = sha256(repr([(example.id, example.marks) for example in data.test]).encode()).hexdigest()[:8]
    kept = store() / f"{name}-{model.replace('/', '_')}-{seed}-{fold}-{CLASSIFY.work_name(recipe, data)}-{rows}"
    if not kept.is_dir():
        found = train(recipe, data, kept.with_name(f"{kept.name}.work"))
        with atomic_folder(kept) as aside:
            np.savez_compressed(aside / "scores.npz", **found.arrays)  # type: ignore[arg-type]
            (aside / "facts.json").write_text(json.dumps([found.seconds, found.peak_mb, found.commit]))
        print(f"{kept.name}: {found.seconds or math.nan:.0f} s", flush=True)
    with np.load(kept / "scores.npz") as arrays:
        return Scored(dict(arrays), *json.loads((kept / "facts.json").read_text()))


def fit_config(config: MeasureConfig, name: str, model: str, encoder: str, seed: int) -> FitConfig:
    """Return the recipe of a set, with what an encoder wants otherwise."""
    wants = {**config.otherwise, **config.awaited}.get(model, {})
    settings = {**config.fit, **config.sets[name].fit, "encoder": encoder, "seed": seed, **wants}
    return build(FitConfig, settings, f"fit of {name}")


def data_config(one: MeasuredSet, fold: int | None) -> DataConfig:
    """Return where the rows of a set, or of one fold of it, are."""
    return build(DataConfig, {**one.data, **({} if fold is None else {"fold": fold})}, "sets")


def first_fold(one: MeasuredSet) -> int | None:
    """Return a fold of the set where it has folds."""
    return None if one.folds == "none" else 0


def loaded_rows(one: MeasuredSet, fold: int | None) -> LabelledData:
    """Return the rows of a set, loaded once for all seeds."""
    return _loaded(data_config(one, fold).model_dump_json(exclude_unset=True))


@lru_cache(maxsize=2 * FOLDS)
def _loaded(where: str) -> LabelledData:
    return load_data(DataConfig.model_validate_json(where))


@lru_cache(maxsize=1)
def _linear(where: str) -> Linear:
    linear: Linear = CLASSIFY.learn_linear(_loaded(where))
    return linear


def fingerprint_of(one: MeasuredSet) -> str:
    """Return the fingerprint of a set, over all folds where it has them."""
    if one.folds == "none":
        return loaded_rows(one, None).fingerprint
    return sha256("".join(loaded_rows(one, fold).fingerprint for fold in range(FOLDS)).encode()).hexdigest()


def metric_of(one: MeasuredSet) -> str:
    """Return the headline metric of a set."""
    return loaded_rows(one, first_fold(one)).task.metric


def train(recipe: Any, data: LabelledData, work: Path) -> Scored:
    """Run the shipped recipe up to its test predictions."""
    linear = _linear(recipe.data.model_dump_json(exclude_unset=True))
    commit = provenance()["commit"]  # before the hours in which somebody may commit
    started, went_on = time.monotonic(), work.is_dir()
    learned = CLASSIFY.learn(recipe, data, work, linear)
    seconds = None if went_on else time.monotonic() - started
    measured = CLASSIFY.measure(data, learned)
    shutil.rmtree(work, ignore_errors=True)
    arrays = {
        "gold": indicator(data.test, data.task.label_names),
        "model": measured.predicted,
        "alone": measured.alone,
        "lexical": measured.lexical,
        "floor": measured.below,
        "marks": np.array([" ".join(example.marks) for example in data.test]),
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Scored(arrays, seconds, peak, commit)


def results(
    config: MeasureConfig, name: str, model: str, runs: list[Scored], facts: dict[str, Any]
) -> Iterator[Result]:
    """Yield the rows of one model on one set: whole, either half alone, and the floor."""
    one, first = config.sets[name], runs[0]
    metric, data, machine = metric_of(one), fingerprint_of(one), provenance()["machine"]
    times = [run.seconds for run in runs if run.seconds is not None]
    if any(not np.array_equal(run.arrays["gold"], first.arrays["gold"]) for run in runs):
        raise DataError(f"{name}: the seeds were scored on different test rows; remove {store()} and measure again")
    for split, mark in one.splits.items():
        mask = np.array([mark is None or mark in marks.split() for marks in first.arrays["marks"]])
        gold, floors = first.arrays["gold"][mask], [run.arrays["floor"][mask] for run in runs]
        for kind, field in ((model, "model"), (model + ALONE, "alone"), (LEXICAL, "lexical"), (FLOOR, "floor")):
            figure, over = over_seeds(metric, gold, [run.arrays[field][mask] for run in runs], floors)
            trained = kind not in (FLOOR, LEXICAL)
            yield Result(
                dataset=one.dataset or name,
                split=split,
                model=kind,
                metric=metric,
                value=round(figure.value, 4),
                ci95=(round(figure.low, 4), round(figure.high, 4)),
                seeds=len(runs) * (FOLDS if one.folds == "pooled" else 1),
                floor=round(figure.value - over.value, 4),
                over_floor=(round(over.low, 4), round(over.high, 4)) if kind != FLOOR else None,
                target=one.target.get(split) if kind == model and config.models[model] != RANDOM else None,
                n_test=len(gold),
                data_sha256=data,
                commit=" ".join(sorted({run.commit for run in runs})),
                seconds=round(statistics.mean(times), 1) if trained and times else None,
                peak_mb=round(max(run.peak_mb for run in runs)),
                machine=machine,
                **(facts if trained else {}),
            )


def awaited_rows(config: MeasureConfig, name: str) -> Iterator[Result]:
    """Yield empty rows for the encoders of ``awaited``, with the command that fills them."""
    one = config.sets[name]
    for model in config.awaited:
        command = (
            f"python experiments/encoder/measure.py experiments/encoder/config.yaml "
            f"only='[{name}]' models='{{{model}: {model}}}'"
        )
        for split in one.splits:
            yield Result(dataset=one.dataset or name, split=split, model=model, metric=metric_of(one), command=command)


def encoder_of(encoder: str, seed: int) -> str:
    """Return where an encoder lies; ``random`` is the embedded one's shape and tokenizer with fresh weights."""
    if encoder != RANDOM:
        return locate(encoder)
    source = Path(locate(EMBEDDED))
    shape = sha256((source / "config.json").read_bytes() + (source / "tokenizer.json").read_bytes()).hexdigest()[:8]
    folder = store() / f"random-weights-{shape}-{seed}"
    if not folder.is_dir():
        torch.manual_seed(seed)
        with atomic_folder(folder) as aside:
            AutoModel.from_config(AutoConfig.from_pretrained(source)).save_pretrained(aside)
            load_tokenizer(EMBEDDED).save_pretrained(aside)
    return str(folder)


def facts_of(model: str, encoder: str, before: list[Result]) -> dict[str, Any]:
    """Return what is true of an encoder on every set: its weights and its speed.

    The speed is taken from an earlier row of the same weights on the same machine: one figure for one graph, however
    busy the machine is today.
    """
    folder = encoder_of(encoder, 1)
    weights = None if encoder == RANDOM else digest(AutoModel.from_pretrained(folder))[:16]
    for row in before:
        if (row.model, row.model_sha256, row.machine) == (model, weights, provenance()["machine"]) and row.latency_ms:
            speed = {"latency_ms": row.latency_ms, "latency_int8_ms": row.latency_int8_ms}
            break
    else:
        speed = {
            "latency_ms": measure_latency(folder, "float32"),
            "latency_int8_ms": measure_latency(folder, "int8"),
        }
    return {"model_sha256": weights, **speed}


def measure_latency(encoder: str, precision: Precision) -> float:
    """Return the median milliseconds of the exported graph for one text of 32 tokens on one core."""
    model = load_for_classification(encoder, ["a", "b"], multi_label=False, dropout=0.0)
    with tempfile.TemporaryDirectory() as folder:
        write_graph(Fitted(model.eval(), load_tokenizer(encoder), LATENCY_TOKENS), Path(folder), precision)
        session = open_graph(Path(folder) / GRAPH, threads=1)
        ids = np.full((1, LATENCY_TOKENS), 100, dtype=np.int64)
        feeds = {node.name: ids if node.name == "input_ids" else np.ones_like(ids) for node in session.get_inputs()}
        times = []
        for _ in range(LATENCY_RUNS):
            started = time.perf_counter()
            session.run(None, feeds)
            times.append(time.perf_counter() - started)
    return round(1000 * statistics.median(times), 2)


def store() -> Path:
    """Return the folder of everything this experiment keeps between calls."""
    return outputs() / "experiments" / "encoder"


def report(config: MeasureConfig, rows: list[Result], readme: Path) -> None:
    """Write the table of ``readme``: sets in the order of the config, the floor first."""
    place_of = {one.dataset or name: place for place, (name, one) in reversed(list(enumerate(config.sets.items())))}

    def order(row: Result) -> tuple[Any, ...]:
        place = place_of.get(row.dataset, len(place_of))
        return place, row.split, row.model != FLOOR, row.value is None, row.model

    write_table(
        readme,
        sorted(rows, key=order),
        {
            "set": lambda row: f"{row.dataset}/{row.split}",
            "metric": lambda row: row.metric,
            "model": lambda row: row.model,
            "mean [95 %]": _figure,
            "over the floor": lambda row: (
                "" if row.over_floor is None else "{:+.3f} to {:+.3f}".format(*row.over_floor)
            ),
            "target": _target,
            "seeds": lambda row: row.seeds or "",
            "test rows": lambda row: row.n_test or "",
            "seconds": lambda row: "" if row.seconds is None else f"{row.seconds:,.0f}",
            "ms": lambda row: row.latency_ms or "",
            "ms int8": lambda row: row.latency_int8_ms or "",
        },
    )


def _figure(row: Result) -> str:
    if row.value is None or row.ci95 is None:
        return f"not measured: `{row.command}`"
    return f"{row.value:.3f} [{row.ci95[0]:.3f}, {row.ci95[1]:.3f}]"


def _target(row: Result) -> str:
    if row.target is None or row.value is None:
        return ""
    return f"{row.target:.3f} {'reached' if row.value >= row.target else 'missed'}"


if __name__ == "__main__":
    with told_errors():
        main(load(MeasureConfig, Path(sys.argv[1]), sys.argv[2:]), Path(sys.argv[1]).parent)
