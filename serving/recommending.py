"""Behind /v1/recommend: whose history, which variant, what may be shown, and what is written down of it."""

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from aftersales.core.config import load
from aftersales.core.errors import ConfigError, ModelError, nearest
from aftersales.runtime.assignment import CHAMPION, Assigner, Experiment, Experiments, Variant
from aftersales.runtime.events import PastEvent
from aftersales.runtime.exploring import CANDIDATES, ordered
from aftersales.runtime.filters import FilterError
from aftersales.runtime.protocol import (
    MAX_HISTORY,
    Exposed,
    ModelInfo,
    Problem,
    RecommendRequest,
    RecommendResponse,
)
from aftersales.runtime.recommender import Recommendations, Recommender
from aftersales.runtime.user_histories import UserHistories, joined
from serving.door import RefusedError
from serving.exposures import Exposure, ExposureLog
from serving.settings import EXPERIMENT, HISTORIES, Settings
from serving.shop import Shop

logger = logging.getLogger("bentoml.aftersales")
_PLAIN = Variant(name=CHAMPION, weight=1.0)
_NO_STORE = (
    f"this service keeps no histories: set {HISTORIES} to a file that `aftersales histories build` writes, or send "
    "history (empty for a new customer)"
)


def read_experiment(path: Path, recommenders: Mapping[str, object]) -> Experiment:
    """Read the one experiment of a service.

    Raises:
        ConfigError: the file is wrong, holds several experiments, or names a recommender that is not packaged.
    """
    listed = load(Experiments, path).experiments
    if len(listed) > 1:
        raise ConfigError(f"{EXPERIMENT}: {path} lists {len(listed)} experiments; a service runs one: name its file")
    for variant in listed[0].variants:
        if variant.recommender not in recommenders:
            raise ConfigError(
                f"{EXPERIMENT}: variant {variant.name!r} wants the recommender {variant.recommender!r}, which is not "
                f"packaged{nearest(variant.recommender, recommenders)}; see aftersales package --challenger"
            )
    return listed[0]


