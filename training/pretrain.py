"""Pre-train an encoder from text files. Launch: python training/pretrain.py configs/pretrain.yaml

On several GPUs: accelerate launch training/pretrain.py configs/pretrain.yaml
"""

import json
import math
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from aftersales.core.config import load
from aftersales.core.errors import ConfigError, ModelError, told_errors
from aftersales.core.files import atomic_folder, recover, sha256_of_file, write_json
from aftersales.core.interrupts import held_interrupts
from aftersales.core.paths import project_root
from aftersales.encoders.architecture import bert_config, digest, start_from
from aftersales.encoders.checkpoint import Checkpoint, Training
from aftersales.encoders.corpus import (
    TokenStore,
    build_token_store,
    hidden_positions,
    jieba_words,
    mask_rows,
    read_documents,
    rows_of_step,
)
from aftersales.encoders.folder import history, write_encoder
from aftersales.encoders.guard import fingerprint_of_marks, guarded_marks
from aftersales.encoders.labelled import LabelledBatch, LabelledSet, labelled_batch, load_labelled
from aftersales.encoders.load import load_tokenizer
from aftersales.encoders.objectives import OBJECTIVES, Batch, Objective, batch_of, learning_rate
from aftersales.encoders.precision import has_fast_bf16
from aftersales.encoders.pretrain_config import PretrainConfig
from aftersales.encoders.throughput import Work, peak_flops
from aftersales.encoders.tokenizer import fingerprint_of_vocabulary, train_tokenizer
from aftersales.tracking.runs import log_pretraining, run_name

HELD_OUT_STEPS = 64
CURVE_EVERY = 50


def main(config: PretrainConfig) -> None:
    """Pre-train, resuming from the last checkpoint in ``config.out``."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    started = time.monotonic()
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if has_fast_bf16() else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    has_rows_for(config, accelerator.num_processes)
    out = project_root() / config.out
    guarded = guarded_marks(config.guarded)
    with accelerator.main_process_first():
        for name in ("checkpoint", "tokenizer", "tokens", "encoder"):
            recover(out / name)
        tokenizer, store = prepare(config, out, guarded)
    labelled = labelled_sets(config, tokenizer, guarded)
    model = OBJECTIVES[config.objective](
        bert_config(config.architecture, tokenizer), [one.target.shape[1] for one in labelled]
    )
    if config.start_from:
        start_from(model.encoder, config.start_from)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=True
    )
    begun_with = history(config.start_from) if config.start_from else None
    fingerprints = learned_from(config, model, tokenizer, store, labelled)
    material = Material(tokenizer, store, labelled, fingerprints, begun_with)
    checkpoint = Checkpoint(out / "checkpoint", config.model_dump(mode="json"), fingerprints, accelerator.num_processes)
    training = checkpoint.resume(model, optimizer)
    training.loss = training.loss or math.log(len(tokenizer))
    work = train(config, accelerator, model, optimizer, material, training, checkpoint)
    if accelerator.is_main_process:
        finish(config, model, material, training, speed_of(work, accelerator), time.monotonic() - started)


@dataclass(frozen=True)
class Material:
    """What a run learns from.

    Attributes:
        fingerprints: of everything that is learned from, by the config key that names it.
        begun_with: how the encoder was made that the run goes on from.
    """

    tokenizer: PreTrainedTokenizerFast
    store: TokenStore
    labelled: list[LabelledSet]
    fingerprints: dict[str, str]
    begun_with: dict[str, Any] | None


def has_rows_for(config: PretrainConfig, processes: int) -> None:
    """Check that every process gets a row of each batch.

    Raises:
        ConfigError: it does not.
    """
    sizes = {"batch_size": config.batch_size}
    if config.labelled:
        sizes["labelled.batch_size"] = config.labelled.batch_size
    for key, size in sizes.items():
        if size < processes:
            raise ConfigError(f"{key}={size} gives some of {processes} processes no row; set it to {processes} or more")


def speed_of(work: Work, accelerator: Accelerator) -> dict[str, float]:
    """Return tokens a second and the used share of this machine's arithmetic; nothing where no step was run."""
    if not work.tokens:
        return {}
    speed, used = work.tokens / work.seconds, work.flops / work.seconds
    peak = peak_flops(accelerator.device) * accelerator.num_processes
    print(f"{speed:,.0f} tokens/s, {used / peak:.1%} of this machine's {peak / 1e12:.2f} TFLOP/s in matrix products")
    return {"tokens_per_second": speed, "model_flops_utilisation": used / peak}


