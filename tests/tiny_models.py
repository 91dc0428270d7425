"""Tiny real models: random weights, but exported, sealed and loaded as trained ones are."""

import warnings
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from aftersales.corpora.interactions import Event, Interactions, Item
from aftersales.encoders.tokenizer import train_tokenizer
from aftersales.recommenders.popularity import Popularity
from aftersales.runtime.manifest import seal
from aftersales.runtime.settings import GRAPH, InferenceSettings, LabelInfo

SENTENCES = ["快递三天没动静了", "衣服很好看，质量不错", "再不发货就退款", "空调什么时候来安装？", "客服态度很差！"] * 4
TASKS = {
    "intent": ["urge_dispatch", "refund", "installation", "out_of_scope"],
    "sentiment": ["negative", "neutral", "positive"],
    "complaint_cause": ["slow", "defect", "rude", "fee"],
}


def tiny_classifier(folder: Path, task: str, labels: list[str]) -> Path:
    """Write a model folder with random weights: two layers of 32, a tokenizer of single characters."""
    folder.mkdir(parents=True)
    tokenizer = train_tokenizer(iter(SENTENCES), vocabulary_size=1400, max_length=64)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(len(task))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=len(labels),
        initializer_range=0.5,
        attn_implementation="eager",
    )
    export_graph(BertForSequenceClassification(config).eval(), folder / GRAPH)
    InferenceSettings(
        task=task,
        task_version=1,
        data_fingerprint=f"data-of-{task}",
        kind="multi_label" if task == "complaint_cause" else "single_label",
        labels=[LabelInfo(name=label, zh=f"中文{place}") for place, label in enumerate(labels)],
        max_tokens=64,
        answer_threshold=0.7,
        clarify_threshold=0.4,
        out_of_scope="out_of_scope" if "out_of_scope" in labels else None,
    ).write(folder)
    seal(folder, "classifier", task)
    return folder


class Logits(torch.nn.Module):
    """The part of a classifier that is exported."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the logits, of shape (batch, labels)."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]


def export_graph(model: torch.nn.Module, path: Path) -> None:
    """Write ``model`` as ONNX with any number of texts of any length."""
    ids = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]])
    axes = {0: "batch", 1: "length"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits(model).eval(),
            (ids, (ids > 0).long()),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def tiny_recommender(folder: Path, backwards: bool = False) -> Path:
    """Write the folder of a recommender that has seen thirty products and two services, by popularity.

    Products cost 1 to 30 yuan; the first ones are the most popular, or the last ones where it looks ``backwards``.
    """
    items = [
        Item(f"P{number:03d}", f"手机壳 {number}号", "手机配件", number + 1.0, product_type="手机壳", brand="乐途星")
        for number in range(30)
    ]
    items += [Item(f"S{number}", f"延长保修 {number} 年", "售后服务", kind="service") for number in range(2)]
    events = [
        Event(f"u{user}", item.item_id, "buy", 1_700_000_000 + 100 * user + place)
        for user in range(6)
        for place, item in enumerate(items[::-1][user::2] if backwards else items[user::2])
    ]
    Popularity.from_options({}).fit(Interactions.of(items, events)).export(folder)
    seal(folder, "recommender", "recommendation")
    return folder
