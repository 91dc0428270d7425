"""Fine-tune an encoder with a classification head (Devlin et al. 2019, section 4), best validation epoch kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from pydantic import Field
from tqdm import tqdm
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from aftersales.core.config import Config
from aftersales.encoders.load import EMBEDDED, load_for_classification, load_tokenizer
from aftersales.encoders.precision import has_fast_bf16
from aftersales.text.normalise import normalise


class FitConfig(Config):
    """How to fine-tune. Small encoders want a higher learning rate and more epochs than BERT-base.

    The fresh head learns faster than the encoder: with many labels it would otherwise still be finding out how rare
    each one is when the last epoch is over.

    Attributes:
        adversarial: length of the step by which the token embeddings are moved against the model before it learns from
            each batch a second time (after Miyato et al. 2017, equation 5, with one step for the whole table, which is
            not normalised: what is long depends on the encoder's embeddings, and 1 is too long for fresh ones); 0
            leaves it out, and anything else nearly doubles the time.
    """

    encoder: str = EMBEDDED
    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    head_learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    adversarial: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=128, ge=8)
    seed: int = Field(default=1, ge=0, lt=2**32)


TINY = 1e-12


@dataclass(frozen=True)
class Fitted:
    """A fine-tuned model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    max_tokens: int

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores of ``texts``, float32 of shape (texts, labels), computed in 32-bit floats."""
        self.model.eval()
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # texts of like length need little padding
        scores = np.empty((len(texts), self.model.config.num_labels), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(texts), 64):
                chosen = order[start : start + 64]
                batch = self.tokenizer(
                    [normalise(texts[row]) for row in chosen],
                    truncation=True,
                    max_length=self.max_tokens,
                    padding=True,
                    return_token_type_ids=False,
                    return_tensors="pt",
                )
                scores[chosen] = self.model(**batch.to(self.model.device)).logits.float().cpu().numpy()
        return scores


def fit(
    config: FitConfig,
    train: tuple[Sequence[str], np.ndarray],
    validation: tuple[Sequence[str], np.ndarray],
    labels: list[str],
    multi_label: bool,
    work: Path,
) -> Fitted:
    """Fine-tune and return the model of the epoch with the best validation score.

    A checkpoint is kept after every epoch; called again with the same ``work`` folder, training goes on from it.

    Args:
        config: the recipe.
        train: texts and labels, boolean of shape (rows, labels).
        validation: likewise; the only data the choice of the epoch sees.
        labels: names in the order of the columns.
        multi_label: any number of labels a text instead of one.
        work: folder for checkpoints.

    Raises:
        ModelError: the encoder cannot be loaded.
    """
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.encoder)
    model = load_for_classification(config.encoder, labels, multi_label, config.dropout)
    max_tokens = min(config.max_tokens, model.config.max_position_embeddings)
    datasets = [_dataset(tokenizer, *part, multi_label, max_tokens) for part in (train, validation)]
    trainer = _Trainer(
        config.adversarial,
        model=model,
        args=_arguments(config, work),
        train_dataset=datasets[0],
        eval_dataset=datasets[1],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda prediction: _score(prediction, multi_label),
        callbacks=[_Progress()],
        optimizers=(_optimizer(model, config), None),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(work))
    # Without its wrapper: that one casts to 16 bits in every forward pass, and would end up in the exported graph.
    plain = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return Fitted(plain.cpu().eval(), tokenizer, max_tokens)


def last_checkpoint(work: Path) -> str | None:
    """Return the newest whole checkpoint; the trainer writes its state last, so one without it was cut short."""
    whole = [path.parent for path in work.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


class _Trainer(Trainer):  # type: ignore[misc]
    """Learns from each batch as it is, and again with the embeddings moved to where the loss grows fastest."""

    def __init__(self, adversarial: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.adversarial = adversarial

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *more: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(model, inputs, *more)
        if not self.adversarial:
            return loss
        table = self.accelerator.unwrap_model(model).get_input_embeddings().weight
        kept = table.detach().clone()
        try:
            with torch.no_grad():
                table.add_(table.grad, alpha=self.adversarial / max(float(table.grad.norm()), TINY))
            super().training_step(model, inputs, *more)  # its gradient is added to the first
        finally:
            with torch.no_grad():
                table.copy_(kept)
        return loss


class _Progress(TrainerCallback):  # type: ignore[misc]
    """One bar for the whole training, with the last loss and the last validation score."""

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", desc="fine-tuning")

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict[str, Any], **_: Any) -> None:
        shown: dict[str, object] = {n: f"{float(logs[n]):.3f}" for n in ("loss", "eval_f1") if n in logs}
        if shown:
            self.bar.set_postfix(shown)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.bar.close()


def _optimizer(model: PreTrainedModel, config: FitConfig) -> torch.optim.Optimizer:
    head = [parameter for name, parameter in model.named_parameters() if name.startswith("classifier.")]
    rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("classifier.")]
    return torch.optim.AdamW(
        [{"params": rest, "lr": config.learning_rate}, {"params": head, "lr": config.head_learning_rate}],
        weight_decay=config.weight_decay,
        fused=True,
    )


def _arguments(config: FitConfig, work: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(work),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=128,
        warmup_steps=config.warmup,
        label_smoothing_factor=config.label_smoothing,
        lr_scheduler_type="linear",
        train_sampling_strategy="group_by_length",
        bf16=has_fast_bf16(),
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="f1",
        logging_strategy="epoch",
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
        dataloader_pin_memory=False,
    )


def _dataset(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], target: np.ndarray, multi_label: bool, max_tokens: int
) -> Dataset:
    encoded = tokenizer(
        [normalise(text) for text in texts], truncation=True, max_length=max_tokens, return_token_type_ids=False
    )
    labels = target.astype(np.float32).tolist() if multi_label else target.argmax(1).tolist()
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return Dataset.from_dict({**encoded, "labels": labels, "length": lengths})


def _score(prediction: EvalPrediction, multi_label: bool) -> dict[str, float]:
    """Micro-F1 (accuracy for single-label tasks): steadier on a small validation split than macro-F1."""
    logits: Any = prediction.predictions
    if not multi_label:
        return {"f1": float((logits.argmax(1) == prediction.label_ids).mean())}
    gold = np.asarray(prediction.label_ids) > 0.5
    given = logits > -1.0  # below one half: early epochs are timid, and the threshold is tuned afterwards
    return {"f1": float(2 * (gold & given).sum() / max(1, gold.sum() + given.sum()))}
