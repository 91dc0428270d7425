"""What a run of a recommender leaves for the gate and for reviewers: its figures, and every test user's ranks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aftersales.core.files import write_json, write_text
from aftersales.corpora.histories import Holdout
from aftersales.corpora.load_interactions import SplitInteractions
from aftersales.evaluation.ranking import Ranking
from aftersales.evaluation.ranking_report import RankingReport
from aftersales.runtime.events import EVENT_KINDS, ages_in_days

AGE_DIGITS = 4  # of a day: nine seconds


def write_ranking_evidence(
    folder: Path,
    data: SplitInteractions,
    report: RankingReport,
    test: Ranking,
    floor: Ranking,
    more: dict[str, Any],
) -> None:
    """Write evaluation.json and predictions.jsonl into ``folder``.

    Args:
        folder: to write into.
        data: what was learned from and predicted, with one target a user.
        report: the figures of ``test`` and ``floor``.
        test: the test targets as the model ranks them.
        floor: likewise by its floor.
        more: what else belongs into evaluation.json; ``metric``, the headline, is wanted.
    """
    ids = np.array(data.final_train.items["item_id"])
    evaluation = {
        "kind": "recommender",
        "rows": len(test.ranks),
        "figures": report.figures,
        "intervals": {metric: (one.low, one.high) for metric, (one, _) in report.intervals.items()},
        "floor": report.floor,
        "apart": report.apart,
        "exclude_history": data.exclude_history,
        "candidates": ids[data.candidates].tolist(),
        **more,
    }
    write_json(folder / "evaluation.json", evaluation)
    lines = [
        {**_asked(data.split.test, row, ids), "rank": int(test.ranks[row]), "floor_rank": int(floor.ranks[row])}
        for row in range(len(test.ranks))
    ]
    write_text(folder / "predictions.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _asked(holdout: Holdout, row: int, ids: NDArray[np.str_]) -> dict[str, Any]:
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