def finish(
    config: PretrainConfig,
    model: Objective,
    material: Material,
    training: Training,
    figures: dict[str, float],
    seconds: float,
) -> None:
    """Measure the held-out loss, write the encoder folder and log the run."""
    store, folder = material.store, project_root() / config.out / "encoder"
    loss = held_out_loss(model, config, material.tokenizer, store)
    made: dict[str, Any] = {
        "held_out_loss": round(loss, 4),
        "tokens_seen": config.steps * config.batch_size * config.sequence_length,
        "corpus": config.corpus.weights,
        "corpus_lines": store.counts,
        "corpus_fingerprint": store.fingerprint,
        "learned_from": material.fingerprints,
        "config": config.model_dump(mode="json", exclude={"corpus", "out"}),
    }
    if config.labelled:
        made["labelled_tokens_seen"] = training.labelled_tokens
    if material.begun_with:
        made["started_from"] = material.begun_with
    write_encoder(folder, model.encoder, material.tokenizer, made)
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
        "vocabulary": fingerprint_of_vocabulary(tokenizer),
        "labelled": sha256("".join(one.fingerprint for one in labelled).encode()).hexdigest() if labelled else "",
    }


def prepare(config: PretrainConfig, out: Path, guarded: frozenset[bytes]) -> tuple[PreTrainedTokenizerFast, TokenStore]:
    """Make tokenizer and token store, or load those of an earlier start, and say what the corpus holds."""
    tokenizer = load_tokenizer(config.start_from) if config.start_from else vocabulary(config, out, guarded)
    segment = jieba_words() if config.whole_words else None
    weights = list(config.corpus.weights.values())
    store = build_token_store(
        out / "tokens", config.corpus.paths, weights, tokenizer, config.sequence_length, segment, guarded
    )
    for name, counts in store.counts.items():
        print(f"{name}: " + ", ".join(f"{count:,} {what}" for what, count in counts.items() if count))
    print(f"{sum(map(len, store.train)):,} tokens, fingerprint {store.fingerprint[:12]}")
    return tokenizer, store


def vocabulary(config: PretrainConfig, out: Path, guarded: frozenset[bytes]) -> PreTrainedTokenizerFast:
    """Make the tokenizer from the corpus, or load that of an earlier start.

    A text that stands there twice counts twice: what customers write often is what the vocabulary is for.
    """
    shape, folder, paths = config.architecture, out / "tokenizer", config.corpus.paths
    hashes = {name: sha256_of_file(path) for name, path in paths.items() if path.is_file()}
    wanted: dict[str, Any] = {"sources": hashes, "vocabulary": shape.vocabulary, "positions": shape.positions}
    if guarded:
        wanted["guarded"] = fingerprint_of_marks(guarded)
    made_of = folder / "made_of.json"
    if not (made_of.is_file() and json.loads(made_of.read_text(encoding="utf-8")) == wanted):
        documents = chain.from_iterable(read_documents(path, guarded=guarded) for path in paths.values())
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
    material: Material,
    training: Training,
    checkpoint: Checkpoint,
) -> Work:
    """Run the remaining steps, keeping checkpoints, the last one after the last step, and return what was done."""
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    first, started, work = training.step, time.monotonic(), Work()
    quiet = not accelerator.is_main_process
    bar = tqdm(
        range(first, config.steps), initial=first, total=config.steps, unit="step", mininterval=10, disable=quiet
    )
    # Of several processes each would stop at another step: there the last checkpoint has to do.
    with held_interrupts() if accelerator.num_processes == 1 else nullcontext(lambda: False) as stopped:
        for step in bar:
            batch = draw(config, material.tokenizer, material.store, step, accelerator)
            lesson = draw_labelled(config, material.labelled, step)
            loss = learn(config, accelerator, wrapped, optimizer, step, batch, lesson)
            training.step = step + 1
            training.loss += 0.02 * (loss - training.loss)
            training.labelled_tokens += lesson.tokens if lesson else 0
            count(work, config, model, step, lesson)
            work.seconds = time.monotonic() - started
            if training.step % CURVE_EVERY == 0:
                training.curve.append((training.step, round(training.loss, 4)))
                bar.set_postfix(loss=f"{training.loss:.3f}", tokens_s=f"{work.tokens / work.seconds:,.0f}")
            due = training.step % config.checkpoint_every == 0 or training.step == config.steps or stopped()
            if due and accelerator.is_main_process:
                checkpoint.save(model, optimizer, training)
            if stopped():
                raise KeyboardInterrupt
    return work


