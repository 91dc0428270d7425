"""Training of the network: epochs, the choice of the best by validation, and checkpoints to go on from."""

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from aftersales.core.errors import ModelError
from aftersales.core.files import atomic_folder
from aftersales.encoders.precision import has_fast_bf16
from aftersales.recommenders.features import ItemTable
from aftersales.recommenders.sequential.config import SequentialConfig
from aftersales.recommenders.sequential.losses import Loss
from aftersales.recommenders.sequential.network import Events, Ranker, Transformer
from aftersales.recommenders.sequential.windows import Windows

# How good a ranker is on validation; higher is better.
JudgeRanker = Callable[[Ranker], float]
STATE = "state.pt"


class Network(nn.Module):
    """What is trained: the vectors of items and the transformer over them."""

    def __init__(self, items: ItemTable, config: SequentialConfig) -> None:
        super().__init__()
        self.items, self.max_length = items, config.max_length
        self.transformer = Transformer(config)

    def places(self, read: Events, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states at the true places of the mask, and the item vectors to compare them with."""
        with torch.autocast(mask.device.type, dtype=torch.bfloat16, enabled=(fast := has_fast_bf16())):
            matrix = self.items()
            states = self.transformer.states(matrix, read, left_aligned=True)[mask]
        states, vectors = self.transformer.comparable(states.float(), matrix[1:].float())
        return states.bfloat16() if fast else states, vectors

    def ranker(self) -> Ranker:
        """Return the network as it stands, to rank with."""
        with torch.no_grad():
            matrix = self.items.eval()().detach().clone()
        return Ranker(self.transformer, matrix, self.max_length).eval()


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        epoch: epochs done.
        best_epoch: after how many the network was best, 0 where none was judged.
        best: its validation figure.
        figures: every validation figure, as (epochs, figure).
        weights: of the best network.
    """

    epoch: int = 0
    best_epoch: int = 0
    best: float = -math.inf
    figures: list[tuple[int, float]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)


def train(
    network: Network,
    windows: Windows,
    loss: Loss,
    config: SequentialConfig,
    judge: JudgeRanker | None = None,
    work: Path | None = None,
) -> Progress:
    """Train in place; with ``judge`` the network of the best validation figure is what is left.

    Args:
        network: fresh.
        windows: what to learn from.
        loss: of states and item vectors.
        config: the options.
        judge: gives the validation figure of a ranker.
        work: folder for a checkpoint after every epoch; called again with the same one, training goes on from it, to
            the same end.

    Raises:
        ModelError: the checkpoint cannot be read or written.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    optimizer = torch.optim.AdamW(
        _groups(network, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98), fused=True
    )
    steps = -(-len(windows) // config.batch_size)
    progress = _resume(work, network, optimizer)
    last = min(config.epochs, config.stop_after or config.epochs)
    with tqdm(total=last * steps, initial=progress.epoch * steps, desc="sequential", unit="step") as bar:
        while progress.epoch < last and not _patience_is_over(progress, config):
            mean = _epoch(network, windows, loss, optimizer, config, progress.epoch, bar)
            progress.epoch += 1
            if judge and (progress.epoch % config.judge_every == 0 or progress.epoch == last):
                _judge(network, judge, progress)
            figure = {"validation": f"{progress.figures[-1][1]:.4f}"} if progress.figures else {}
            bar.set_postfix({"loss": f"{mean:.3f}", **figure})
            _save(work, network, optimizer, progress)
    if progress.weights:
        network.load_state_dict(progress.weights)
    network.cpu().eval()
    return progress


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the optimizer's groups: biases and norms do not decay."""
    tables = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    return [{"params": tables, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _epoch(
    network: Network,
    windows: Windows,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    config: SequentialConfig,
    epoch: int,
    bar: "tqdm[Any]",
) -> float:
    """Go once over all windows and return the mean loss."""
    torch.manual_seed(config.seed * 1_000_003 + epoch)  # so that what goes on from a checkpoint draws the same
    device = next(network.parameters()).device
    steps = -(-len(windows) // config.batch_size)
    network.train()
    total = torch.zeros((), device=device)
    for step, rows in enumerate(windows.order(config.batch_size), epoch * steps):
        read, mask, following = windows.batch(rows)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(step, steps, config)
        states, vectors = network.places(Events(*(part.to(device) for part in read)), mask.to(device))
        value = loss(states, vectors, following.to(device) - 1)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        total += value.detach()
        bar.update()
    return float(total) / steps


def _rate(step: int, steps_an_epoch: int, config: SequentialConfig) -> float:
    """Return the share of the peak learning rate at a step, see ``SequentialConfig.schedule``."""
    steps = config.epochs * steps_an_epoch
    warmup = max(1, steps // 10 if config.schedule == "cosine" else steps_an_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _judge(network: Network, judge: JudgeRanker, progress: Progress) -> None:
    figure = judge(network.ranker())
    progress.figures.append((progress.epoch, figure))
    if figure > progress.best:
        progress.best, progress.best_epoch = figure, progress.epoch
        progress.weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _patience_is_over(progress: Progress, config: SequentialConfig) -> bool:
    since = sum(epoch > progress.best_epoch for epoch, _ in progress.figures)
    return config.patience is not None and since >= config.patience


def _save(work: Path | None, network: Network, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    if work is None:
        return
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(progress)}
    try:
        with atomic_folder(work) as aside:
            torch.save(state, aside / STATE)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise ModelError(
            f"checkpoint {work} cannot be written ({error}); the one before is kept: make room and run again"
        ) from None


def _resume(work: Path | None, network: Network, optimizer: torch.optim.Optimizer) -> Progress:
    """Load the last checkpoint, if there is one, and return where it stands.

    Raises:
        ModelError: it is damaged, or of another version of the network.
    """
    if work is None or not (work / STATE).is_file():
        return Progress()
    try:
        state = torch.load(work / STATE, weights_only=True, map_location=next(network.parameters()).device)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        return Progress(**state["progress"])
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"checkpoint {work} cannot be read ({reason}); remove the folder to begin anew") from None
