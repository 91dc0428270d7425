"""Pre-training: resumed equals uninterrupted, and what does not fit is refused."""

import json
import math
import os
import shutil
import signal
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from tests.conftest import TINY, pretrain
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoTokenizer, BertConfig

from aftersales.core.config import build
from aftersales.core.errors import ConfigError, DataError, ModelError, StorageError
from aftersales.core.paths import load_script
from aftersales.corpora.public import FOLDED
from aftersales.encoders.checkpoint import Checkpoint, Training
from aftersales.encoders.corpus import (
    MAX_CHARACTERS,
    _batches,
    build_token_store,
    hidden_positions,
    mask_rows,
    read_documents,
    rows_of_step,
)
from aftersales.encoders.guard import guarded_marks, mark
from aftersales.encoders.labelled import LabelledBatch, labelled_batch, load_labelled
from aftersales.encoders.load import load_for_classification, load_tokenizer, locate
from aftersales.encoders.objectives import OBJECTIVES, MaskedLanguageModel, bag_of_words_loss, batch_of, learning_rate


@pytest.fixture
def corpus(project, shipped_texts):
    (project / "corpus").mkdir()
    (project / "corpus" / "texts.txt").write_text("\n".join(shipped_texts), encoding="utf-8")
    return project


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


def test_ctrl_c_in_a_step_keeps_that_step(corpus, monkeypatch):
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


SETTINGS = {"steps": 30, "batch_size": 4, "architecture": {"hidden": 32}, "corpus": {"files": {"a.txt": 1}}, "out": "a"}


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of a small model at step 20, with the model and its optimizer."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint = Checkpoint(tmp_path / "checkpoint", SETTINGS, {"corpus": "x"}, processes=2)
    checkpoint.save(model, optimizer, Training(20, 1.5, [(10, 2.0)], 77))
    return checkpoint, model, optimizer


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"batch_size": 8, "out": "b"}, "other values of batch_size:"),
        ({"architecture": {"hidden": 64}}, r"other values of architecture\.hidden:"),
        ({"corpus": {"files": {"a.txt": 2}}}, r"other values of corpus\.files\.a\.txt:"),
        ({"labelled": {"sets": {"b": 1}}}, "other values of labelled:"),
        ({"steps": 19}, "has done 20 steps, more than steps=19: set steps=20 or more"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(saved, changed, named):
    checkpoint, *modules = saved
    with pytest.raises(ModelError, match=named):
        Checkpoint(checkpoint.folder, SETTINGS | changed, {"corpus": "x"}, 2).resume(*modules)


def test_a_checkpoint_goes_on_on_as_many_processes_and_on_any_device(saved, monkeypatch):
    checkpoint, *modules = saved
    with pytest.raises(ModelError, match=r"other values of processes \(2 then, 1 now\)"):
        Checkpoint(checkpoint.folder, SETTINGS, {"corpus": "x"}).resume(*modules)
    load, devices = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *a, **k: devices.append(k.get("map_location")) or load(*a, **k))
    assert checkpoint.resume(*modules) == Training(20, 1.5, [(10, 2.0)], 77) and devices == ["cpu"]


