"""Fine-tuning itself: what a recipe's settings do to the trained model."""

import numpy as np
import pytest
from transformers import AutoModel

from aftersales.classifiers.fit import FitConfig, fit

TEXTS = ["退货退回去", "发票抬头税号", "快递物流包裹", "退货 3 号", "发票 4 号", "快递 5 号"]
GOLD = np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2]]


def fitted(tiny_encoder, work, **settings):
    config = FitConfig(encoder=str(tiny_encoder), epochs=2, batch_size=2, max_tokens=16, dropout=0.0, **settings)
    return fit(config, (TEXTS, GOLD), (TEXTS, GOLD), ["a", "b", "c"], False, work)


def test_scores_come_in_the_order_of_the_texts(tiny_encoder, tmp_path):
    model = fitted(tiny_encoder, tmp_path)
    texts = ["退", "一条很长很长的消息" * 5, "快递"]
    alone = np.concatenate([model.logits([text]) for text in texts])
    assert model.logits(texts) == pytest.approx(alone, abs=1e-4)


def test_adversarial_steps_change_what_is_learned_and_are_taken_back(tiny_encoder, tmp_path):
    plain, moved = (
        fitted(tiny_encoder, tmp_path / str(step), adversarial=step, learning_rate=1e-3) for step in (0.0, 1.0)
    )
    assert np.abs(plain.logits(TEXTS) - moved.logits(TEXTS)).max() > 1e-3
    still = fitted(tiny_encoder, tmp_path / "still", adversarial=1.0, learning_rate=1e-12, weight_decay=0.0)
    before = AutoModel.from_pretrained(tiny_encoder).get_input_embeddings().weight
    after = still.model.get_input_embeddings().weight
    assert (after - before).abs().max().item() < 1e-4
