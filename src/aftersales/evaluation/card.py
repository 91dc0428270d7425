"""The model card: README.md of a model folder, with Hugging Face metadata (Mitchell et al. 2019)."""

from collections.abc import Sequence

from aftersales.corpora.labelled import LabelledData
from aftersales.corpora.load_interactions import SplitInteractions
from aftersales.evaluation.evidence import Evaluation
from aftersales.runtime.events import EVENT_KINDS

FEW_ANSWERS = 10  # of so few, the share of right ones says nothing


def classifier_card(data: LabelledData, evaluation: Evaluation, made_of: tuple[str, str], seconds: float) -> str:
    """Return the card of a classifier as Markdown; ``made_of`` names its encoder and the precision of its graph."""
    (encoder, precision), task = made_of, data.task
    headline = evaluation.headline
    rows = {name: len(examples) for name, examples in data.splits.items()}
    names = ", ".join(f"{label.zh} ({label.name})" if label.zh else label.name for label in task.labels)
    worst = "\n".join(
        f"| {name} | {values[evaluation.metric]:.3f} | {values['rows']} |"
        for name, values in list(evaluation.slices.items())[:8]
    )
    metrics = "\n".join(
        f"| {name} | {figure} | {evaluation.encoder_alone[name]} | {evaluation.lexical_alone[name]} "
        f"| {evaluation.floor[name]} |"
        for name, figure in evaluation.figures.items()
    )
    share, right = evaluation.answered
    answered = f"The decision is to answer on {share:.0%} of the rows"
    if share * evaluation.rows >= FEW_ANSWERS:
        answered += f", and {right:.1%} of these answers are right"
    return f"""---
language: zh
library_name: transformers
pipeline_tag: text-classification
tags: [after-sales, {task.name}]
model-index:
- name: aftersales-{task.name}
  results:
  - task: {{type: text-classification}}
    dataset: {{name: {task.name}, type: {task.name}, split: test}}
    metrics:
    - {{type: {evaluation.metric}, value: {headline.value:.4f}}}
---

# {task.title.zh} · {task.title.en}

Fine-tuned from the encoder `{encoder}` in {seconds:.0f} seconds. Made for Chinese after-sales messages; not for
decisions about people, and not for other domains without measuring there.

The model adds up two halves: the encoder (which `AutoModelForSequenceClassification` loads from this folder) and a
linear model over character n-grams (`lexical.safetensors`), weighted on validation. Score with
`aftersales score --model`. The exported graph computes in {precision}; the figures are those of the trained model, with
which it was compared on the test rows.

Labels: {names}

## Figures

Test split, {evaluation.rows} rows, one seed; 95 % bootstrap interval over rows. Floor: character TF-IDF with a linear
support vector machine on the same rows. Difference to the floor ({evaluation.metric}): {evaluation.over_floor}.

| metric | model | its encoder alone | its n-grams alone | floor |
|---|---|---|---|---|
{metrics}

Expected calibration error {evaluation.ece:.3f}. {answered}.

## Where it is weak

| slice | {evaluation.metric} | rows |
|---|---|---|
{worst}

## Data

{rows["train"]} training, {rows["validation"]} validation and {rows["test"]} test rows; fingerprint
`{data.fingerprint[:16]}`; task version {task.version}.
"""


def recommender_card(
    name: str, data: SplitInteractions, origin: str, seed: int, cold_items: bool, figures: Sequence[str]
) -> str:
    """Return the card of a recommender as Markdown.

    Args:
        name: of the model.
        data: what it learned from and was judged on.
        origin: where the rows come from.
        seed: of the run.
        cold_items: whether items without events in training have scores of their own.
        figures: the lines of ``RankingReport.markdown``.
    """
    train, test = data.final_train, data.split.test
    repeats = "left out of the list" if data.exclude_history else "may be recommended again"
    cold = "have scores of their own" if cold_items else "come last"
    lines = "\n".join(figures)
    return f"""# Recommender: {name}

Trained on {origin}: {len(train.events):,} events, {train.n_users:,} users, {train.n_items:,} items. Data SHA-256
`{data.fingerprint[:12]}`, seed {seed}.

Evaluated on what came next for {len(test.histories):,} users (full ranking; items of the history {repeats}).

{lines}

`model.onnx`: `history` (item indices from 1), `kinds` (1-based index into {", ".join(EVENT_KINDS)}) and `ages` (days
before the request, 0 where not known), all of shape (batch, length), right-aligned after zeros, to `scores` (batch,
items) in the order of `items.json`. An empty history is answered with popularity; items without events in training
{cold}.
"""
