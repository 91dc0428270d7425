"""Pre-train an encoder from text files. Launch: python training/pretrain.py configs/pretrain.yaml

On several GPUs: accelerate launch training/pretrain.py configs/pretrain.yaml
"""

import json
import math
import sys
import time
from dataclasses import replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from pydantic import Field, field_validator, model_validator
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from aftersales.core.config import Config, load
from aftersales.core.errors import nearest
from aftersales.core.files import atomic_folder, sha256_of_file, write_json
from aftersales.core.paths import project_root
from aftersales.corpora.public import ADAPTERS
from aftersales.encoders.architecture import Architecture, bert_config, digest, start_from
from aftersales.encoders.checkpoint import Checkpoint, Training
from aftersales.encoders.corpus import (
    TokenStore,
    build_token_store,
    hidden_positions,
    jieba_words,
    mask_rows,
    read_documents,
    rows_of_step,
    shown,
)
from aftersales.encoders.folder import history, write_encoder
from aftersales.encoders.guard import guarded_marks
from aftersales.encoders.labelled import LabelledBatch, LabelledSet, labelled_batch, load_labelled
from aftersales.encoders.load import load_tokenizer
from aftersales.encoders.objectives import OBJECTIVES, Batch, Objective, batch_of, learning_rate
from aftersales.encoders.throughput import flops_a_token, peak_flops
from aftersales.encoders.tokenizer import train_tokenizer
from aftersales.tasks import find_task
from aftersales.tracking.runs import log_pretraining, run_name

HELD_OUT_STEPS = 64
CURVE_EVERY = 50


class Corpus(Config):
    """Text files, one document a line, and the training texts of tasks; the numbers say how often each is drawn."""

    folder: Path
    files: dict[str, float] = Field(min_length=1)
    tasks: dict[str, float] = {}

    @property
    def sources(self) -> dict[Path, float]:
        """Every file with its weight."""
        files = {self.folder.expanduser() / name: weight for name, weight in self.files.items()}
        return files | {find_task(name) / "train.jsonl": weight for name, weight in self.tasks.items()}


class Labelled(Config):
    """Public labelled sets that are learned beside the text.

    Attributes:
        sets: public set with parts of its own -> how often it is drawn.
        weight: of the labels' loss.
        batch_size: labelled texts a step.
        length: tokens of one at most.
    """

    sets: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=1)
    weight: float = Field(default=0.5, gt=0)
    batch_size: int = Field(default=32, ge=1)
    length: int = Field(default=64, ge=8)

    @field_validator("sets")
    @classmethod
    def _have_parts(cls, sets: dict[str, float]) -> dict[str, float]:
        if wrong := sorted(sets.keys() - ADAPTERS.keys()):
            raise ValueError(f"{wrong[0]!r} is not a public set with parts of its own{nearest(wrong[0], [*ADAPTERS])}")
        return sets


class PretrainConfig(Config):
    """Everything a pre-training run depends on.

    Attributes:
        start_from: an encoder to go on from; its vocabulary stays.
        guarded: public sets whose validation and test texts are not learned from (all texts, where it has folds).
        whole_words: hide whole words.
        decay: last steps, over which the learning rate falls to zero.
        bag_of_words: weight of the loss that makes [CLS] sum up its row.
        bag_of_words_from: first step of that loss.
    """

    recipe: str
    corpus: Corpus
    out: Path
    architecture: Architecture = Architecture()
    start_from: str | None = None
    labelled: Labelled | None = None
    guarded: list[str] = []
    objective: Literal["mlm", "electra"] = "mlm"
    whole_words: bool = False
    steps: int = Field(ge=1)
    warmup: int = 500
    decay: int = 4000
    batch_size: int = Field(default=32, ge=1)
    sequence_length: int = Field(default=128, ge=8)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = 0.01
    mask_rate: float = Field(default=0.15, gt=0, lt=1)
    bag_of_words: float = 0.0
    bag_of_words_from: int = 0
    seed: int = 1
    threads: int = 2
    checkpoint_every: int = 500

    @model_validator(mode="after")
    def _has_time(self) -> Self:
        if self.warmup + self.decay > self.steps:
            raise ValueError(
                f"warmup={self.warmup} and decay={self.decay} do not fit into steps={self.steps}; set them"
            )
        return self


