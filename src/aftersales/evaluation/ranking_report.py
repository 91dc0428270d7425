"""Everything a run of a recommender found in test, beside its floor, and the part of its card that says so."""

from dataclasses import dataclass
from typing import Self

from aftersales.corpora.histories import Holdout
from aftersales.corpora.interactions import Interactions
from aftersales.evaluation.classification import Difference, Figure
from aftersales.evaluation.list_metrics import ItemFacts, list_figures
from aftersales.evaluation.rank_metrics import METRICS
from aftersales.evaluation.ranking import Ranking
from aftersales.evaluation.ranking_comparison import FEW, over_seeds, warm_and_cold


@dataclass(frozen=True)
class RankingReport:
    """What a ranking and its floor are worth.

    Attributes:
        figures: every figure by name, those of the lists included.
        floor: the same of the floor, on the same users.
        intervals: of each metric that is a mean over users, and its paired difference to the floor.
        apart: the figures of cold and warm users and items; see ``warm_and_cold``.
    """

    figures: dict[str, float]
    floor: dict[str, float]
    intervals: dict[str, tuple[Figure, Difference]]
    apart: dict[str, dict[str, float]]

    @classmethod
    def of(cls, ranking: Ranking, floor: Ranking, holdout: Holdout, train: Interactions) -> Self:
        """Report on two rankings of ``holdout`` after learning from ``train``."""
        facts, cutoffs = ItemFacts.of(train), tuple(ranking.coverage)
        metrics = [f"{name}@{k}" for name in METRICS for k in cutoffs]
        return cls(
            figures=ranking.figures() | list_figures(ranking.lists, holdout.targets, facts, cutoffs),
            floor=floor.figures() | list_figures(floor.lists, holdout.targets, facts, cutoffs),
            intervals=over_seeds(metrics, [ranking], [floor]),
            apart=warm_and_cold(ranking, holdout, train),
        )

    def tracked(self, headline: str) -> dict[str, float]:
        """Return what the experiment store shows: every figure, and of ``headline`` the interval and the floor."""
        figure, over_floor = self.intervals[headline]
        beside = {"low": figure.low, "high": figure.high, "floor": self.floor[headline], "over_floor": over_floor.value}
        return {tracked_name(name): value for name, value in self.figures.items()} | {
            f"{tracked_name(headline)}_{name}": value for name, value in beside.items()
        }

    def markdown(self, headline: str, model: str, floor: str) -> list[str]:
        """Return the lines of the card with all figures, and ``headline`` for cold and warm apart."""
        rows = []
        for metric, value in self.figures.items():
            found = self.intervals.get(metric)
            bounds = f"{found[0].low:.4f} – {found[0].high:.4f}" if found else ""
            rows.append(f"| {metric} | {value:.4f} | {bounds} | {self.floor[metric]:.4f} |")
        return [
            f"| metric | {model} | 95 % interval over users | floor: {floor} |",
            "|---|---|---|---|",
            *rows,
            "",
            "Novelty (bits), diversity and popularity (percentile among all items) describe the lists, right or wrong.",
            f"Cold are users with fewer than {FEW} events before, and items with fewer than {FEW} in training:",
            "",
            f"| group | targets | {headline} |",
            "|---|---|---|",
            *[f"| {name} | {one['targets']:,} | {one[headline]:.4f} |" for name, one in self.apart.items()],
        ]


def tracked_name(metric: str) -> str:
    """Return the name of a metric as the experiment store takes it, without ``@``."""
    return metric.replace("@", "_at_")
