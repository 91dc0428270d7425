"""Checkpoints of pre-training: everything that a run needs to go on, refused where they do not fit."""

import json
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aftersales.core.errors import ModelError
from aftersales.core.files import atomic_folder, write_json

# Keys that may change between a checkpoint and its continuation: they only say where and how long.
FREE_KEYS = {"out", "steps", "decay", "threads", "checkpoint_every"}


@dataclass
class Training:
    """What changes while training: the next step, the smoothed loss and its curve as (step, loss)."""

    step: int = 0
    loss: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)


def save_checkpoint(
    folder: Path,
    settings: dict[str, Any],
    fingerprint: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    training: Training,
) -> None:
    """Write model, optimizer and progress aside, then replace the last checkpoint.

    Raises:
        ModelError: it cannot be written, for example because the disk is full; the last one stays.
    """
    try:
        with atomic_folder(folder) as aside:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, aside / "state.pt")
            write_json(aside / "state.json", {**vars(training), "fingerprint": fingerprint, "config": settings})
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise ModelError(
            f"checkpoint {folder} cannot be written ({error}); the one before is kept: make room and run again"
        ) from None


def resume(
    folder: Path, settings: dict[str, Any], fingerprint: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Training:
    """Load the last checkpoint if there is one.

    Args:
        folder: of the checkpoint.
        settings: the run's configuration as JSON values.
        fingerprint: of its texts.
        model: receives the saved weights.
        optimizer: receives its saved state.

    Raises:
        ModelError: the checkpoint was made with other settings or texts; the differing keys are named.
    """
    if not folder.is_dir():
        return Training()
    saved = json.loads((folder / "state.json").read_text())
    before, now = saved["config"], deepcopy(settings)
    for one in (before, now):
        one["corpus"].pop("folder")  # the files may move
    differing = [key for key in now if key not in FREE_KEYS and before.get(key) != now[key]]
    if saved.get("fingerprint") != fingerprint:
        differing.append("corpus (its texts were changed)")
    if differing:
        raise ModelError(
            f"checkpoint {folder} was made with other values of {', '.join(differing)}: "
            "set them back, choose another `out`, or remove the checkpoint"
        )
    state = torch.load(folder / "state.pt", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return Training(saved["step"], saved["loss"], [(int(step), float(loss)) for step, loss in saved["curve"]])
