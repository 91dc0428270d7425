"""What the service answers to good requests."""

import re
import uuid
from pathlib import Path

import psutil
import pytest
from tests.serving.conftest import Served
from tests.tiny_models import TASKS

from aftersales.runtime.classifier import Classifier
from aftersales.runtime.manifest import verify

TEXTS = ["快递三天没动静了", "衣服很好看，就是洗了一次有点掉色", "😡😡😡", "退", "空调什么时候来安装？" * 5]
ROUTES = {task: f"/v1/{task.replace('_', '-')}" for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_a_flat_body_is_answered_as_the_model_answers(served: Served, task: str) -> None:
    answer = served.post(ROUTES[task], {"texts": TEXTS, "top_k": 2})
    assert answer.status_code == 200
    body = answer.json()
    classifier = Classifier.load(served.models[task])
    for given, own in zip(body["results"], classifier.predict(TEXTS, top_k=2), strict=True):
        assert given["decision"] == own.decision
        assert [label["name"] for label in given["labels"]] == [label.name for label in own.labels]
        assert [label["score"] for label in given["labels"]] == pytest.approx([label.score for label in own.labels])
    assert body["model"] == {"name": task, "version": classifier.version, "data_version": f"data-of-{task}"}


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_is_answered_as_its_texts_alone(served: Served, task: str) -> None:
    together = served.post(ROUTES[task], {"texts": TEXTS}).json()["results"]
    alone = [served.post(ROUTES[task], {"texts": [text]}).json()["results"][0] for text in TEXTS]
    assert [one["labels"] for one in together] != [together[0]["labels"]] * len(TEXTS)
    for left, right in zip(together, alone, strict=True):
        assert [label["name"] for label in left["labels"]] == [label["name"] for label in right["labels"]]
        assert left["confidence"] == pytest.approx(right["confidence"], abs=1e-4)


def test_triage_is_every_classifier(served: Served) -> None:
    triage = served.post("/v1/triage", {"texts": TEXTS}).json()
    assert len(triage["results"]) == len(TEXTS)
    for task, route in ROUTES.items():
        own = served.post(route, {"texts": TEXTS}).json()
        assert triage["models"][task] == own["model"]
        assert [row[task] for row in triage["results"]] == own["results"]


def test_recommendations_follow_the_request(served: Served) -> None:
    everything = served.post(
        "/v1/recommend", {"history": ["P000", "P001", "gone"], "k": 100, "kind": None, "exclude_seen": True}
    ).json()
    ids = [item["item_id"] for item in everything["results"]]
    assert len(ids) == 30 and not {"P000", "P001"} & set(ids)
    assert (everything["reason"], everything["unknown"]) == ("history", ["gone"])
    assert everything["model"]["version"] == verify(served.models["recommendation"]).version
    seen = served.post("/v1/recommend", {"history": ["P000"], "k": 100}).json()
    assert "P000" in {item["item_id"] for item in seen["results"]}
    services = served.post("/v1/recommend", {"history": [], "k": 5, "kind": "service"}).json()
    assert {item["item_id"] for item in services["results"]} == {"S0", "S1"}
    assert services["reason"] == "popularity"
    assert len(served.post("/v1/recommend", {"history": [], "k": 3, "kind": None}).json()["results"]) == 3


def test_a_history_may_say_what_was_done_and_when(served: Served) -> None:
    plain = served.post("/v1/recommend", {"history": ["P001", "P000"]}).json()
    dated = [
        {"item_id": "P000", "kind": "buy", "timestamp": 1_700_000_000},
        {"item_id": "P001", "timestamp": 1_600_000_000},
    ]
    ago = [{"item_id": "P001", "kind": "buy", "days_ago": 20}, {"item_id": "P000", "days_ago": 0.5}]
    for body in ({"history": dated, "now": 1_700_000_900}, {"history": dated}, {"history": ago}):
        assert served.post("/v1/recommend", body).json()["results"] == plain["results"]
    views = served.post("/v1/recommend", {"history": [{"item_id": "P000", "kind": "view"}, {"item_id": "gone"}]}).json()
    assert (views["reason"], views["unknown"]) == ("popularity", ["gone"])


def test_the_limits_themselves_are_allowed(served: Served) -> None:
    texts = ["退" + "款" * 1999] * 64
    escaped = served.client.post(
        "/v1/sentiment",
        content='{"texts": ["' + '", "'.join("\\u9000" * 2000 for _ in texts) + '"]}',
        headers={"Content-Type": "application/json; charset=utf-8"},
    )
    assert escaped.status_code == 200
    assert len(served.post("/v1/sentiment", {"texts": texts}).json()["results"]) == 64


@pytest.mark.parametrize("given", ["order-20261111_1", "x" * 64])
def test_a_callers_request_id_is_returned(served: Served, given: str) -> None:
    answer = served.post("/v1/intent", {"texts": ["退款"]}, {"X-Request-ID": given})
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "a\tb", "é", "<script>"])
def test_any_other_request_id_is_replaced(served: Served, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given.encode()}
    answer = served.client.post("/v1/intent", json={"texts": ["退款"]}, headers=headers)  # type: ignore[arg-type]
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    assert uuid.UUID(answer.json()["request_id"])


