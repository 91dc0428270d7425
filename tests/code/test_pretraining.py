"""Pre-training: resumed equals uninterrupted, and what does not fit is refused."""

import json
import os
import signal

import mlflow
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import TINY, pretrain, pretrain_config
from transformers import AutoModel, AutoTokenizer

from aftersales.core.errors import ConfigError, ModelError
from aftersales.core.paths import load_script
from aftersales.encoders.checkpoint import Checkpoint
from aftersales.encoders.labelled import labelled_batch, load_labelled
from aftersales.encoders.load import load_for_classification, load_tokenizer, locate
from aftersales.encoders.objectives import OBJECTIVES


@pytest.mark.parametrize(
    "settings", [{}, {"objective": "electra", "bag_of_words": 0.1}, {"labelled": {"sets": {"xmxoxo_phone": 1}}}]
)
def test_stopped_and_resumed_equals_uninterrupted(corpus, public_set, monkeypatch, settings):
    pretrain(corpus, steps=20, out="outputs/whole", **settings)
    saved = Checkpoint.save

    def stop_after_first(*arguments):
        saved(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", stop_after_first)
        with pytest.raises(KeyboardInterrupt):
            pretrain(corpus, steps=20, out="outputs/halves", **settings)
    pretrain(corpus, steps=20, out="outputs/halves", **settings)
    made = [
        json.loads((corpus / f"outputs/{name}/encoder/pretraining.json").read_text()) for name in ("whole", "halves")
    ]
    assert made[0].get("labelled_tokens_seen") == made[1].get("labelled_tokens_seen")
    whole, halves = (load_file(corpus / f"outputs/{name}/encoder/model.safetensors") for name in ("whole", "halves"))
    # Kernels may sum in another order when memory is laid out otherwise, so equal to within that; a fresh optimizer
    # or other batches after the stop would differ ten times more. Attention does not feel the bias of its keys, so
    # the gradient there is nothing but that noise, which Adam blows up.
    for name in whole.keys() - {name for name in whole if name.endswith("key.bias")}:
        torch.testing.assert_close(whole[name].float(), halves[name].float(), atol=5e-4, rtol=0)


def test_ctrl_c_in_a_step_keeps_that_step(corpus, ctrl_c, monkeypatch):
    script = load_script("training/pretrain.py")
    learn = script.learn

    def pressed_in_step_three(config, accelerator, model, optimizer, step, *rest):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(config, accelerator, model, optimizer, step, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(script, "learn", pressed_in_step_three)
        with pytest.raises(KeyboardInterrupt):
            pretrain(corpus, steps=20)
    assert json.loads((corpus / "outputs/tiny/checkpoint/state.json").read_text())["step"] == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_goes_on_from_an_encoder_and_keeps_its_vocabulary(corpus, tiny_encoder):
    pretrain(corpus, steps=1, start_from=str(tiny_encoder), learning_rate=1e-9, out="outputs/more")
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tiny_encoder, corpus / "outputs/more/encoder")
    )
    for name in before:
        torch.testing.assert_close(before[name], after[name], atol=1e-3, rtol=0)
    assert (corpus / "outputs/more/encoder/tokenizer.json").read_text() == (tiny_encoder / "tokenizer.json").read_text()


def test_an_encoder_of_another_shape_is_refused(corpus, tiny_encoder):
    for key, other in {"layers": 1, "heads": 4, "hidden": 64}.items():
        with pytest.raises(ModelError, match=f"start_from: .*set architecture.{key}="):
            pretrain(corpus, steps=1, start_from=str(tiny_encoder), architecture={key: other})


