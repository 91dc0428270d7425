"""What do the embedded encoder's labelled reviews give a floor? The fair neighbour of its figure on 32 shots.

AFTERSALES_PUBLIC_DATA=/path/to/sets python experiments/encoder/transfer_floor.py experiments/encoder/config.yaml

The encoder has learned the labels of reviews before it sees the 32 rows of eprstmt. Here the floor learns from the same
reviews and the 32 rows of each fold together, and is compared with the floor on those 32 rows alone.
"""

import sys
from pathlib import Path

import numpy as np

from aftersales.classifiers.linear import fit_linear
from aftersales.core.config import load
from aftersales.core.errors import ConfigError, told_errors
from aftersales.core.paths import load_script, project_root
from aftersales.corpora.labelled import FOLDS, Example, LabelledData
from aftersales.corpora.public import load_public
from aftersales.encoders.guard import guarded_marks, mark
from aftersales.encoders.pretrain_config import PretrainConfig
from aftersales.evaluation.classification import over_seeds
from aftersales.evaluation.evidence import indicator
from aftersales.evaluation.results import Result, merge_results
from aftersales.tracking.provenance import provenance

MODEL, SET = "tfidf-linear-same-labels", "eprstmt_fewclue"
MEASURE = load_script("experiments/encoder/measure.py")


def main(config: Path) -> None:
    """Fit on reviews and shots, score the test rows, and add the row beside those of ``measure.py``."""
    recipe = load(PretrainConfig, project_root() / "configs/pretrain_labelled.yaml", ["corpus.folder=unused"])
    measured = load(MEASURE.MeasureConfig, config)
    folds = [load_public(SET, fold) for fold in range(FOLDS)]
    task, test = folds[0].task, folds[0].test
    names, texts = task.label_names, [example.text for example in test]
    reviews = clear_reviews(recipe, set(names))

    def predicted(fold: LabelledData, more: list[Example]) -> np.ndarray:
        rows, chosen = (MEASURE.CLASSIFY.rows_of(part, names) for part in ((*more, *fold.train), fold.validation))
        return np.asarray(fit_linear(rows, chosen, multi_label=False).floor.predictions(texts))

    models, floors = ([predicted(fold, more) for fold in folds] for more in (reviews, []))
    figure, over = over_seeds(task.metric, indicator(test, names), models, floors)
    row = Result(
        dataset=SET,
        split="32-shot",
        model=MODEL,
        metric=task.metric,
        value=round(figure.value, 4),
        ci95=(round(figure.low, 4), round(figure.high, 4)),
        seeds=FOLDS,
        floor=round(figure.value - over.value, 4),
        over_floor=(round(over.low, 4), round(over.high, 4)),
        n_test=len(test),
        data_sha256=MEASURE.fingerprint_of(measured.sets[SET]),
        commit=provenance()["commit"],
        machine=provenance()["machine"],
    )
    print(f"{len(reviews):,} reviews: {row.value} {row.ci95}")
    results = merge_results(config.parent / "results.json", [row])
    MEASURE.report(measured, results, config.parent / "README.md")


def clear_reviews(recipe: PretrainConfig, names: set[str]) -> list[Example]:
    """Return the training rows of the recipe's sets of sentiments that are positive or negative, without guarded texts.

    Raises:
        ConfigError: the recipe learns from no labelled set.
    """
    if recipe.labelled is None:
        raise ConfigError("configs/pretrain_labelled.yaml: `labelled` is missing, so there are no labels to compare by")
    guarded, found = guarded_marks(recipe.guarded), []
    for data in map(load_public, recipe.labelled.sets):
        if names <= set(data.task.label_names):
            found += [row for row in data.train if set(row.labels) <= names and mark(row.text) not in guarded]
    return found


if __name__ == "__main__":
    with told_errors():
        main(Path(sys.argv[1]))