def test_refusals_and_pages_have_a_request_id_too(served: Served) -> None:
    assert uuid.UUID(served.post("/v1/intent", {}).json()["request_id"])
    assert served.client.get("/", headers={"X-Request-ID": "p-1"}).headers["X-Request-ID"] == "p-1"


@pytest.mark.parametrize("path", ["/readyz", "/livez", "/healthz", "/metrics"])
def test_probes_answer(served: Served, path: str) -> None:
    assert served.client.get(path).status_code == 200


def test_the_page_loads_nothing_from_elsewhere(served: Served) -> None:
    page = served.client.get("/")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert parts and all(part.startswith("./") for part in parts)
    for part in parts:
        loaded = served.client.get(part.removeprefix("."))
        assert loaded.status_code == 200
    everything = page.text + served.client.get("/docs.js").text + served.client.get("/docs.json").text
    assert not re.findall(r"(?:https?:)?//[\w-]+\.\w+", everything)
    assert "validatorUrl: null" in everything, "else the page asks an outside validator"


def test_openapi_lists_every_endpoint_with_chinese_examples(served: Served) -> None:
    described = served.client.get("/docs.json").json()
    routes = {*ROUTES.values(), "/v1/triage", "/v1/recommend"}
    assert {path for path in described["paths"] if path.startswith("/v1/")} == routes
    for route in routes:
        post = described["paths"][route]["post"]
        request = post["requestBody"]["content"]["application/json"]
        answer = post["responses"]["200"]["content"]["application/json"]
        assert {"400", "413", "415", "422", "429", "504"} <= set(post["responses"])
        for content in (request, answer):
            assert content["schema"]["$ref"].rpartition("/")[2] in described["components"]["schemas"]
        assert re.search("[\u4e00-\u9fff]", str(request["example"]) + str(answer["example"]))
        assert served.post(route, request["example"]).json().keys() == answer["example"].keys()


def test_the_server_holds_no_training_library_and_little_memory(served: Served) -> None:
    port = int(served.url.rpartition(":")[2])
    family = [
        process
        for process in psutil.Process().children(recursive=True)
        if served.tag in (line := process.cmdline()) and (str(port) in line or "--fd" in line)
    ]
    assert len(family) == 2, "BentoML's supervisor and one worker"
    for process in family:
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "onnxruntime" in maps
        assert "libtorch" not in maps
    assert sum(process.memory_info().rss for process in family) < 600e6


def test_the_bento_holds_its_own_code_and_no_training_code(served: Served) -> None:
    assert {path.name for path in (served.source / "aftersales").iterdir()} == {
        "__init__.py",
        "core",
        "text",
        "runtime",
    }
    requirements = (served.source.parent / "env" / "python" / "requirements.txt").read_text()
    for name in ("bentoml", "onnxruntime", "tokenizers", "numpy", "pydantic", "PyYAML"):
        assert re.search(rf"^{name}==[\d.]+$", requirements, re.MULTILINE), name
    assert "torch" not in requirements
