"""The whole loop on the shipped corpora: train, track, choose, package, serve, score. Launch: make demo"""

import http.client
import json
import resource
import time
from http import HTTPStatus
from typing import Any

from aftersales.cli.service import build_bento
from aftersales.cli.training import run_recipe
from aftersales.core.paths import load_script, project_root
from aftersales.tracking.gate import GateRefused, promote
from aftersales.tracking.outcome import Outcome
from aftersales.tracking.registry import Champion, champion

CONFIGS = ("intent", "sentiment", "complaint_cause", "recommend")
MESSAGES = (
    "快递三天没动静了，再不发货就退款",
    "衣服颜色跟图片差太多，客服还爱理不理的，真是服了",
    "师傅装得又快又仔细，给个大大的赞👍",
    "洗衣机刚用一周就漏水，你们说上门修，等了五天没人来",
    "今晚吃什么好呢",
)


def main(keep_serving: bool = False) -> None:
    """Run every step and print what came of it."""
    started = time.monotonic()
    outcomes = []
    for name in CONFIGS:
        print(f"\n== train {name}", flush=True)
        outcome: Outcome = run_recipe(project_root() / "configs" / f"{name}.yaml", ())
        outcomes.append(outcome)
        try:
            print(promote(outcome.run_id).report())
        except GateRefused as refusal:
            print(refusal)  # below its floor, or a second demo, whose equal model does not beat the first

    print("\n== package and serve", flush=True)
    champions = {outcome.task: champion(outcome.task) for outcome in outcomes}
    folders = {task: found.folder for task, found in champions.items() if found is not None}
    tag = build_bento(folders)
    with load_script("serving/launch.py").running_bento(tag) as address:
        print(f"{tag} answers at {address}\n")
        if folders.keys() - {"recommendation"}:
            _print_messages(_post(address, "triage", {"texts": list(MESSAGES)}))
        if "recommendation" in folders:
            items = _some_items(folders["recommendation"])
            _print_recommendations(items, _post(address, "recommend", {"history": items, "k": 3}))
    _print_models(outcomes, champions)
    # Children are the service and the build; both peaks count, since they do not fall together.
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(f"\n{time.monotonic() - started:.0f} seconds, peak memory {peak:,.0f} MiB")
    print("look at the runs:   .venv/bin/aftersales ui")
    print(f"serve the models:   .venv/bin/aftersales serve {tag}")
    print('score a message:    .venv/bin/aftersales score "快递三天没动静了，再不发货就退款"')
    if keep_serving:
        load_script("serving/launch.py").serve(tag, "127.0.0.1", 3000)


def _post(address: str, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    connection.request("POST", f"/v1/{endpoint}", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer: dict[str, Any] = json.load(response)
    if response.status != HTTPStatus.OK:
        raise RuntimeError(f"/v1/{endpoint} answered {response.status}: {answer}")
    return answer


def _some_items(folder: Any) -> list[str]:
    """Return the ids of three products of one category, as somebody's history."""
    items = json.loads((folder / "items.json").read_text(encoding="utf-8"))
    products = [item for item in items if item["kind"] == "product"]
    return [item["item_id"] for item in products if item["category"] == products[0]["category"]][:3]


def _print_messages(answer: dict[str, Any]) -> None:
    print("scored messages")
    for message, result in zip(MESSAGES, answer["results"], strict=True):
        print(f"  {message}")
        for task, found in result.items():
            single = task != "complaint_cause"
            shown = found["labels"][:1] if single else found["labels"]
            labels = "、".join(f"{label['zh']} {label['score']:.2f}" for label in shown) or "无"
            print(f"    {task:<16} {found['decision']:<8} {labels}")


def _print_recommendations(history: list[str], answer: dict[str, Any]) -> None:
    found = "、".join(str(one["title"]) for one in answer["results"])
    print(f"recommended after {', '.join(history)}: {found}")


def _print_models(outcomes: list[Outcome], champions: dict[str, Champion | None]) -> None:
    """Print the table; a model that the gate refused, and that has no predecessor, is not served."""
    print(f"\n{'model':<16} {'metric':<9} {'figure [95 % interval]':<21} {'floor':<21} {'seconds':>7}  champion")
    for outcome in outcomes:
        found = champions[outcome.task]
        version = f"version {found.version}" if found else "none: refused by the gate"
        row = f"{outcome.task:<16} {outcome.metric:<9} {outcome.figure:<21} {outcome.floor:<21} {outcome.seconds:>7.0f}"
        print(f"{row}  {version}")
