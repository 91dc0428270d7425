"""Which precision is fast on this machine."""

import torch


def has_fast_bf16() -> bool:
    """Whether 16-bit brain floats are faster than 32-bit ones here: a GPU that has them, or a CPU with AMX."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported())
