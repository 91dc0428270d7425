"""What do the embedded encoder's labelled reviews give a floor? The fair neighbour of its figure on 32 shots.

AFTERSALES_PUBLIC_DATA=/path/to/sets python experiments/encoder/transfer_floor.py experiments/encoder/config.yaml

The encoder has learned the labels of reviews before it sees the 32 rows of eprstmt. Here the floor learns from the same
reviews and the 32 rows together. One fit: 32 rows among tens of thousands change little.
"""

import sys
from pathlib import Path

import numpy as np

from aftersales.classifiers.linear import fit_linear
from aftersales.core.config import load
from aftersales.core.errors import AftersalesError
from aftersales.core.paths import load_script, project_root
from aftersales.corpora.labelled import Example
from aftersales.corpora.public import load_public
from aftersales.encoders.guard import guarded_marks, mark
from aftersales.evaluation.classification import over_seeds
from aftersales.evaluation.evidence import indicator
from aftersales.evaluation.results import Result, merge_results
from aftersales.tracking.provenance import provenance

MODEL, SET = "tfidf-linear-same-labels", "eprstmt_fewclue"
PRETRAIN, MEASURE = load_script("training/pretrain.py"), load_script("experiments/encoder/measure.py")


def main(config: Path) -> None:
    """Fit on reviews and shots, score the test rows, and add the row beside those of ``measure.py``."""
    labelled = load(
        PRETRAIN.PretrainConfig, project_root() / "configs/pretrain_labelled.yaml", ["corpus.folder=unused"]
    )
    few = load_public(SET, 0)
    names = few.task.label_names
    reviews = list(clear_reviews(list(labelled.labelled.sets), guarded_marks(labelled.guarded), set(names)))
    rows = [MEASURE.CLASSIFY.rows_of(part, names) for part in ((*reviews, *few.train), few.validation)]
    floors = [fit_linear(MEASURE.CLASSIFY.rows_of(few.train, names), rows[1], multi_label=False).floor]
    texts, gold = [example.text for example in few.test], indicator(few.test, names)
    model = fit_linear(rows[0], rows[1], multi_label=False).floor
    predicted = [np.asarray(one.predictions(texts)) for one in (model, *floors)]
    figure, over = over_seeds(few.task.metric, gold, predicted[:1], predicted[1:])
    row = Result(
        dataset=SET,
        split="32-shot",
        model=MODEL,
        metric=few.task.metric,
        value=round(figure.value, 4),
        ci95=(round(figure.low, 4), round(figure.high, 4)),
        seeds=1,
        floor=round(figure.value - over.value, 4),
        over_floor=(round(over.low, 4), round(over.high, 4)),
        n_test=len(gold),
        commit=provenance()["commit"],
        machine=provenance()["machine"],
    )
    print(f"{len(reviews):,} reviews: {row.value} {row.ci95}")
    results = merge_results(config.parent / "results.json", [row])
    MEASURE.report(load(MEASURE.MeasureConfig, config), results, config.parent / "README.md")


def clear_reviews(sets: list[str], guarded: frozenset[bytes], names: set[str]) -> list[Example]:
    """Return the training rows of the sets of sentiments that are positive or negative, without guarded texts."""
    found = []
    for data in map(load_public, sets):
        if names <= set(data.task.label_names):
            found += [row for row in data.train if set(row.labels) <= names and mark(row.text) not in guarded]
    return found


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except AftersalesError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