class Recommending:
    """Answers requests; safe to share between threads.

    Args:
        recommenders: name -> recommender; one is the ``champion``.
        models: name -> what answers say of it.
        settings: the platform's files.
        draw: gives random numbers in [0, 1), for variants that explore.
        count_dropped: told of rows that the log drops.

    Raises:
        ConfigError: a setting names a file that is wrong.
        ModelError: the histories cannot be read.
    """

    def __init__(
        self,
        recommenders: Mapping[str, Recommender],
        models: Mapping[str, ModelInfo],
        settings: Settings,
        draw: Callable[[], float] = random.random,
        count_dropped: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._recommenders, self._models, self._draw = recommenders, models, draw
        catalogues = {name: one.items for name, one in recommenders.items()}
        self._shop = Shop(settings.allowed_items, settings.out_of_stock, catalogues)
        self._histories = UserHistories.open(settings.histories) if settings.histories else None
        self._experiment = read_experiment(settings.experiment, recommenders) if settings.experiment else None
        self._assigner = Assigner(self._experiment) if self._experiment else None
        self._log = ExposureLog(settings.log, count_dropped=count_dropped) if settings.log else None

    def answer(
        self,
        request: RecommendRequest,
        request_id: str,
        clock: float,
        once_sent: Callable[[Callable[[], None]], None] = lambda act: act(),
    ) -> RecommendResponse:
        """Answer one request.

        Args:
            request: as the protocol says.
            request_id: for the answer and the log.
            clock: the server's, in seconds since 1970-01-01 UTC.
            once_sent: takes what is to be done once the answer has been sent: what nobody was shown is not logged.

        Raises:
            RefusedError: a filter names what the catalogue does not have (422), or a history is wanted and cannot be
                read (503).
        """
        variant, exposed = self._variant(request.user_id)
        known_user, history = self._history(request, clock)
        had = self._had(request, clock) if known_user else []
        found = self._recommended(request, history, had, variant)
        places = ordered([item.score for item in found.items], request.k, variant.explore, self._draw())
        if self._log and request.user_id is not None:
            taken = exposed if exposed and exposed.assigned else None
            best = [(item.item_id, item.score) for item in found.items[:CANDIDATES]]
            rows = [
                Exposure(
                    request_id=request_id,
                    timestamp=round(clock, 3),
                    user_id=request.user_id,
                    experiment=taken.name if taken else None,
                    variant=taken.variant if taken else None,
                    position=position,
                    item_id=found.items[place.rank].item_id,
                    propensity=place.propensity,
                    model_version=found.model_version,
                    rank=place.rank + 1,
                    candidates=best if position == 1 else None,
                )
                for position, place in enumerate(places, 1)
            ]
            once_sent(partial(self._log.add, rows))
        return RecommendResponse(
            request_id=request_id,
            model=self._models[variant.recommender],
            results=[found.items[place.rank] for place in places],
            reason=found.reason,
            # Of the request alone: a caller who names a user is not told what the store holds of them.
            unknown=[item for item in found.unknown if item in {one.item_id for one in request.history}],
            known_user=known_user,
            experiment=exposed,
        )

    def close(self) -> None:
        """Write what the log still holds back."""
        if self._log:
            self._log.close()

    def _variant(self, user_id: str | None) -> tuple[Variant, Exposed | None]:
        """Return how to answer a user, and what to say of it."""
        if self._experiment is None or self._assigner is None:
            return _PLAIN, None
        name = None if user_id is None else self._assigner.variant(user_id)
        variant = self._experiment.variant(name or self._experiment.control)
        return variant, Exposed(name=self._experiment.name, variant=variant.name, assigned=name is not None)

    def _history(self, request: RecommendRequest, clock: float) -> tuple[bool | None, list[PastEvent]]:
        """Return whether the store knows the user, and all that is known of what they did."""
        given = request.events(clock)
        if request.user_id is None or (self._histories is None and "history" in request.model_fields_set):
            return None, joined([], given)
        if self._histories is None:
            raise RefusedError(503, f"user_id: {_NO_STORE}", [Problem(field="user_id", problem=_NO_STORE)])
        try:
            stored = self._histories.events(request.user_id, request.moment(clock), MAX_HISTORY)
        except ModelError as error:
            if "history" in request.model_fields_set:
                logger.warning("answered by the request's history alone: %s", error)
                return None, joined([], given)
            raise _unread(error) from None
        return stored is not None, joined(stored or [], given)

    def _had(self, request: RecommendRequest, clock: float) -> list[str]:
        """Return what must not be shown of what the store says the user had, which may be more than the history."""
        if not request.exclude_seen or self._histories is None or request.user_id is None:
            return []
        try:
            return self._histories.bought(request.user_id, request.moment(clock))
        except ModelError as error:
            raise _unread(error) from None

    def _recommended(
        self, request: RecommendRequest, history: list[PastEvent], had: list[str], variant: Variant
    ) -> Recommendations:
        recommender = self._recommenders[variant.recommender]
        if request.kind is not None and request.kind not in recommender.items.kinds.words:
            return Recommendations(items=[], reason="popularity", unknown=[], model_version=recommender.version)
        k = max(request.k, CANDIDATES) if variant.explore else request.k
        filters = request.filters(self._shop.among(variant.recommender, request.in_stock))
        filters = replace(filters, exclude_items=[*filters.exclude_items, *had])
        try:
            return recommender.recommend(history, k, filters)
        except FilterError as error:
            problem = Problem(field=error.field, problem=error.problem)
            raise RefusedError(422, f"{error.field}: {error.problem}", [problem]) from None


def _unread(error: ModelError) -> RefusedError:
    """Return the refusal of a store that cannot be read; why it cannot is for the log."""
    logger.warning("answered with 503: %s", error)
    return RefusedError(503, f"the stored histories cannot be read; mend {HISTORIES}, or send history")
