"""How much of a machine's arithmetic a training uses: model FLOPs utilisation (Chowdhery et al. 2022, appendix B)."""

import time

import torch
from torch import nn
from transformers import BertModel

PEAK_SIZE = 2048


def flops_a_token(encoder: BertModel, length: int) -> float:
    """Return the FLOPs of one token forwards and backwards through the layers, without embeddings and heads.

    Two for each multiplied weight, and as many for attention scores and their sums; backwards costs twice as much.
    """
    weights = sum(layer.weight.numel() for layer in encoder.modules() if isinstance(layer, nn.Linear))
    config = encoder.config
    attention = 2 * config.num_hidden_layers * length * config.hidden_size
    return 3.0 * (2 * weights + 2 * float(attention))


def peak_flops(device: torch.device, seconds: float = 1.0) -> float:
    """Measure the FLOP/s of 16-bit matrix products of 2048 x 2048 on this machine."""
    left, right = (torch.randn(PEAK_SIZE, PEAK_SIZE, device=device).bfloat16() for _ in range(2))
    _ = left @ right
    products, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        _ = left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        products += 1
    return products * 2 * PEAK_SIZE**3 / (time.monotonic() - started)
