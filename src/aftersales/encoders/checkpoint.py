"""Checkpoints of pre-training: everything that a run needs to go on, refused where they do not fit."""

import json
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


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its state, and what makes it this run.

    Attributes:
        folder: of the state; replaced as a whole.
        settings: the run's configuration as JSON values.
        learned_from: fingerprints of what the run learns from, by the key that names it.
    """

    folder: Path
    settings: dict[str, Any]
    learned_from: dict[str, str]

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, training: Training) -> None:
        """Write model, optimizer and progress aside, then replace the last checkpoint.

        Raises:
            ModelError: it cannot be written, for example because the disk is full; the last one stays.
        """
        state = {**vars(training), "learned_from": self.learned_from, "config": self.settings}
        try:
            with atomic_folder(self.folder) as aside:
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, aside / "state.pt")
                write_json(aside / "state.json", state)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            raise ModelError(
                f"checkpoint {self.folder} cannot be written ({error}); the one before is kept: make room and run again"
            ) from None

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Training:
        """Load the last state into ``model`` and ``optimizer`` if there is one, and return the progress.

        Raises:
            ModelError: it was made with other settings or texts; the differing keys are named.
        """
        if not self.folder.is_dir():
            return Training()
        saved = json.loads((self.folder / "state.json").read_text())
        before, now, known = _said(saved["config"]), _said(self.settings), saved.get("learned_from", {})
        differing = [key for key in {**before, **now} if key not in FREE_KEYS and before.get(key) != now.get(key)]
        changed = [key for key, found in self.learned_from.items() if known.get(key) != found and key not in differing]
        if differing := [*differing, *(f"{key} (its content was changed)" for key in changed)]:
            raise ModelError(
                f"checkpoint {self.folder} was made with other values of {', '.join(differing)}: "
                "set them back, choose another `out`, or remove the checkpoint"
            )
        state = torch.load(self.folder / "state.pt", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return Training(saved["step"], saved["loss"], [(int(step), float(loss)) for step, loss in saved["curve"]])


def _said(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without empty ones, so that a key which is newer than the checkpoint is no difference."""
    said = {key: value for key, value in settings.items() if value not in (None, False, [], {}, "")}
    corpus = {key: value for key, value in settings["corpus"].items() if value and key != "folder"}  # files may move
    return {**said, "corpus": corpus}