@pytest.mark.parametrize("file", ["state.json", "state.pt"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe damaged", None])
def test_a_damaged_checkpoint_is_told(saved, file, content):
    checkpoint, *modules = saved
    path = checkpoint.folder / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ModelError, match=f"is damaged: {file} cannot be read .*remove the folder"):
        checkpoint.resume(*modules)


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


def test_a_stopped_run_notices_that_the_encoder_it_began_with_has_changed(corpus, tiny_encoder):
    begun = corpus / "begun"
    shutil.copytree(tiny_encoder, begun)
    pretrain(corpus, steps=10, start_from=str(begun))
    pretrain(corpus, steps=20, start_from=str(begun))
    weights = load_file(begun / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] += 1
    save_file(weights, begun / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"start_from \(its content was changed\)"):
        pretrain(corpus, steps=30, start_from=str(begun))


def test_settings_newer_than_a_checkpoint_are_no_difference(corpus):
    pretrain(corpus, steps=10)
    state = corpus / "outputs/tiny/checkpoint/state.json"
    saved = json.loads(state.read_text())
    del saved["config"]["guarded"], saved["config"]["corpus"]["tasks"]
    state.write_text(json.dumps(saved))
    pretrain(corpus, steps=20)


def test_changed_texts_make_a_new_vocabulary_and_refuse_the_old_checkpoint(corpus):
    pretrain(corpus, steps=10)
    texts = corpus / "corpus/texts.txt"
    texts.write_text("鱻龘靐" * 40 + "\n" + texts.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ModelError, match=r"corpus \(its content was changed\)"):
        pretrain(corpus, steps=20)
    tokenizer = AutoTokenizer.from_pretrained(corpus / "outputs/tiny/tokenizer")
    assert tokenizer.convert_tokens_to_ids("鱻") > 4


def test_the_encoder_is_an_ordinary_transformers_folder(tiny_encoder):
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_encoder), AutoModel.from_pretrained(tiny_encoder)
    batch = tokenizer(["快递😡iPhone15坏了"], return_tensors="pt")
    assert tokenizer.tokenize("坏了😡15") == ["坏", "了", "😡", "1", "5"]
    assert model(**batch.to("cpu")).last_hidden_state.shape[-1] == 32


def test_heads_of_the_first_layer_start_on_their_neighbours():
    config = BertConfig(vocab_size=100, hidden_size=256, num_hidden_layers=1, num_attention_heads=4)
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = MaskedLanguageModel(config).model.eval()
    attention = model.bert(torch.randint(0, 100, (64, 32)), output_attentions=True).attentions[0].mean(dim=0)
    for head, offset in enumerate((-1, 1, -2, 2)):
        assert attention[head, 16].argmax() == 16 + offset


@pytest.fixture
def small():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertConfig(vocab_size=50, attn_implementation="eager", **shape)  # as the recipe makes it