def main(config: PretrainConfig) -> None:
    """Pre-train, resuming from the last checkpoint in ``config.out``."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    started = time.monotonic()
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    out = project_root() / config.out
    guarded = guarded_marks(config.guarded)
    with accelerator.main_process_first():
        tokenizer, store = prepare(config, out, guarded)
    labelled = labelled_sets(config, tokenizer, guarded)
    earlier = history(config.start_from) if config.start_from else None
    model = OBJECTIVES[config.objective](
        bert_config(config.architecture, tokenizer), [one.target.shape[1] for one in labelled]
    )
    if config.start_from:
        start_from(model.encoder, config.start_from)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=True
    )
    sources = learned_from(config, model, tokenizer, store, labelled)
    checkpoint = Checkpoint(out / "checkpoint", config.model_dump(mode="json"), sources)
    training = checkpoint.resume(model, optimizer)
    first = training.step
    training.loss = training.loss or math.log(len(tokenizer))
    speed = train(config, accelerator, model, optimizer, (tokenizer, store, labelled), training, checkpoint)
    if not accelerator.is_main_process:
        return
    used = speed * flops_a_token(model.encoder, config.sequence_length)
    peak = peak_flops(accelerator.device) * accelerator.num_processes
    if config.steps > first:
        print(
            f"{speed:,.0f} tokens/s, {used / peak:.1%} of this machine's {peak / 1e12:.2f} TFLOP/s in matrix products"
        )
    figures = {"tokens_per_second": speed, "model_flops_utilisation": used / peak}
    finish(config, model, (tokenizer, store, earlier, sources), training, figures, time.monotonic() - started)


def finish(
    config: PretrainConfig,
    model: Objective,
    source: tuple[PreTrainedTokenizerFast, TokenStore, dict[str, Any] | None, dict[str, str]],
    training: Training,
    figures: dict[str, float],
    seconds: float,
) -> None:
    """Measure the held-out loss, write the encoder folder and log the run."""
    (tokenizer, store, earlier, learned), folder = source, project_root() / config.out / "encoder"
    loss = held_out_loss(model, config, tokenizer, store)
    made: dict[str, Any] = {
        "held_out_loss": round(loss, 4),
        "tokens_seen": config.steps * config.batch_size * config.sequence_length,
        "corpus": {shown(source): weight for source, weight in config.corpus.sources.items()},
        "corpus_lines": store.counts,
        "corpus_fingerprint": store.fingerprint,
        "learned_from": learned,
        "config": config.model_dump(mode="json", exclude={"corpus", "out"}),
    }
    if earlier:
        made["started_from"] = earlier
    write_encoder(folder, model.encoder, tokenizer, made)
    shape = config.architecture
    name = run_name(config.objective, f"{shape.layers}x{shape.hidden}", f"seed{config.seed}")
    figures = {"held_out_loss": loss, **figures}
    log_pretraining(name, made["config"], figures, training.curve, store.fingerprint, folder, seconds)
    print(f"held-out loss {loss:.4f}; encoder written to {folder}")


def learned_from(
    config: PretrainConfig,
    model: Objective,
    tokenizer: PreTrainedTokenizerFast,
    store: TokenStore,
    labelled: list[LabelledSet],
) -> dict[str, str]:
    """Return fingerprints of everything that is learned from, by the config key that names it."""
    return {
        "corpus": store.fingerprint,
        "start_from": digest(model.encoder) if config.start_from else "",
        "vocabulary": sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest(),
        "labelled": sha256("".join(one.fingerprint for one in labelled).encode()).hexdigest() if labelled else "",
    }


def prepare(config: PretrainConfig, out: Path, guarded: frozenset[bytes]) -> tuple[PreTrainedTokenizerFast, TokenStore]:
    """Make tokenizer and token store, or load those of an earlier start, and say what the corpus holds."""
    sources = list(config.corpus.sources)
    tokenizer = load_tokenizer(config.start_from) if config.start_from else vocabulary(config, out, sources)
    segment = jieba_words() if config.whole_words else None
    weights = list(config.corpus.sources.values())
    store = build_token_store(out / "tokens", sources, weights, tokenizer, config.sequence_length, segment, guarded)
    for name, counts in store.counts.items():
        print(f"{name}: " + ", ".join(f"{count:,} {what}" for what, count in counts.items() if count))
    print(f"{sum(map(len, store.train)):,} tokens, fingerprint {store.fingerprint[:12]}")
    return tokenizer, store


def vocabulary(config: PretrainConfig, out: Path, sources: list[Path]) -> PreTrainedTokenizerFast:
    """Make the tokenizer from the corpus, or load that of an earlier start."""
    shape, folder = config.architecture, out / "tokenizer"
    hashes = {shown(source): sha256_of_file(source) for source in sources if source.is_file()}
    wanted = {"sources": hashes, "vocabulary": shape.vocabulary, "positions": shape.positions}
    made_of = folder / "made_of.json"
    if not (made_of.is_file() and json.loads(made_of.read_text()) == wanted):
        documents = chain.from_iterable(read_documents(source) for source in sources)
        with atomic_folder(folder) as aside:
            train_tokenizer(documents, shape.vocabulary, shape.positions).save_pretrained(aside)
            write_json(aside / "made_of.json", wanted)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def labelled_sets(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, guarded: frozenset[bytes]
) -> list[LabelledSet]:
    """Load the labelled sets and say how many texts each gives."""
    if config.labelled is None:
        return []
    sets = load_labelled(list(config.labelled.sets), guarded, tokenizer, config.labelled.length)
    print("labelled: " + ", ".join(f"{one.name} {len(one.ids):,}" for one in sets))
    return sets


def train(
    config: PretrainConfig,
    accelerator: Accelerator,
    model: Objective,
    optimizer: torch.optim.Optimizer,
    source: tuple[PreTrainedTokenizerFast, TokenStore, list[LabelledSet]],
    training: Training,
    checkpoint: Checkpoint,
) -> float:
    """Run the remaining steps, keeping checkpoints, and return the speed in tokens a second."""
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    tokenizer, store, labelled = source
    first, started, tokens_a_step = training.step, time.monotonic(), config.batch_size * config.sequence_length
    hidden_bar = not accelerator.is_main_process
    bar = tqdm(
        range(first, config.steps), initial=first, total=config.steps, unit="step", mininterval=10, disable=hidden_bar
    )
    for step in bar:
        batch = draw(config, tokenizer, store, step, accelerator)
        lesson = draw_labelled(config, labelled, step, accelerator)
        rate = learning_rate(step, config.steps, config.learning_rate, config.warmup, config.decay)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with accelerator.autocast():
            bag_of_words = config.bag_of_words if step >= config.bag_of_words_from else 0.0
            loss = wrapped(batch, bag_of_words, lesson, config.labelled.weight if config.labelled else 0.0)
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
        optimizer.step()
        training.step = step + 1
        training.loss += 0.02 * (loss.item() - training.loss)
        if training.step % CURVE_EVERY == 0:
            training.curve.append((training.step, round(training.loss, 4)))
            speed = (training.step - first) * tokens_a_step / (time.monotonic() - started)
            bar.set_postfix(loss=f"{training.loss:.3f}", tokens_s=f"{speed:,.0f}")
        if training.step % config.checkpoint_every == 0 and accelerator.is_main_process:
            checkpoint.save(model, optimizer, training)
    return (config.steps - first) * tokens_a_step / (time.monotonic() - started)


def draw(
    config: PretrainConfig,
    tokenizer: PreTrainedTokenizerFast,
    store: TokenStore,
    step: int,
    accelerator: Accelerator | None = None,
    seed: int | None = None,
) -> Batch:
    """Return the batch of a step; of several processes each takes its share of the rows."""
    seed = config.seed if seed is None else seed
    special, length = tokenizer.all_special_ids, config.sequence_length
    rows, starts = rows_of_step(store, config.batch_size, length, seed, step, tokenizer.cls_token_id)
    hidden = hidden_positions(rows, starts, config.mask_rate, special, seed, step)
    if OBJECTIVES[config.objective].all_masked:
        inputs = rows.copy()
        inputs[hidden] = tokenizer.mask_token_id
    else:
        inputs = mask_rows(rows, hidden, len(tokenizer), special, tokenizer.mask_token_id, seed, step)
    mine = slice(accelerator.process_index, None, accelerator.num_processes) if accelerator else slice(None)
    batch = batch_of(rows[mine], inputs[mine], hidden[mine], special, 1_000_003 * seed + step)
    return batch.to(accelerator.device) if accelerator else batch


def draw_labelled(
    config: PretrainConfig, sets: list[LabelledSet], step: int, accelerator: Accelerator
) -> LabelledBatch | None:
    """Return the labelled texts of a step; of several processes each draws its own."""
    if config.labelled is None:
        return None
    weights, size = config.labelled.sets, config.labelled.batch_size
    mine = config.seed + 1_000_003 * accelerator.process_index
    return labelled_batch(sets, weights, size, mine, step).to(accelerator.device)


@torch.no_grad()
def held_out_loss(
    model: Objective, config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, store: TokenStore
) -> float:
    """Return the objective's own loss on 64 batches of held-out text."""
    part = replace(store, train=[store.held_out], weights=[1.0], starts=None)
    device = next(model.parameters()).device
    total = 0.0
    for step in range(HELD_OUT_STEPS):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            total += model(draw(config, tokenizer, part, step, seed=0).to(device)).item()
    return total / HELD_OUT_STEPS


if __name__ == "__main__":
    main(load(PretrainConfig, Path(sys.argv[1]), sys.argv[2:]))
