"""Packaging and starting: what is refused, and what the log may say of an error."""

import asyncio
import json
import logging
import shutil
from pathlib import Path

import pytest
from serving.contents import Contents
from serving.door import SENT, Door, Message, Receive, Send
from serving.launch import running_bento
from serving.logs import WithholdTexts
from serving.metrics import Metrics
from serving.package import build_bento
from serving.settings import ALLOWED_ITEMS, LOG
from tests.serving.conftest import Served

from aftersales.core.errors import ConfigError, ModelError
from aftersales.runtime.manifest import seal
from aftersales.runtime.protocol import ScoreRequest


def stored(served: Served, name: str) -> Path:
    return next((served.home / "models" / f"aftersales-{name}").glob("*/model"))


def test_an_altered_model_ends_the_start_by_its_name(served: Served) -> None:
    file = stored(served, "sentiment") / "tokenizer.json"
    intact = file.read_bytes()
    file.write_bytes(intact + b" ")
    try:
        with pytest.raises(ModelError, match="did not start") as failed, running_bento(served.tag):
            pytest.fail("it started")
    finally:
        file.write_bytes(intact)
    assert "tokenizer.json is corrupt or was altered" in str(failed.value)
    assert "Traceback" not in str(failed.value)


@pytest.mark.parametrize("variable", [ALLOWED_ITEMS, LOG])
def test_a_setting_that_is_wrong_ends_the_start_by_its_name(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "no folder" / "file"))
    with pytest.raises(ModelError, match="did not start") as failed, running_bento(served.tag):
        pytest.fail("it started")
    assert f"the service does not start: {variable}: " in str(failed.value)
    assert "Traceback" not in str(failed.value)


def test_a_missing_model_ends_the_start_by_its_name(served: Served, tmp_path: Path) -> None:
    folder = stored(served, "intent").parent
    shutil.move(folder, tmp_path / "away")
    try:
        with pytest.raises(ModelError, match="did not start") as failed, running_bento(served.tag):
            pytest.fail("it started")
    finally:
        shutil.move(tmp_path / "away", folder)
    assert "aftersales-intent" in str(failed.value)


def test_a_model_sealed_anew_is_not_the_one_that_was_packaged(served: Served, tmp_path: Path) -> None:
    contents = Contents.read(served.source / "serving")
    shutil.copytree(stored(served, "intent"), tmp_path / "model")
    assert contents.classifiers[0].check(tmp_path) == tmp_path / "model"
    (tmp_path / "model" / "inference.json").write_text("{}")
    seal(tmp_path / "model", "classifier", "intent")
    with pytest.raises(ModelError, match="was packaged"):
        contents.classifiers[0].check(tmp_path)


def test_packaging_the_same_models_again_mends_the_store(served: Served) -> None:
    file = stored(served, "intent") / "tokenizer.json"
    file.write_bytes(b"spoilt")
    again = build_bento({"intent": served.models["intent"]})
    assert again != served.tag
    assert file.read_bytes() == (served.models["intent"] / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ["sentiment", "triage"])
def test_a_model_is_packaged_under_its_own_name_only(served: Served, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be packaged"):
        build_bento({name: served.models["intent"]})


def test_nothing_is_no_bento() -> None:
    with pytest.raises(ModelError, match="no model"):
        build_bento({})


def test_a_taken_port_is_said(served: Served) -> None:
    port = int(served.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"port {port} is taken"), running_bento(served.tag, port=port):
        pytest.fail("it started")


def test_an_unknown_bento_is_said(served: Served) -> None:
    with pytest.raises(ModelError, match="did not start"), running_bento("aftersales-scoring:none"):
        pytest.fail("it started")


def test_an_exception_is_logged_without_its_message() -> None:
    secret = "机" + "密"  # the traceback shows lines of code, which hold no customer's words

    def record(error: Exception) -> str:
        try:
            try:
                raise ValueError(secret)
            except ValueError as inner:
                raise error from inner
        except Exception as caught:
            logged = logging.LogRecord(
                "x", logging.ERROR, __file__, 1, "on %s", ("/a\nb\x1b[0m",), (type(caught), caught, None)
            )
        assert WithholdTexts().filter(logged)
        return logging.Formatter().format(logged)

    withheld = record(RuntimeError(secret))
    assert secret not in withheld
    assert "ValueError" in withheld and "RuntimeError" in withheld and "test_start.py" in withheld
    assert "on /a\\nb\\x1b[0m" in withheld
    assert "model.onnx is altered" in record(ModelError("model.onnx is altered"))


def test_overload_and_delay_are_answered_in_the_shape_of_every_refusal() -> None:
    async def slow(scope: Message, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.4)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(door: Door) -> tuple[int, dict[bytes, bytes], dict[str, object]]:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b'{"texts": ["a"]}', "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/x", "headers": [(b"content-type", b"application/json")]}
        await door(scope, receive, send)
        assert len(sent) == 2, "what comes too late is thrown away"
        return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"] or b"{}")

    async def everything() -> None:
        metrics = Metrics(["/x"])
        patient = Door(slow, {"/x": ScoreRequest}, metrics, max_concurrency=2, timeout_seconds=5)
        answers = await asyncio.gather(*(ask(patient) for _ in range(3)))
        assert sorted(status for status, *_ in answers) == [200, 200, 429]
        _, headers, body = next(answer for answer in answers if answer[0] == 429)
        assert headers[b"retry-after"] == b"1" and body["request_id"] == headers[b"x-request-id"].decode()
        hasty = Door(slow, {"/x": ScoreRequest}, metrics, max_concurrency=1, timeout_seconds=0.05)
        status, _, body = await ask(hasty)
        assert status == 504 and body["request_id"]
        assert (await ask(hasty))[0] == 429, "what still computes counts"
        await asyncio.sleep(0.5)
        assert (await ask(hasty))[0] == 504

    asyncio.run(everything())


def test_what_waits_for_an_answer_is_done_once_it_is_sent_and_good() -> None:
    done = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        request = await receive()
        text, status, seconds = json.loads(request["body"])["texts"]
        scope[SENT].append(lambda: done.append(text))
        await asyncio.sleep(float(seconds))
        await send({"type": "http.response.start", "status": int(status), "headers": []})
        assert text not in done
        await send({"type": "http.response.body", "body": b""})

    async def ask(door: Door, *texts: str) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": json.dumps({"texts": texts}).encode(), "more_body": False}

        async def send(message: Message) -> None:
            pass

        scope = {"type": "http", "method": "POST", "path": "/x", "headers": [(b"content-type", b"application/json")]}
        await door(scope, receive, send)

    async def everything() -> None:
        door = Door(app, {"/x": ScoreRequest}, Metrics(["/x"]), max_concurrency=9, timeout_seconds=0.1)
        for texts in (("good", "200", "0"), ("failed", "500", "0"), ("late", "200", "0.3")):
            await ask(door, *texts)
        await asyncio.sleep(0.5)

    asyncio.run(everything())
    assert done == ["good"]


def test_the_door_lets_other_protocols_through() -> None:
    seen = []

    async def app(scope: object, receive: object, send: object) -> None:
        seen.append(scope)

    door = Door(app, {}, Metrics([]), max_concurrency=1, timeout_seconds=1)
    with pytest.raises(StopIteration):
        door({"type": "lifespan"}, None, None).send(None)  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}]