def batch(hide=3):
    rows = np.random.default_rng(0).integers(5, 50, (4, 8))
    rows[:, 0] = 2
    hidden = np.zeros(rows.shape, dtype=bool)
    hidden[:, hide] = True
    return batch_of(rows, np.where(hidden, 4, rows), hidden, [0, 1, 2, 3, 4], seed=1)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_bag_of_words_loss_trains_cls_and_nothing_asks_it_otherwise(small, objective):
    model, one = OBJECTIVES[objective](small), batch()

    def asked_of_cls(weight):
        loss, states = model.token_loss(one)
        states.retain_grad()
        (loss + weight * bag_of_words_loss(model.model, states, one)).backward()
        return states.grad[:, 0].abs().sum()

    assert asked_of_cls(0.0) == 0 and asked_of_cls(0.5) > 0
    wanted = torch.zeros(4, 50).scatter_(1, one.rows[:, 1:], 1.0)

    def bag():
        logits = model.model.cls(model.token_loss(one)[1][:, 0])
        return -(logits.log_softmax(1) * wanted / wanted.sum(1, keepdim=True)).sum(1).mean()

    first = bag().item()
    assert (model(one, 0.5) - model(one)).item() == pytest.approx(0.5 * first, rel=1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(one, 0.5).backward()
        optimizer.step()
    assert bag().item() < 0.9 * first


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_flops_of_a_step_are_those_of_its_matrix_products(small, objective):
    model, one = OBJECTIVES[objective](small, [3]), batch()
    lesson = LabelledBatch(0, one.rows, torch.ones_like(one.rows), torch.tensor([0, 1, 2, 0]), multi_label=False)
    with FlopCounterMode(display=False) as counter:
        model(one, 0.5).backward()
    assert model.flops(4, 8, one.hidden.float().mean().item(), 4) == pytest.approx(counter.get_total_flops(), rel=1e-3)
    with FlopCounterMode(display=False) as counter:
        model.label_loss(lesson).backward()
    assert model.label_flops(lesson) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights(corpus, small):
    recipe, model = load_script("training/pretrain.py"), MaskedLanguageModel(small)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    with torch.no_grad():
        model.model.cls.predictions.bias[7] = math.nan
    with pytest.raises(ModelError, match=r"step 3: the loss is nan .*last checkpoint is kept"):
        recipe.learn(recipe_config(corpus), Accelerator(cpu=True), model, optimizer, 3, batch(), None)
    assert sum(weights.isnan().sum() for weights in model.parameters()) == 1


def test_detection_learns_to_tell_replaced_tokens(small):
    model, one = OBJECTIVES["electra"](small), batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = model(one).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(one)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * first
    assert model.generator.bert.embeddings is model.model.bert.embeddings
    assert model.detector[0].weight.grad.abs().sum() > 0 and model.encoder is model.model.bert


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


def recipe_config(project, **settings):
    recipe = load_script("training/pretrain.py")
    values = {
        "recipe": "pretrain",
        "corpus": {"folder": project / "corpus", "files": {"texts.txt": 1}},
        "out": "outputs/tiny",
        "steps": 10,
        "warmup": 1,
        "decay": 2,
        "architecture": TINY,
        "sequence_length": 32,
    }
    return build(recipe.PretrainConfig, values | settings, "tiny")


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
        recipe_config(corpus, **settings)


def test_each_process_needs_a_row(corpus):
    recipe, config = load_script("training/pretrain.py"), recipe_config(corpus, batch_size=4)
    recipe.has_rows_for(config, 4)
    with pytest.raises(ConfigError, match="batch_size=4 gives some of 5 processes no row"):
        recipe.has_rows_for(config, 5)


def test_processes_share_a_batch_and_each_has_something_hidden(corpus, tiny_encoder):
    recipe, config = load_script("training/pretrain.py"), recipe_config(corpus, batch_size=7, mask_rate=1e-6)
    tokenizer = load_tokenizer(str(tiny_encoder))
    store = build_token_store(corpus / "tokens", config.corpus.paths, [1.0], tokenizer, 32, None)
    whole = recipe.draw(config, tokenizer, store, 5)
    shares = [
        recipe.draw(
            config,
            tokenizer,
            store,
            5,
            SimpleNamespace(process_index=rank, num_processes=3, device=torch.device("cpu")),
        )
        for rank in range(3)
    ]
    rows = torch.empty_like(whole.rows)
    for rank, share in enumerate(shares):
        rows[rank::3] = share.rows
        assert share.hidden.any() and (share.hidden <= share.ordinary).all()
    assert torch.equal(rows, whole.rows) and whole.hidden.sum() == 1
    assert shares[0].seed == whole.seed and len({share.seed for share in shares}) == 3


def test_masks_hide_the_wanted_share_and_no_special_token():
    rows = np.tile(np.arange(100), (50, 1))
    hidden = hidden_positions(rows, None, 0.15, [0, 1, 2, 3, 4], seed=1, step=0)
    inputs = mask_rows(rows, hidden, 100, [0, 1, 2, 3, 4], 4, seed=1, step=0)
    assert hidden[:, 5:].mean() == pytest.approx(0.15, abs=0.02) and not hidden[:, :5].any()
    assert (inputs[~hidden] == rows[~hidden]).all()
    assert (inputs[hidden] == 4).mean() == pytest.approx(0.8, abs=0.05)


def test_whole_words_are_hidden_together(tmp_path, shipped_texts, tiny_encoder):
    source = tmp_path / "a.txt"
    source.write_text("\n".join(shipped_texts), encoding="utf-8")
    tokenizer = load_tokenizer(str(tiny_encoder))

    def pairs(text):  # a stand-in for words
        return [text[i : i + 2] for i in range(0, len(text), 2)]

    store = build_token_store(tmp_path / "tokens", {"a.txt": source}, [1.0], tokenizer, 16, pairs)
    rows, starts = rows_of_step(store, 64, 16, 1, 0, tokenizer.cls_token_id)
    special = tokenizer.all_special_ids
    hidden = hidden_positions(rows, starts, 0.3, special, 1, 0)
    inside = ~starts[:, 1:] & ~np.isin(rows[:, 1:], special) & ~np.isin(rows[:, :-1], special)
    assert inside.sum() > 100
    assert (hidden[:, 1:] == hidden[:, :-1])[inside].all()
    assert 0.2 < hidden[:, 1:].mean() < 0.4


def test_a_dirty_corpus_is_cleaned_and_counted(tmp_path):
    path = tmp_path / "a.txt"
    long = "好" * 4_000_000  # 12 MB in one line
    path.write_bytes("不错\n\n  \n不错！\n".encode() + "质量".encode("gb18030") + f"\n{long}\n最后一行".encode())
    counts, seen = Counter(), set()
    documents = list(read_documents(path, counts, seen))
    assert documents[0] == "不错" and documents[-1] == "最后一行" and len(documents) == 3
    cut_off = 4_000_000 - MAX_CHARACTERS
    assert counts == {"kept": 3, "empty": 2, "repeated": 1, "not UTF-8": 1, "cut": 1, "characters cut off": cut_off}
    with pytest.raises(DataError, match=r"does not exist"):
        list(read_documents(tmp_path / "none.txt"))
    (tmp_path / "a.xz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"not a whole \.xz file"):
        list(read_documents(tmp_path / "a.xz"))


def test_what_is_cut_is_counted_in_characters(tmp_path):
    plain, rows = tmp_path / "a.txt", tmp_path / "b.jsonl"
    whole, long = "好坏" * 5_000, "质量" * 6_000
    plain.write_text(f"{whole}\r\n{long}\n{'a' * 1_048_575}好坏\n{whole}", encoding="utf-8", newline="")
    counts = Counter()
    assert [len(text) for text in read_documents(plain, counts)] == [10_000, 10_000, 3, 10_000]
    assert counts == {"kept": 4, "cut": 2, "characters cut off": 2_000 + 1_048_577 - 10_000}
    written = [{"text": whole, "note": "x" * 100_000}, {"text": long}]
    rows.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in written), encoding="utf-8")
    counts = Counter()
    assert len(list(read_documents(rows, counts))) == 2
    assert counts == {"kept": 2, "cut": 1, "characters cut off": 2_000}


