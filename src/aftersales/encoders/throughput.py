"""How much of a machine's arithmetic a training uses: model FLOPs utilisation (Chowdhery et al. 2022, appendix B)."""

import time
from dataclasses import dataclass

import torch
from torch import nn
from transformers import BertModel

from aftersales.encoders.precision import has_fast_bf16


@dataclass
class Work:
    """What the steps of one start did on all processes together: tokens that were read, FLOPs, and seconds."""

    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0


def linear_flops(module: nn.Module) -> float:
    """Return the FLOPs of one position forwards and backwards through all linear layers of a module.

    Two for each weight, and backwards twice as much.
    """
    return 6.0 * sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def flops_a_token(encoder: BertModel, length: int) -> float:
    """Return the FLOPs of one token forwards and backwards through the layers, without embeddings and heads.

    Attention costs, besides its weights, two FLOPs for each score and two for each sum.
    """
    config = encoder.config
    return linear_flops(encoder) + 12.0 * float(config.num_hidden_layers * length * config.hidden_size)


def peak_flops(device: torch.device, seconds: float = 1.0) -> float:
    """Measure the FLOP/s of matrix products on this machine, in 16 bits where training uses them."""
    # A GPU needs large products, and many in its queue, to be busy.
    size, together = (8192, 16) if device.type == "cuda" else (2048, 1)
    dtype = torch.bfloat16 if has_fast_bf16() else torch.float32
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    _multiply(left, right, 1)
    products, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        _multiply(left, right, together)
        products += together
    return products * 2 * size**3 / (time.monotonic() - started)


def _multiply(left: torch.Tensor, right: torch.Tensor, times: int) -> None:
    for _ in range(times):
        _ = left @ right
    if left.device.type == "cuda":
        torch.cuda.synchronize(left.device)
