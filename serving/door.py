"""What every request passes before BentoML sees it: request id, content type, size, the request's shape, and load.

BentoML would read any content type (a pickle among them), any length, and print the traceback of every bad request; its
own answers to overload have another shape and no request id.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from pydantic import BaseModel, ValidationError

from aftersales.runtime.protocol import MAX_BODY_BYTES, REQUEST_ID, ErrorResponse, Problem
from serving.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

HEADER = b"x-request-id"
# In a request's scope: what to do once its answer has been sent; nothing of it is done for a refusal.
SENT = "aftersales.sent"
# Of a body that is too long this much is read and thrown away, so that an honest client sees the 413.
MAX_DISCARDED_BYTES = 8 * MAX_BODY_BYTES
MAX_PROBLEMS = 8
RETRY_SECONDS = 1

_REQUEST_ID = re.compile(REQUEST_ID.encode())


class RefusedError(Exception):
    """The request is answered at the door."""

    def __init__(self, status: int, error: str, detail: list[Problem] | None = None) -> None:
        """Keep the HTTP status and what to say."""
        super().__init__(error)
        self.status, self.error, self.detail = status, error, detail or []


class DisconnectedError(Exception):
    """The client left before its request was complete."""


class Door:
    """ASGI middleware; requests without a body (pages, health, metrics) only get their request id."""

    def __init__(
        self,
        app: App,
        requests: Mapping[str, type[BaseModel]],
        metrics: Metrics,
        max_concurrency: int,
        timeout_seconds: float,
    ) -> None:
        """Guard ``app``.

        Args:
            app: what answers.
            requests: for each path, what its body must be.
            metrics: where requests are counted.
            max_concurrency: with so many in work, a further one is answered with 429.
            timeout_seconds: after so long the answer is 504; the work itself counts as running until it ends.
        """
        self._app = app
        self._requests = requests
        self._metrics = metrics
        self._max_concurrency, self._timeout = max_concurrency, timeout_seconds
        self._work: set[asyncio.Future[None]] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let one request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        headers = [(name, value) for name, value in scope["headers"] if name != HEADER]
        scope = {**scope, "headers": [*headers, (HEADER, request_id)]}

        started, status = time.monotonic(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), (HEADER, request_id)]}
            await send(message)

        try:
            if scope["method"] in ("GET", "HEAD", "OPTIONS"):
                await self._app(scope, receive, send_with_id)
                return
            _check_content_type(scope)
            model = self._requests.get(scope["path"])
            if model is None:
                raise RefusedError(404, "there is no such endpoint; / lists them")
            body = await _read(receive)
            self._check_shape(model, body)
            await self._let_in(scope, _replay(body, receive), send_with_id)
        except RefusedError as refused:
            await _answer(refused, request_id.decode(), send_with_id)
        except DisconnectedError:
            return
        finally:
            self._metrics.observe(scope["path"], status, time.monotonic() - started)

    async def _let_in(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let the app work on one request, as long as there is room and time."""
        if len(self._work) >= self._max_concurrency:
            raise RefusedError(429, f"{self._max_concurrency} requests are in work; try again later")
        late = answered = good = False
        once_sent: list[Callable[[], None]] = []

        async def send_in_time(message: Message) -> None:
            nonlocal answered, good
            if late:
                return
            answered = True
            if message["type"] == "http.response.start":
                good = message["status"] == 200
            await send(message)
            if good and message["type"] == "http.response.body" and not message.get("more_body", False):
                for act in once_sent:
                    act()

        task = asyncio.ensure_future(self._app({**scope, SENT: once_sent}, receive, send_in_time))
        self._work.add(task)
        self._metrics.running.set(len(self._work))
        task.add_done_callback(self._finished)
        await asyncio.wait({task}, timeout=self._timeout)
        if task.done():
            task.result()
        elif answered:
            await task  # the answer is on its way
        else:
            late = True  # what is computed meanwhile cannot be stopped, and is thrown away
            raise RefusedError(504, f"there was no answer within {self._timeout:g} seconds")

    def _finished(self, task: "asyncio.Future[None]") -> None:
        self._work.discard(task)
        self._metrics.running.set(len(self._work))
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not print it

    def _check_shape(self, model: type[BaseModel], body: bytes) -> None:
        try:
            model.model_validate_json(body)
        except ValidationError as error:
            if error.errors(include_input=False, include_context=False)[0]["type"] == "json_invalid":
                raise RefusedError(400, "the body is not JSON in UTF-8") from None
            detail = _problems(error, model)
            raise RefusedError(422, f"{detail[0].field}: {detail[0].problem}", detail) from None


def _request_id(scope: Message) -> bytes:
    given = next((value for name, value in scope["headers"] if name == HEADER), b"")
    return given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4()).encode()


def _check_content_type(scope: Message) -> None:
    given = [value for name, value in scope["headers"] if name == b"content-type"]
    if len(given) != 1 or given[0].split(b";")[0].strip().lower() != b"application/json":
        raise RefusedError(415, "the content type must be application/json")


async def _read(receive: Receive) -> bytes:
    """Return the body, of at most ``MAX_BODY_BYTES``, however it is chunked."""
    pieces: list[bytes] = []
    size, more = 0, True
    while more and size <= MAX_DISCARDED_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        piece, more = message.get("body", b""), message.get("more_body", False)
        size += len(piece)
        if size <= MAX_BODY_BYTES:
            pieces.append(piece)
        else:
            pieces.clear()
    if size > MAX_BODY_BYTES:
        raise RefusedError(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    return b"".join(pieces)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives ``body`` once and then whatever comes next, a disconnect."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay


def _field(place: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Say which fields are wrong and why, in our words and the limits' numbers only."""
    problems = []
    for item in error.errors(include_url=False, include_input=False, include_context=False)[:MAX_PROBLEMS]:
        if item["type"] == "extra_forbidden":  # the key's name is the sender's: it is not repeated
            inside = _field(item["loc"][:-1])
            known = "/docs.json lists the known ones" if inside else f"known: {', '.join(model.model_fields)}"
            where = inside or "the body"
            problems.append(Problem(field="(unknown key)", problem=f"{where} has an unknown key; {known}"))
            continue
        field = _field(item["loc"])
        problems.append(Problem(field=field or "body", problem=item["msg"]))
    return problems


async def _answer(refused: RefusedError, request_id: str, send: Send) -> None:
    answer = ErrorResponse(error=refused.error, detail=refused.detail, request_id=request_id)
    body = answer.model_dump_json().encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 429:
        headers.append((b"retry-after", str(RETRY_SECONDS).encode()))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