def test_a_corpus_in_another_encoding_is_told(tmp_path, tiny_encoder):
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join(["质量很好"] * 90 + ["好" * 1_000_000, "ok"]).encode("gbk"))
    with pytest.raises(DataError, match=r"a\.txt has . tokens.*lines: 91 not UTF-8, 1 kept; save the text as UTF-8"):
        build_token_store(tmp_path / "tokens", {"a.txt": path}, [1.0], load_tokenizer(str(tiny_encoder)), 16, None)


def test_files_of_one_name_are_kept_apart_and_held_out_texts_are_not_learned(corpus, shipped_texts, tiny_encoder):
    for name, texts in (("a", shipped_texts[:200]), ("b", shipped_texts[200:])):
        (corpus / "corpus" / name).mkdir()
        more = [f"{text}{number}" for text in texts for number in range(1_000, 1_010)]
        (corpus / "corpus" / name / "x.txt").write_text("\n".join(more), encoding="utf-8")
    files = {"a/x.txt": 1.0, "b/x.txt": 2.0}
    config = recipe_config(corpus, corpus={"folder": "corpus", "files": files})  # relative: begins at the project
    tokenizer = load_tokenizer(str(tiny_encoder))
    store = build_token_store(corpus / "tokens", config.corpus.paths, [1.0, 2.0], tokenizer, 32, None)
    assert config.corpus.weights == files and list(store.counts) == list(files)

    def documents(tokens):
        ends = np.flatnonzero(tokens == tokenizer.sep_token_id) + 1
        return {one.tobytes() for one in np.split(np.asarray(tokens), ends)[:-1]}

    learned, held_out = set.union(*map(documents, store.train)), documents(store.held_out)
    assert held_out and len(learned) > 100 * len(held_out) and not learned & held_out


