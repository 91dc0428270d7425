"""Score texts with an exported classifier: one tokenizer, one graph, batches of like length."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from aftersales.core.errors import ModelError
from aftersales.runtime.decision import Prediction, decide
from aftersales.runtime.graph import open_graph
from aftersales.runtime.lexical import Lexical
from aftersales.runtime.manifest import verify
from aftersales.runtime.settings import GRAPH, InferenceSettings
from aftersales.text.normalise import normalise

# Padded tokens a batch: enough to fill the cores with 512 messages of 8 tokens, small enough for 32 of 128.
TOKEN_BUDGET = 4096


class Classifier:
    """An exported classifier, ready to score. It imports neither torch nor any training code."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Verify and load the model in ``folder``; prefer ``Classifier.load``."""
        self.manifest = verify(folder, kind="classifier")
        self.settings = InferenceSettings.read(folder)
        self._tokenizer = self._load_tokenizer(folder / "tokenizer.json")
        self._session = open_graph(folder / GRAPH, threads)
        self._lexical = Lexical.read(folder) if self.settings.lexical_weight else None
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._check_widths(folder)

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> "Classifier":
        """Verify every file against the manifest and open the graph.

        Args:
            folder: a model folder as ``aftersales train`` writes it.
            threads: threads of one forward pass.

        Raises:
            ModelError: a file is missing, altered, unknown or unreadable.
        """
        return cls(folder, threads)

    @property
    def version(self) -> str:
        """The short name of exactly these files."""
        return self.manifest.version

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return uncalibrated scores, float32 of shape (texts, labels), in the order of ``texts``."""
        scores = self._encoder_logits(texts)
        if self._lexical is not None:
            scores += self.settings.lexical_weight * self._lexical.scores(texts)
        return scores

    def _encoder_logits(self, texts: Sequence[str]) -> np.ndarray:
        out = np.empty((len(texts), len(self.settings.labels)), dtype=np.float32)
        encoded = self._tokenizer.encode_batch([normalise(text) for text in texts])
        ids = [encoding.ids for encoding in encoded]
        for chosen in _batches([len(one) for one in ids]):
            longest = max(len(ids[row]) for row in chosen)
            tokens = np.zeros((len(chosen), longest), dtype=np.int64)
            mask = np.zeros_like(tokens)
            for place, row in enumerate(chosen):
                tokens[place, : len(ids[row])] = ids[row]
                mask[place, : len(ids[row])] = 1
            feeds = {"input_ids": tokens, "attention_mask": mask}
            out[chosen] = self._session.run(None, {name: feeds[name] for name in self._inputs})[0]
        return out

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return calibrated probabilities, float32 of shape (texts, labels)."""
        return calibrated(self.logits(texts), self.settings.temperature, self.settings.kind == "multi_label")

    def predict(self, texts: Sequence[str], top_k: int = 3) -> list[Prediction]:
        """Return for each text its ranked labels and the decision that follows."""
        if not texts:
            return []
        return [decide(row, self.settings, top_k) for row in self.probabilities(texts)]

    def _check_widths(self, folder: Path) -> None:
        ids = np.zeros((1, 2), dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        widths = {"graph": self._session.run(None, {name: feeds[name] for name in self._inputs})[0].shape[1]}
        if self._lexical is not None:
            widths["lexical half"] = self._lexical.scores([""]).shape[1]
        for part, width in widths.items():
            if width != len(self.settings.labels):
                raise ModelError(
                    f"{folder}: the {part} scores {width} labels and inference.json lists {len(self.settings.labels)}; "
                    "export the model again"
                )

    def _load_tokenizer(self, path: Path) -> Tokenizer:
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}; export the model again") from None
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.settings.max_tokens)
        return tokenizer


def calibrated(logits: np.ndarray, temperature: float, multi_label: bool) -> np.ndarray:
    """Turn logits of shape (rows, labels) into probabilities: sigmoid for multi-label, else softmax."""
    scaled = logits / temperature
    if multi_label:
        return np.asarray(1 / (1 + np.exp(-scaled)), dtype=np.float32)
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield row numbers, longest first, so that no padded batch exceeds the token budget."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = max(1, TOKEN_BUDGET // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
