"""What every request passes before BentoML sees it: request id, content type, size, and the request's shape.

BentoML would read any content type (a pickle among them), any length, and print the traceback of every bad request.
"""

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from pydantic import BaseModel, ValidationError

from aftersales.runtime.protocol import MAX_BODY_BYTES, REQUEST_ID, ErrorResponse, Problem

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

HEADER = b"x-request-id"
# Of a body that is too long this much is read and thrown away, so that an honest client sees the 413.
MAX_DISCARDED_BYTES = 8 * MAX_BODY_BYTES
MAX_PROBLEMS = 8

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

    def __init__(self, app: App, requests: Mapping[str, type[BaseModel]]) -> None:
        """Guard ``app``; ``requests`` says for each path what its body must be."""
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let one request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        headers = [(name, value) for name, value in scope["headers"] if name != HEADER]
        scope = {**scope, "headers": [*headers, (HEADER, request_id)]}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (HEADER, request_id)]}
            await send(message)

        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send_with_id)
            return
        try:
            _check_content_type(scope)
            body = await _read(receive)
            self._check_shape(scope["path"], body)
        except RefusedError as refused:
            await _answer(refused, request_id.decode(), send_with_id)
        except DisconnectedError:
            return
        else:
            await self._app(scope, _replay(body, receive), send_with_id)

    def _check_shape(self, path: str, body: bytes) -> None:
        model = self._requests.get(path)
        if model is None:
            return  # BentoML answers 404
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


def _problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Say which fields are wrong and why, in our words and the limits' numbers only."""
    problems = []
    for item in error.errors(include_url=False, include_input=False, include_context=False)[:MAX_PROBLEMS]:
        if item["type"] == "extra_forbidden":  # the key's name is the sender's: it is not repeated
            known = ", ".join(model.model_fields)
            problems.append(Problem(field="(unknown key)", problem=f"the body has an unknown key; known: {known}"))
            continue
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
        problems.append(Problem(field=field or "body", problem=item["msg"]))
    return problems


async def _answer(refused: RefusedError, request_id: str, send: Send) -> None:
    answer = ErrorResponse(error=refused.error, detail=refused.detail, request_id=request_id)
    body = answer.model_dump_json().encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
