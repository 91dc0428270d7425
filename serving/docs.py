"""The service described: OpenAPI at ``/docs.json`` and a page at ``/`` that loads nothing from elsewhere.

BentoML's own page embeds a tag manager and asks an outside validator; its description can show no example.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aftersales.runtime.protocol import (
    EXAMPLE_TEXTS,
    MAX_BODY_BYTES,
    REQUEST_ID,
    ErrorResponse,
    Exposed,
    RecommendRequest,
    RecommendResponse,
    ScoreRequest,
    ScoreResponse,
    TriageResponse,
)
from serving.contents import Contents, PackagedClassifier, PackagedRecommender
from serving.metrics import Metrics

_RECOMMENDING = """根据历史推荐商品和售后服务，每件都说明理由；历史可以由 `user_id` 从服务的历史库里查，也可以写在
`history` 里；两者都给时，`history` 接在库里的记录之后。可按类目、价格、库存筛选。

Items and after-sales services that fit a customer's history, each with its reason. The history is looked up by
`user_id`, or given as `history`; both are joined."""
_EXAMPLE_ID = "order-20261111-0001"
_TAG = {"name": "scoring", "description": "打分与推荐"}
_PROBES = {
    "/livez": "the process lives",
    "/readyz": "every model is loaded; until then there is no answer, or 503",
    "/metrics": "figures for Prometheus",
}
PATHS = ("/", "/docs.js", "/docs.json", *_PROBES)  # what GET finds
_REFUSALS = {
    "400": "the body is not JSON",
    "404": "there is no such endpoint",
    "413": f"the body is longer than {MAX_BODY_BYTES} bytes",
    "415": "the content type is not application/json",
    "422": "a field is missing, unknown, of a wrong type or beyond its limit; `detail` names it",
    "429": "too many requests at once; `Retry-After` says when to try again",
    "500": "the service failed",
    "503": "no history can be looked up: none is set, or it cannot be read",
    "504": "no answer in time",
}
# Everything the page needs comes from this server, and the browser is told to accept nothing else.
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
_PAGE = """<!DOCTYPE html>
<html lang="zh">
  <head>
    <meta charset="UTF-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>aftersales</title>
    <link rel="stylesheet" href="./static_content/swagger-ui.css">
    <link rel="icon" type="image/png" href="./static_content/favicon-light-32x32.png">
  </head>
  <body style="margin: 0">
    <div id="swagger-ui"></div>
    <script src="./static_content/swagger-ui-bundle.js" charset="UTF-8"></script>
    <script src="./docs.js" charset="UTF-8"></script>
  </body>
</html>
"""
_SCRIPT = """SwaggerUIBundle({
  url: "./docs.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout", defaultModelsExpandDepth: 0,
  docExpansion: "list", tryItOutEnabled: true
});
"""


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: its path, what it takes and gives, and an example of both."""

    route: str
    summary: str
    description: str
    request: type[BaseModel]
    response: type[BaseModel]
    example_request: BaseModel
    example_response: BaseModel


def endpoints(contents: Contents) -> list[Endpoint]:
    """Return every endpoint of a Bento with these contents."""
    classifiers = contents.classifiers
    described = [_scoring(packaged) for packaged in classifiers]
    if classifiers:
        described.append(_triage(classifiers))
    if contents.recommender:
        described.append(_recommending(contents.recommender))
    return described