def test_documents_are_tokenised_in_batches_of_bounded_length():
    documents = ["短"] * 10_000 + ["长" * 10_000] * 100
    batches = list(_batches(documents))
    assert [text for one in batches for text in one] == documents
    assert max(map(len, batches)) == 4096 and max(sum(map(len, one)) for one in batches) < 300_000


def test_the_guard_covers_every_fold_and_the_vocabulary(corpus, monkeypatch):
    questions = [f"{'鱻' * 3}{subject}的第{number}问" for subject in "甲乙" for number in range(30)]
    entries = [f"    question :{one}\n    answer :x\n    subject:{one[3]}\n" for one in questions]
    (corpus / "public/unionpay_faq").mkdir(parents=True)
    (corpus / f"public/{FOLDED['unionpay_faq'][0]}/data.txt").write_text("".join(entries), encoding="utf-8")
    monkeypatch.setenv("AFTERSALES_PUBLIC_DATA", str(corpus / "public"))
    marks = guarded_marks(["unionpay_faq"])
    assert marks == {mark(one) for one in questions}
    with (corpus / "corpus/texts.txt").open("a", encoding="utf-8") as stream:
        stream.write("\n" + "\n".join(questions))
    recipe, config = load_script("training/pretrain.py"), recipe_config(corpus)
    free = recipe.vocabulary(config, corpus / "out", frozenset())
    guarded = recipe.vocabulary(config, corpus / "out", marks)  # the same folder: the guard makes it anew
    assert "鱻" in free.get_vocab() and "鱻" not in guarded.get_vocab()


def test_texts_of_a_task_are_read_from_its_training_rows(corpus, tmp_path):
    path = tmp_path / "task/train.jsonl"
    path.parent.mkdir()
    rows = ['{"id": "1", "text": "不错"}', '{"id": "2"}', "no JSON", "7", '{"text": null}', "", '{"text": "很好"}']
    path.write_text("\n".join(rows))
    counts = Counter()
    assert list(read_documents(path, counts)) == ["不错", "很好"]
    assert counts == {"kept": 2, "no JSON with a text": 4, "empty": 1}
    texts = {"folder": corpus / "corpus", "files": {"texts.txt": 1}, "tasks": {"intent": 0.5}}
    pretrain(corpus, steps=1, corpus=texts)
    made = json.loads((corpus / "outputs/tiny/encoder/pretraining.json").read_text())
    assert made["corpus"] == {"texts.txt": 1, "intent/train.jsonl": 0.5}
    assert made["corpus_lines"]["intent/train.jsonl"]["kept"] > 2000


def test_a_full_disk_keeps_the_last_checkpoint(corpus, monkeypatch):
    pretrain(corpus, steps=10)
    folder = corpus / "outputs/tiny/checkpoint"
    before = (folder / "state.json").read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StorageError, match=r"No space left.*what stood there is kept"):
        pretrain(corpus, steps=30)
    assert (folder / "state.json").read_text() == before and len(list(folder.parent.iterdir())) == 4


def test_a_full_disk_at_the_end_loses_no_step(corpus, monkeypatch):
    recipe = load_script("training/pretrain.py")

    def full(*_):
        raise StorageError

    monkeypatch.setattr(recipe, "write_encoder", full)
    with pytest.raises(StorageError):
        pretrain(corpus, steps=4)
    assert json.loads((corpus / "outputs/tiny/checkpoint/state.json").read_text())["step"] == 4


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