def test_the_encoder_is_an_ordinary_transformers_folder(tiny_encoder):
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_encoder), AutoModel.from_pretrained(tiny_encoder)
    batch = tokenizer(["快递😡iPhone15坏了"], return_tensors="pt")
    assert tokenizer.tokenize("坏了😡15") == ["坏", "了", "😡", "1", "5"]
    assert model(**batch.to("cpu")).last_hidden_state.shape[-1] == 32


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_recipe_makes_a_loadable_encoder_with_either_objective(corpus, objective):
    pretrain(corpus, steps=4, objective=objective)
    folder = corpus / "outputs/tiny/encoder"
    assert AutoModel.from_pretrained(folder).num_parameters() > 0
    made = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    assert made["config"]["objective"] == objective and made["corpus_lines"]["texts.txt"]["kept"] > 300
    runs = mlflow.search_runs(experiment_names=["pretraining"])
    assert {"metrics.held_out_loss", "metrics.tokens_per_second", "params.objective"} <= set(runs.columns)
    card = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    assert f" {len(AutoTokenizer.from_pretrained(folder)):,} tokens, " in card and "2,000 tokens" not in card
    assert {"mlm": "nats a hidden token. ", "electra": "50 times the detector's a token). "}[objective] in card
    pretrain(corpus, steps=4, objective=objective)  # finished before: no step, so no speed
    runs = mlflow.search_runs(experiment_names=["pretraining"])
    assert sorted(runs["metrics.tokens_per_second"].isna()) == [False, True]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sequence_length": 65}, "sequence_length=65 is longer than architecture.positions=64"),
        ({"labelled": {"sets": {"xmxoxo_phone": 1}, "length": 65}}, "labelled.length=65 is longer than arch"),
        ({"checkpoint_every": 0}, "'checkpoint_every'"),
        ({"corpus": {"folder": "a", "files": {"a.txt": 0}}}, "'corpus.files.a.txt'"),
        ({"corpus": {"folder": "a", "files": {"a.txt": 1}, "tasks": {"intent": -1}}}, "'corpus.tasks.intent'"),
        (
            {"corpus": {"folder": "a", "files": {"intent/train.jsonl": 1}, "tasks": {"intent": 1}}},
            "both give",
        ),
        ({"warmup": -1}, "'warmup'"),
        ({"seed": -1}, "'seed'"),
        ({"architecture": {**TINY, "heads": 3}}, "hidden=32 is no multiple of twice heads=3"),
        ({"architecture": {**TINY, "vocabulary": 70_000}}, "'architecture.vocabulary'"),
    ],
)
def test_values_that_cannot_work_are_refused_at_once(corpus, settings, told):
    with pytest.raises(ConfigError, match=told):
        pretrain_config(corpus, **settings)


def test_each_process_needs_a_row(corpus):
    recipe, config = load_script("training/pretrain.py"), pretrain_config(corpus, batch_size=4)
    recipe.has_rows_for(config, 4)
    with pytest.raises(ConfigError, match="batch_size=4 gives some of 5 processes no row"):
        recipe.has_rows_for(config, 5)


def test_encoders_that_cannot_be_loaded(tmp_path):
    with pytest.raises(ModelError, match=r"does not exist"):
        locate(str(tmp_path / "none"))
    for missing in (
        "outputs/no_such_run/encoder",
        "data/my-encoder",
    ):  # of the second, the first part is a folder of ours
        with pytest.raises(ModelError, match=f"encoder folder /.*{missing} does not exist"):
            locate(missing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no config\.json"):
        locate(str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"cannot be loaded"):
        load_tokenizer("nobody/has-this-encoder")


def test_the_embedded_encoder_loads_with_real_label_names():
    model = load_for_classification("embedded", ["退货", "换货"], multi_label=False, dropout=0.1)
    assert model.config.id2label == {0: "退货", 1: "换货"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_labels_are_learned_beside_the_text_and_guarded_texts_are_not(corpus, public_set, tiny_encoder, capsys):
    labelled = {"sets": {"xmxoxo_phone": 1}, "batch_size": 4}
    pretrain(corpus, steps=4, labelled=labelled, guarded=["chnsenticorp"])
    printed = capsys.readouterr().out
    assert "labelled: xmxoxo_phone 29" in printed and " 11 guarded" in printed
    card = (corpus / "outputs/tiny/encoder/README.md").read_text()
    assert "training rows of xmxoxo_phone with their labels" in card and "texts of chnsenticorp were left out" in card
    free = load_labelled(["xmxoxo_phone"], set(), load_tokenizer(str(tiny_encoder)), 32)
    assert len(free[0].ids) == 30


def test_a_set_with_folds_cannot_be_learned_from(corpus):
    with pytest.raises(ConfigError, match="'unionpay_faq' is not a public set with parts of its own"):
        pretrain(corpus, steps=4, labelled={"sets": {"unionpay_faq": 1}})


def test_a_schedule_that_does_not_fit_is_refused(corpus):
    with pytest.raises(
        ConfigError, match=r"warmup=3 and decay=8 are more than steps=10 together; set for example warmup=1 decay=2"
    ):
        pretrain(corpus, steps=10, warmup=3, decay=8)


def test_labelled_texts_of_a_step_are_the_same_whenever_it_runs(corpus, public_set, tiny_encoder):
    sets = load_labelled(["xmxoxo_phone"], set(), load_tokenizer(str(tiny_encoder)), 32)
    one, same, other = (labelled_batch(sets, {"xmxoxo_phone": 1}, 8, 1, step) for step in (5, 5, 6))
    assert torch.equal(one.inputs, same.inputs) and torch.equal(one.target, same.target)
    assert one.inputs.shape != other.inputs.shape or not torch.equal(one.inputs, other.inputs)
    shares = [one.share(process, 3) for process in range(3)]
    assert sum(share.tokens for share in shares) == one.tokens == sum(len(row[row > 0]) for row in one.inputs)
    for process, share in enumerate(shares):
        assert torch.equal(share.inputs, one.inputs[process::3]) and torch.equal(share.target, one.target[process::3])
