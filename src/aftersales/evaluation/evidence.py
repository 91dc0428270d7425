"""The evidence of a classifier: one JSON of figures, the predictions row by row, the confusion matrix."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aftersales.core.files import write_json, write_text
from aftersales.corpora.labelled import Example, LabelledData
from aftersales.evaluation.classification import (
    Difference,
    Figure,
    difference,
    expected_calibration_error,
    figures,
    per_label,
    plain_metric,
)

MIN_SLICE = 10
CHINESE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Arial Unicode MS",
)  # fmt: skip


def indicator(examples: Sequence[Example], labels: Sequence[str]) -> np.ndarray:
    """Return the labels of ``examples`` as a boolean array of shape (rows, labels)."""
    place = {label: index for index, label in enumerate(labels)}
    matrix = np.zeros((len(examples), len(labels)), dtype=bool)
    for row, example in enumerate(examples):
        matrix[row, [place[label] for label in example.labels]] = True
    return matrix


@dataclass(frozen=True)
class Evaluation:
    """A classifier on the test split, beside its floor on the same rows.

    Attributes:
        metric: the headline metric, by which models are chosen.
        figures: every metric with its interval.
        floor: likewise for the TF-IDF floor.
        encoder_alone, lexical_alone: likewise for either half of the model without the other.
        over_floor: headline difference to the floor, paired on rows.
        ece: expected calibration error of the confidence.
        answered: share of rows with the decision to answer, and share of right answers among them.
    """

    metric: str
    rows: int
    figures: dict[str, Figure]
    floor: dict[str, Figure]
    encoder_alone: dict[str, Figure]
    lexical_alone: dict[str, Figure]
    over_floor: Difference
    ece: float
    answered: tuple[float, float]
    labels: dict[str, dict[str, float]]
    slices: dict[str, dict[str, float]]

    @property
    def headline(self) -> Figure:
        """The figure of the headline metric."""
        return self.figures[self.metric]


def evaluate(
    data: LabelledData,
    predicted: np.ndarray,
    floor: np.ndarray,
    halves: tuple[np.ndarray, np.ndarray],
    confidence: np.ndarray,
    answered: np.ndarray,
) -> Evaluation:
    """Measure predictions on the test split.

    Args:
        data: the task with its splits.
        predicted: labels given by the model, boolean of shape (test rows, labels).
        floor: labels given by the floor, likewise.
        halves: labels given by the encoder alone and by the lexical half alone, likewise.
        confidence: of the model's answers, shape (test rows,).
        answered: rows with the decision to answer, boolean of shape (test rows,).
    """
    gold = indicator(data.test, data.task.label_names)
    right = (gold == predicted).all(axis=1)
    return Evaluation(
        metric=data.task.metric,
        rows=len(gold),
        figures=figures(gold, predicted),
        floor=figures(gold, floor),
        encoder_alone=figures(gold, halves[0]),
        lexical_alone=figures(gold, halves[1]),
        over_floor=difference(data.task.metric, gold, predicted, floor),
        ece=expected_calibration_error(confidence, right),
        answered=(float(answered.mean()), float(right[answered].mean()) if answered.any() else 0.0),
        labels=per_label(gold, predicted, data.task.label_names),
        slices=slices(data.test, gold, predicted, data.task.metric),
    )


def slices(examples: Sequence[Example], gold: np.ndarray, predicted: np.ndarray, metric: str) -> dict[str, Any]:
    """Return the metric on the rows of each mark and length, the worst first; tiny slices are left out."""
    masks = {
        f"mark:{mark}": np.array([mark in example.marks for example in examples])
        for mark in sorted({mark for example in examples for mark in example.marks})
    }
    lengths = np.array([len(example.text) for example in examples])
    masks |= {"length:<10": lengths < 10, "length:10-39": (lengths >= 10) & (lengths < 40), "length:40+": lengths >= 40}
    table = {}
    for name, mask in masks.items():
        rows = int(mask.sum())
        if rows >= MIN_SLICE:
            table[name] = {metric: plain_metric(metric, gold[mask], predicted[mask]), "rows": rows}
    return dict(sorted(table.items(), key=lambda item: item[1][metric]))


def write_evidence(
    folder: Path,
    data: LabelledData,
    evaluation: Evaluation,
    predicted: np.ndarray,
    floor: np.ndarray,
    confidence: np.ndarray,
    more: dict[str, Any],
) -> None:
    """Write evaluation.json, predictions.jsonl, confusion.json and confusion.png into ``folder``."""
    names = data.task.label_names
    write_json(folder / "evaluation.json", {"kind": "classifier", **asdict(evaluation), **more})
    rows = []
    for row, example in enumerate(data.test):
        rows.append(
            {
                "id": example.id,
                "text": example.text,
                "gold": list(example.labels),
                "predicted": _named(predicted[row], names),
                "floor": _named(floor[row], names),
                "confidence": round(float(confidence[row]), 4),
                "marks": list(example.marks),
            }
        )
    write_text(folder / "predictions.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    confusion = _confusion(rows)
    write_json(folder / "confusion.json", confusion)
    if not data.task.multi_label:
        _draw_confusion(folder / "confusion.png", names, confusion)


def _named(given: np.ndarray, names: list[str]) -> list[str]:
    return [names[index] for index in np.flatnonzero(given)]


def _confusion(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count (gold, predicted) pairs, the commonest error first, the right ones last."""
    counts = Counter(("|".join(row["gold"]), "|".join(row["predicted"])) for row in rows)
    ordered = sorted(counts.items(), key=lambda item: (item[0][0] == item[0][1], -item[1], item[0]))
    return [{"gold": gold, "predicted": predicted, "rows": count} for (gold, predicted), count in ordered]


def _draw_confusion(path: Path, names: list[str], confusion: list[dict[str, Any]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    fonts = [*(font for font in CHINESE_FONTS if font in installed), "DejaVu Sans"]
    readable = len(fonts) > 1 or all(name.isascii() for name in names)
    shown = names if readable else [str(number) for number in range(1, len(names) + 1)]
    matrix = np.zeros((len(names), len(names)), dtype=int)
    for cell in confusion:
        matrix[names.index(cell["gold"]), names.index(cell["predicted"])] = cell["rows"]
    side = max(4.0, 0.34 * len(names) + 2.5)
    canvas = Canvas(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots()
    axes.imshow(matrix, cmap="Blues")
    axes.set_xticks(range(len(names)), shown, rotation=90, fontsize=8, fontfamily=fonts)
    axes.set_yticks(range(len(names)), shown, fontsize=8, fontfamily=fonts)
    axes.set_xlabel("predicted" if readable else "predicted (no Chinese font here: labels numbered as in task.yaml)")
    axes.set_ylabel("gold")
    for gold, predicted in zip(*matrix.nonzero(), strict=True):
        shade = "white" if matrix[gold, predicted] > matrix.max() / 2 else "black"
        axes.text(predicted, gold, matrix[gold, predicted], ha="center", va="center", fontsize=7, color=shade)
    canvas.savefig(path, dpi=110)
