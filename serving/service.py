"""The scoring service: one process, every model of the Bento, an endpoint for each classifier.

The endpoints follow from ``models.json``, which packaging writes beside this file: a new task needs no code here.
Inputs are positional-only, which is how BentoML takes a flat JSON body: ``{"texts": [...]}``.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # BentoML reads it at its first event

import bentoml
from pydantic import BaseModel
from starlette.responses import JSONResponse

from aftersales.core.errors import AftersalesError
from aftersales.runtime.catalogue import Catalogue
from aftersales.runtime.classifier import Classifier
from aftersales.runtime.protocol import (
    ErrorResponse,
    RecommendRequest,
    RecommendResponse,
    ScoreRequest,
    ScoreResponse,
    TriageResponse,
)
from aftersales.runtime.recommender import Recommender
from aftersales.runtime.user_histories import UserHistories
from serving.contents import Contents, Packaged
from serving.docs import PATHS, endpoints, pages
from serving.door import HEADER, SENT, Door, RefusedError
from serving.exposures import check_log
from serving.logs import withhold_texts
from serving.metrics import Metrics
from serving.recommending import Recommending, read_experiment
from serving.settings import Settings
from serving.shop import Shop

CONTENTS = Contents.read(Path(__file__).parent)
# More requests than this at once are answered with 429.
MAX_CONCURRENCY = 64
TIMEOUT_SECONDS = 10
METRICS = Metrics([*(one.route for one in endpoints(CONTENTS)), *PATHS])

logger = logging.getLogger("bentoml.aftersales")


def _open(packaged: Packaged) -> Path:
    """Return the checked folder of a model in the Bento's store."""
    return packaged.check(Path(bentoml.models.get(packaged.tag).path))


def _request_id(context: bentoml.Context) -> str:
    return str(context.request.headers[HEADER.decode()])


def _check_models() -> None:
    """End the start, before any worker, with a message that names the model file or setting which is wrong."""
    settings = Settings.read()
    try:
        for packaged in CONTENTS.models:
            _open(packaged)
        if settings.histories:
            UserHistories.open(settings.histories)
        if settings.experiment:
            read_experiment(settings.experiment, CONTENTS.recommenders)
        if settings.allowed_items or settings.out_of_stock:
            catalogues = {name: Catalogue.read(_open(one)) for name, one in CONTENTS.recommenders.items()}
            Shop(settings.allowed_items, settings.out_of_stock, catalogues)
        if settings.log:
            check_log(settings.log)
    except AftersalesError as error:
        raise SystemExit(f"the service does not start: {error}") from None


class Scoring:
    """Scores after-sales messages and recommends items; no request is taken before every model is loaded."""

    check_models = bentoml.on_deployment(_check_models)

    def __init__(self) -> None:
        withhold_texts()
        self._classifiers = {one.task: Classifier.load(_open(one)) for one in CONTENTS.classifiers}
        self._recommending = _recommending() if CONTENTS.recommender else None
        self._models = {one.model.name: one.model for one in CONTENTS.models}  # last: says that all are loaded
        logger.info("loaded %s", ", ".join(f"{one.name} {one.version}" for one in self._models.values()))

    def __is_ready__(self) -> bool:
        """Answer ``/readyz``."""
        return bool(self._models)

    def score(self, task: str, request: ScoreRequest, request_id: str) -> ScoreResponse:
        """Score with one classifier."""
        results = self._classifiers[task].predict(request.texts, request.top_k)
        return ScoreResponse(request_id=request_id, model=self._models[task], results=results)

    def triage(self, request: ScoreRequest, /, ctx: bentoml.Context) -> TriageResponse:
        """Score with every classifier."""
        columns = [one.predict(request.texts, request.top_k) for one in self._classifiers.values()]
        return TriageResponse(
            request_id=_request_id(ctx),
            models={task: self._models[task] for task in self._classifiers},
            results=[dict(zip(self._classifiers, row, strict=True)) for row in zip(*columns, strict=True)],
        )

    def recommend(self, request: RecommendRequest, /, ctx: bentoml.Context) -> RecommendResponse:
        """Recommend what comes next."""
        assert self._recommending is not None  # else there is no such endpoint
        try:
            once_sent = ctx.request.scope[SENT].append
            return self._recommending.answer(request, _request_id(ctx), time.time(), once_sent)
        except RefusedError as refused:
            return cast(RecommendResponse, _refusal(refused, ctx))

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Write what is still to be written, after the last request."""
        if self._recommending is not None:
            self._recommending.close()


def _recommending() -> Recommending:
    """Load every recommender of the Bento, and open what is set."""
    packaged = CONTENTS.recommenders
    loaded = {name: Recommender.load(_open(one)) for name, one in packaged.items()}
    models = {name: one.model for name, one in packaged.items()}
    return Recommending(loaded, models, Settings.read(), count_dropped=METRICS.dropped.inc)


def _refusal(refused: RefusedError, context: bentoml.Context) -> JSONResponse:
    """Return a refusal in the shape of those at the door; BentoML takes the status from its context."""
    context.response.status_code = refused.status
    answer = ErrorResponse(error=refused.error, detail=refused.detail, request_id=_request_id(context))
    return JSONResponse(answer.model_dump(), refused.status)


def _endpoint(task: str) -> Callable[[Scoring, ScoreRequest, bentoml.Context], ScoreResponse]:
    """Return the method behind the endpoint of one classifier."""

    def score(self: Scoring, request: ScoreRequest, /, ctx: bentoml.Context) -> ScoreResponse:
        return self.score(task, request, _request_id(ctx))

    score.__name__ = f"score_{task}"
    return score


def _service() -> bentoml.Service[Scoring]:
    """Return the service with an endpoint for every model in the Bento."""
    methods: dict[str, Callable[..., BaseModel]] = {
        packaged.route: _endpoint(packaged.task) for packaged in CONTENTS.classifiers
    }
    if CONTENTS.classifiers:
        methods["/v1/triage"] = Scoring.triage
    if CONTENTS.recommender:
        methods["/v1/recommend"] = Scoring.recommend
    for route, method in methods.items():
        setattr(Scoring, method.__name__, bentoml.api(route=route)(method))
    service = bentoml.service(
        name="AfterSales",
        workers=1,
        threads=os.cpu_count() or 1,  # each runs one request on one core
        traffic={"timeout": 2 * TIMEOUT_SECONDS},  # the door answers first
        metrics={"enabled": False},
        # The content type is the client's words, and they do not belong in a log.
        logging={"access": {"enabled": True, "request_content_type": False}},
        envs=[{"name": "BENTOML_DO_NOT_TRACK", "value": "True"}],
    )(Scoring)
    requests = {one.route: one.request for one in endpoints(CONTENTS)}
    service.add_asgi_middleware(
        Door,
        requests=requests,
        metrics=METRICS,
        max_concurrency=MAX_CONCURRENCY,
        timeout_seconds=TIMEOUT_SECONDS,
    )
    service.mount_asgi_app(pages(CONTENTS, METRICS, lambda: str(service.bento.tag) if service.bento else "not built"))
    return service


AfterSales = _service()
