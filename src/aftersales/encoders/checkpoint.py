"""Checkpoints of pre-training: everything that a run needs to go on, refused where they do not fit."""

import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aftersales.core.errors import ModelError
from aftersales.core.files import atomic_folder, unwritable, write_json

# Keys that may change between a checkpoint and its continuation: they only say where and how long.
FREE_KEYS = {"out", "steps", "decay", "threads", "checkpoint_every"}


@dataclass
class Training:
    """What changes while training.

    Attributes:
        step: the next one.
        loss: smoothed.
        curve: (step, smoothed loss).
        labelled_tokens: of the labelled texts that were learned so far.
    """

    step: int = 0
    loss: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    labelled_tokens: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its state, and what makes it this run.

    Attributes:
        folder: of the state; replaced as a whole.
        settings: the run's configuration as JSON values.
        learned_from: fingerprints of what the run learns from, by the key that names it.
        processes: among which each batch is divided; another number would draw other replacements.
    """

    folder: Path
    settings: dict[str, Any]
    learned_from: dict[str, str]
    processes: int = 1

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, training: Training) -> None:
        """Write model, optimizer and progress aside, then replace the last checkpoint.

        Raises:
            StorageError: it cannot be written, for example because the disk is full; the last one stays.
        """
        made_with = {"learned_from": self.learned_from, "config": self.settings, "processes": self.processes}
        with atomic_folder(self.folder) as aside:
            try:
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, aside / "state.pt")
            except RuntimeError as error:  # so torch reports a full disk
                raise unwritable(self.folder, error) from None
            write_json(aside / "state.json", {**vars(training), **made_with})

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Training:
        """Load the last state into ``model`` and ``optimizer`` if there is one, and return the progress.

        Raises:
            ModelError: it is damaged, is further than ``steps``, or was made with other settings, texts or number of
                processes; the differing keys are named.
        """
        if not self.folder.is_dir():
            return Training()
        try:
            saved = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            curve = [(int(step), float(loss)) for step, loss in saved["curve"]]
            training = Training(int(saved["step"]), float(saved["loss"]), curve, int(saved.get("labelled_tokens", 0)))
            differing = self._differing(saved)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._damaged("state.json", error) from None
        if differing:
            raise ModelError(
                f"checkpoint {self.folder} was made with other values of {', '.join(differing)}: "
                "set them back, choose another `out`, or remove the checkpoint"
            )
        if training.step > self.settings["steps"]:
            raise ModelError(
                f"checkpoint {self.folder} has done {training.step} steps, more than steps={self.settings['steps']}: "
                f"set steps={training.step} or more, choose another `out`, or remove the checkpoint"
            )
        try:
            # Wherever it was saved: a checkpoint of a GPU goes on on a CPU.
            state = torch.load(self.folder / "state.pt", map_location="cpu", weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        except (OSError, ValueError, LookupError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise self._damaged("state.pt", error) from None
        return training

    def _differing(self, saved: Mapping[str, Any]) -> list[str]:
        """Return what a saved state was made with and this run is not, by key."""
        differing = [key for key in _changed(_said(saved["config"]), _said(self.settings)) if key not in FREE_KEYS]
        known = saved.get("learned_from", {})
        for key, found in self.learned_from.items():
            if known.get(key) != found and not any(one == key or one.startswith(f"{key}.") for one in differing):
                differing.append(f"{key} (its content was changed)")
        if (processes := saved.get("processes", self.processes)) != self.processes:
            differing.append(f"processes ({processes} then, {self.processes} now)")
        return differing

    def _damaged(self, file: str, error: Exception) -> ModelError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return ModelError(
            f"checkpoint {self.folder} is damaged: {file} cannot be read ({reason}); "
            "put a whole copy in its place, or remove the folder to begin anew"
        )


def _said(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without empty ones, so that a key which is newer than the checkpoint is no difference."""
    said = {key: value for key, value in settings.items() if value not in (None, False, [], {}, "")}
    corpus = {key: value for key, value in settings["corpus"].items() if value and key != "folder"}  # files may move
    return {**said, "corpus": corpus}


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Yield the dotted key of every value that differs; of a section that only one side has, the section's."""
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changed(old, new, f"{section}{key}.")
        elif old != new:
            yield section + key
