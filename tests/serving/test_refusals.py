"""What the service answers to bad requests, and that neither answer nor log repeats them."""

import json
import re
import time

import httpx
import pytest
from tests.serving.conftest import Served

MARKER = "机密13800138000秘密"
JSON = {"Content-Type": "application/json"}
ROUTES = ["/v1/intent", "/v1/sentiment", "/v1/complaint-cause", "/v1/triage", "/v1/recommend"]


def raw(served: Served, content: bytes, headers: dict[str, str], path: str = "/v1/intent") -> httpx.Response:
    return served.client.post(path, content=content, headers=headers)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"texts": [""]}, r"texts\[0\].*at least 1 "),
        ({"texts": ["好", " \u200b\n"]}, r"texts\[1\].*empty"),
        ({"texts": ["好", MARKER * 150]}, r"texts\[1\].*at most 2000 "),
        ({"texts": [MARKER] * 65}, "texts.*at most 64 "),
        ({"texts": []}, "texts.*at least 1 "),
        ({"texts": MARKER}, "texts.*array"),
        ({"texts": [7]}, r"texts\[0\].*string"),
        ({"texts": None}, "texts.*array"),
        ({"texts": [{"a": MARKER}]}, r"texts\[0\].*string"),
        ({"texts": ["好"], "top_k": MARKER}, "top_k.*integer"),
        ({"texts": ["好"], "top_k": 0}, "top_k.*greater than or equal to 1"),
        ({"texts": ["好"], "top_k": 51}, "top_k.*less than or equal to 50"),
        ({"texts": ["好"], MARKER: 1}, "unknown key; known: texts, top_k"),
        ({}, "texts.*required"),
        ([MARKER], "body"),
        (MARKER, "body"),
        ({"req": {"texts": ["好"]}}, "texts.*required"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/intent", "/v1/triage"])
def test_a_bad_text_request_is_refused_by_field_and_limit(served: Served, path: str, body: object, named: str) -> None:
    answer = served.post(path, body)
    assert answer.status_code == 422
    assert re.search(named, answer.json()["error"])
    assert answer.json()["detail"]
    assert MARKER[:4] not in answer.text


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"history": ["x" * 65]}, r"history\[0\].*at most 64 "),
        ({"history": [MARKER] * 1001}, "history.*at most 1000 "),
        ({"history": [], "k": 101}, "k: .*100"),
        ({"history": [], "kind": MARKER}, "kind.*'product' or 'service'"),
        ({"history": [], "exclude_seen": "yes"}, "exclude_seen.*boolean"),
        ({"texts": ["好"]}, "the body has an unknown key; known: user_id, history"),
        ({"history": [7]}, r"history\[0\].*object"),
        ({"history": [{"kind": "buy"}]}, r"history\[0\].*item_id.*required"),
        ({"history": [{"item_id": "P000", "kind": MARKER}]}, r"history\[0\].*kind.*'view', 'cart'"),
        ({"history": [{"item_id": "P000", "days_ago": -1}]}, r"history\[0\].*days_ago.*greater than or equal to 0"),
        (
            {"history": [{"item_id": "P0", "timestamp": 1_700_000_000_000}]},
            "timestamp.*less than or equal to 410",
        ),
        ({"history": [{"item_id": "P000", "timestamp": 1, "days_ago": 1}]}, "either timestamp or days_ago"),
        ({"history": ["P000", {"item_id": "P000", "days_ago": 1}]}, "some has none; give all or none"),
        ({"history": [{"item_id": "P000", MARKER: 1}]}, r"history\[0\].* has an unknown key; /docs.json lists"),
        ({"history": [], "now": "today"}, "now.*integer"),
    ],
)
def test_a_bad_recommendation_request_is_refused(served: Served, body: object, named: str) -> None:
    answer = served.post("/v1/recommend", body)
    assert answer.status_code == 422
    assert re.search(named, " ".join(f"{one['field']}: {one['problem']}" for one in answer.json()["detail"]))
    assert MARKER[:4] not in answer.text


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        f'{{"texts": ["{MARKER}"'.encode(),
        f'{{"texts": ["{MARKER}"]}}'.encode("gb18030"),
        b'{"texts": ["\\ud800"]}',
        b"[" * 5000,
        b'{"texts": ["\xff"]}',
    ],
)
def test_broken_json_is_refused(served: Served, path: str, content: bytes) -> None:
    answer = raw(served, content, JSON, path)
    assert answer.status_code == 400
    assert MARKER[:4] not in answer.text


@pytest.mark.parametrize("path", [*ROUTES, "/", "/readyz", "/nowhere"])
@pytest.mark.parametrize(
    "content_type",
    [
        "application/vnd.bentoml+pickle",
        "Application/vnd.BentoML+Pickle; a=b",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "text/plain",
        "",
        None,
    ],
)
def test_only_json_is_read(served: Served, path: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert raw(served, b'{"texts": ["a"]}', headers, path).status_code == 415


def test_two_content_types_are_refused(served: Served) -> None:
    both = [("Content-Type", "application/json"), ("Content-Type", "application/vnd.bentoml+pickle")]
    for headers in (both, both[::-1]):
        assert served.client.post("/v1/intent", content=b"{}", headers=headers).status_code == 415


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_of_three_megabytes_is_refused(served: Served, path: str) -> None:
    body = json.dumps({"texts": [MARKER * 100_000]}).encode()
    assert len(body) > 3_000_000
    started = time.monotonic()
    whole = raw(served, body, JSON, path)
    pieces = (body[at : at + 65_536] for at in range(0, len(body), 65_536))
    chunked = served.client.post(path, content=pieces, headers=JSON)
    for answer in (whole, chunked):
        assert answer.status_code == 413
        assert "2097152" in answer.json()["error"]
    assert time.monotonic() - started < 5


def test_another_method_or_path_is_refused(served: Served) -> None:
    assert served.client.get("/v1/intent").status_code == 405
    for path in ("/v1/nothing", "/v1/intent%0A", "/v1/intent/"):
        answer = served.post(path, {"texts": [7], MARKER: 1})
        assert answer.status_code == 404 and answer.json()["request_id"] and MARKER not in answer.text


def test_the_figures_name_no_path_of_a_client(served: Served) -> None:
    for number in range(50):
        served.client.get(f"/scan{number}")
    served.post("/v1/intent", {"texts": ["退款"]})
    figures = served.client.get("/metrics").text
    assert "scan" not in figures and len(figures) < 20_000
    assert 'aftersales_requests_total{endpoint="/v1/intent",status="200"}' in figures
    assert 'aftersales_requests_total{endpoint="other",status="404"}' in figures


def test_characters_that_stand_for_many_cost_no_more(served: Served) -> None:
    started = time.monotonic()
    for character in "\ufdfa", "\u3316":
        assert served.post("/v1/intent", {"texts": [character * 2000] * 64}).status_code == 422
    assert time.monotonic() - started < 3


def test_the_log_is_of_one_line_a_request_and_holds_nothing_of_it(served: Served) -> None:
    forged = "2026-11-22 forged"
    served.client.get("/%0A" + forged)
    served.client.post("/v1/intent", content=b"{}", headers={"Content-Type": MARKER.encode()})  # type: ignore[dict-item]
    served.post("/v1/intent", {"texts": [MARKER * 1000]})
    served.post("/v1/intent", {"texts": [MARKER]})
    deadline = time.monotonic() + 5
    while "forged" not in (log := served.log.read_text("utf-8")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "path=/v1/intent" in log
    assert MARKER[:2] not in log and "13800138000" not in log
    assert not [line for line in log.splitlines() if line.startswith(forged)]
    assert "Traceback" not in log