@pytest.fixture
def public_set(corpus, shipped_texts, monkeypatch):
    """Two small public sets in their own file formats; the second shares a text with the first."""
    texts = [text.replace("\t", " ") for text in shipped_texts[:60]]
    phone, published = corpus / "public/xmxoxo_phone_hotel", corpus / "public/ChnSentiCorp"
    phone.mkdir(parents=True)
    published.mkdir(parents=True)
    for part, rows in (("train", texts[:30]), ("dev", texts[30:40]), ("test", texts[40:50])):
        lines = [f"{(-1, 0, 1)[number % 3]}\t{text}" for number, text in enumerate(rows)]
        (phone / f"{part}.tsv").write_text("\n".join(["label\ttxt", *lines]), encoding="utf-8")
    for part, rows in (("train", texts[40:50]), ("dev", texts[50:]), ("test", [texts[0], *texts[55:]])):
        lines = [f"{number % 2}\t{text}" for number, text in enumerate(rows)]
        (published / f"{part}.tsv").write_text("\n".join(["label\ttext_a", *lines]), encoding="utf-8")
    monkeypatch.setenv("AFTERSALES_PUBLIC_DATA", str(corpus / "public"))
    return texts


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


def test_the_rate_rises_holds_and_falls():
    rates = [learning_rate(step, 100, 2.0, 10, 50) for step in range(101)]
    assert rates[0] == 0.2 and rates[9:51] == [2.0] * 42 and rates[75] == 1.0 and rates[100] == 0.0
    assert max(abs(a - b) for a, b in pairwise(learning_rate(step, 20, 2.0, 10, 15) for step in range(20))) < 0.3


def test_several_labels_are_learned_each(small):
    model = MaskedLanguageModel(small, [3]).eval()
    rows = torch.arange(8).reshape(2, 4) + 5
    target = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    lesson = LabelledBatch(0, rows, torch.ones_like(rows), target, multi_label=True)
    with torch.no_grad():
        model.heads[0].weight.zero_()
        model.heads[0].bias.copy_(torch.tensor([30.0, 0.0, -30.0]))
    # First row: one sure hit, one coin, one sure miss avoided; second: one sure mistake, one coin.
    assert model.label_loss(lesson).item() == pytest.approx((math.log(2) + 30 + math.log(2)) / 2, rel=1e-3)


def test_the_labels_loss_teaches_the_encoder(small):
    model = MaskedLanguageModel(small, [3]).eval()
    rows = torch.arange(12).reshape(3, 4) + 5
    lesson = LabelledBatch(0, rows, torch.ones_like(rows), torch.arange(3), multi_label=False)
    first = model.label_loss(lesson)
    first.backward()
    assert model.encoder.encoder.layer[0].output.dense.weight.grad.abs().sum() > 0
    assert model(batch(), 0.0, lesson, 2.0).item() == pytest.approx(
        (model(batch()) + 2.0 * model.label_loss(lesson)).item(), rel=1e-3
    )


def test_labelled_texts_of_a_step_are_the_same_whenever_it_runs(corpus, public_set, tiny_encoder):
    sets = load_labelled(["xmxoxo_phone"], set(), load_tokenizer(str(tiny_encoder)), 32)
    one, same, other = (labelled_batch(sets, {"xmxoxo_phone": 1}, 8, 1, step) for step in (5, 5, 6))
    assert torch.equal(one.inputs, same.inputs) and torch.equal(one.target, same.target)
    assert one.inputs.shape != other.inputs.shape or not torch.equal(one.inputs, other.inputs)
    shares = [one.share(process, 3) for process in range(3)]
    assert sum(share.tokens for share in shares) == one.tokens == sum(len(row[row > 0]) for row in one.inputs)
    for process, share in enumerate(shares):
        assert torch.equal(share.inputs, one.inputs[process::3]) and torch.equal(share.target, one.target[process::3])