def learn(
    config: PretrainConfig,
    accelerator: Accelerator,
    model: Objective,
    optimizer: torch.optim.Optimizer,
    step: int,
    batch: Batch,
    lesson: LabelledBatch | None,
) -> float:
    """Take one step and return its loss on this process.

    Raises:
        ModelError: loss or gradient is no number; the weights, and with them the last checkpoint, stay good.
    """
    rate = learning_rate(step, config.steps, config.learning_rate, config.warmup, config.decay)
    for group in optimizer.param_groups:
        group["lr"] = rate
    mine = lesson.share(accelerator.process_index, accelerator.num_processes).to(accelerator.device) if lesson else None
    with accelerator.autocast():
        loss = model(batch, bag_weight(config, step), mine, config.labelled.weight if config.labelled else 0.0)
    optimizer.zero_grad()
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)  # of all processes together
    value = float(loss.item())
    if not math.isfinite(value + float(norm)):
        raise ModelError(
            f"step {step}: the loss is {value} and its gradient {float(norm)}, so nothing can be learned from it; "
            "the last checkpoint is kept: lower learning_rate and choose another `out`"
        )
    optimizer.step()
    return value


def bag_weight(config: PretrainConfig, step: int) -> float:
    """Return the weight of the bag-of-words loss at a step."""
    return config.bag_of_words if step >= config.bag_of_words_from else 0.0


def count(work: Work, config: PretrainConfig, model: Objective, step: int, lesson: LabelledBatch | None) -> None:
    """Add a step of all processes to ``work``."""
    rows, length = config.batch_size, config.sequence_length
    work.tokens += rows * length
    work.flops += model.flops(rows, length, config.mask_rate, rows if bag_weight(config, step) else 0)
    if lesson:
        work.tokens += lesson.tokens
        work.flops += model.label_flops(lesson)


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
    rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    hidden = hidden_positions(rows, starts, config.mask_rate, special, seed, step, processes)
    if OBJECTIVES[config.objective].all_masked:
        inputs = rows.copy()
        inputs[hidden] = tokenizer.mask_token_id
    else:
        inputs = mask_rows(rows, hidden, len(tokenizer), special, tokenizer.mask_token_id, seed, step)
    mine = slice(rank, None, processes)
    # A seed of its own for each process, which would otherwise draw the same replacements for other rows.
    batch = batch_of(rows[mine], inputs[mine], hidden[mine], special, 1_000_003 * seed + step + (rank << 48))
    return batch.to(accelerator.device) if accelerator else batch


def draw_labelled(config: PretrainConfig, sets: list[LabelledSet], step: int) -> LabelledBatch | None:
    """Return the labelled texts of a step, of all processes together."""
    if config.labelled is None:
        return None
    return labelled_batch(sets, config.labelled.sets, config.labelled.batch_size, config.seed, step)


@torch.no_grad()
def held_out_loss(
    model: Objective, config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, store: TokenStore
) -> float:
    """Return the objective's own loss on 64 batches of held-out text."""
    part = replace(store, train=[store.held_out], weights=[1.0], starts=None)
    device = next(model.parameters()).device
    total = 0.0
    for step in range(HELD_OUT_STEPS):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_fast_bf16()):
            total += model(draw(config, tokenizer, part, step, seed=0).to(device)).item()
    return total / HELD_OUT_STEPS


if __name__ == "__main__":
    with told_errors():
        main(load(PretrainConfig, Path(sys.argv[1]), sys.argv[2:]))