def openapi(contents: Contents, version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of a Bento of this ``version``."""
    described = endpoints(contents)
    models: set[type[BaseModel]] = {ErrorResponse}.union(*((one.request, one.response) for one in described))
    _, schema = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)],
        ref_template="#/components/schemas/{model}",
    )
    probes = {
        path: {"get": {"tags": ["operation"], "summary": text, "responses": {"200": {"description": "yes"}}}}
        for path, text in _PROBES.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "aftersales",
            "version": version,
            "description": "售后消息打分与推荐 · Scores after-sales messages and recommends items and services.",
        },
        "servers": [{"url": "."}],  # as seen by the browser, whatever prefix a proxy adds
        "tags": [_TAG, {"name": "operation", "description": "运行状态"}],
        "paths": {one.route: {"post": _operation(one)} for one in described} | probes,
        "components": {"schemas": schema.get("$defs", {})},
    }


def pages(contents: Contents, metrics: Metrics, version: Callable[[], str]) -> Starlette:
    """Return the page at ``/`` with its script and its OpenAPI description, and the figures at ``/metrics``."""

    def serve(text: Callable[[], str | bytes], media_type: str) -> Callable[[Request], Response]:
        headers = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
        return lambda _: Response(text(), media_type=media_type, headers=headers)

    def description() -> str:
        return json.dumps(openapi(contents, version()), ensure_ascii=False)

    return Starlette(
        routes=[
            Route("/", serve(lambda: _PAGE, "text/html")),
            Route("/docs.js", serve(lambda: _SCRIPT, "text/javascript")),
            Route("/docs.json", serve(description, "application/json")),
            Route("/metrics", serve(metrics.text, "text/plain; version=0.0.4; charset=utf-8")),
        ]
    )


def _operation(one: Endpoint) -> dict[str, Any]:
    def content(model: type[BaseModel], example: BaseModel | None = None) -> dict[str, Any]:
        media: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
        if example:
            media["example"] = example.model_dump(mode="json")
        return {"application/json": media}

    request_id = {
        "name": "X-Request-ID",
        "in": "header",
        "description": "your own id of this request, returned in the answer; made up where absent or malformed",
        "schema": {"type": "string", "pattern": f"^{REQUEST_ID}$"},
    }
    answer = {"description": "the answer", "content": content(one.response, one.example_response)}
    refusals = {status: {"description": text, "content": content(ErrorResponse)} for status, text in _REFUSALS.items()}
    return {
        "tags": [_TAG["name"]],
        "summary": one.summary,
        "description": one.description,
        "operationId": one.route.removeprefix("/v1/").replace("-", "_"),
        "parameters": [request_id],
        "requestBody": {"required": True, "content": content(one.request, one.example_request)},
        "responses": {"200": answer, **refusals},
    }


def _scoring(packaged: PackagedClassifier) -> Endpoint:
    labels = "、".join(f"`{label.name}` {label.zh}".rstrip() for label in packaged.labels)
    return Endpoint(
        route=packaged.route,
        summary=f"{packaged.task} · {len(packaged.labels)} 个标签",
        description=f"标签 · labels: {labels}",
        request=ScoreRequest,
        response=ScoreResponse,
        example_request=ScoreRequest(texts=EXAMPLE_TEXTS),
        example_response=ScoreResponse(request_id=_EXAMPLE_ID, model=packaged.model, results=packaged.example),
    )


def _triage(classifiers: list[PackagedClassifier]) -> Endpoint:
    tasks = [packaged.task for packaged in classifiers]
    rows = zip(*(packaged.example for packaged in classifiers), strict=True)
    return Endpoint(
        route="/v1/triage",
        summary="一次全部 · " + ", ".join(tasks),
        description="一条消息一次得到所有分类结果 · every classifier's answer to each message",
        request=ScoreRequest,
        response=TriageResponse,
        example_request=ScoreRequest(texts=EXAMPLE_TEXTS),
        example_response=TriageResponse(
            request_id=_EXAMPLE_ID,
            models={packaged.task: packaged.model for packaged in classifiers},
            results=[dict(zip(tasks, row, strict=True)) for row in rows],
        ),
    )


def _recommending(packaged: PackagedRecommender) -> Endpoint:
    return Endpoint(
        route="/v1/recommend",
        summary="推荐商品与服务",
        description=_RECOMMENDING,
        request=RecommendRequest,
        response=RecommendResponse,
        example_request=packaged.example_request,
        example_response=RecommendResponse(
            request_id=_EXAMPLE_ID,
            model=packaged.model,
            results=packaged.example.items,
            reason=packaged.example.reason,
            unknown=packaged.example.unknown,
            experiment=Exposed(name="return-aware-recommendations", variant="today", assigned=True),
        ),
    )
