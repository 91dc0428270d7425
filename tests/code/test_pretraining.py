"""Pre-training: resumed equals uninterrupted, and what does not fit is refused."""

import json
import math
import shutil
from collections import Counter
from itertools import pairwise

import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import pretrain
from transformers import AutoModel, AutoTokenizer, BertConfig

from aftersales.core.errors import ConfigError, DataError, ModelError
from aftersales.core.paths import load_script
from aftersales.encoders.checkpoint import Checkpoint
from aftersales.encoders.corpus import build_token_store, hidden_positions, mask_rows, read_documents, rows_of_step
from aftersales.encoders.labelled import LabelledBatch, labelled_batch, load_labelled
from aftersales.encoders.load import load_for_classification, load_tokenizer, locate
from aftersales.encoders.objectives import OBJECTIVES, MaskedLanguageModel, batch_of, learning_rate


@pytest.fixture
def corpus(project, shipped_texts):
    (project / "corpus").mkdir()
    (project / "corpus" / "texts.txt").write_text("\n".join(shipped_texts), encoding="utf-8")
    return project


def test_stopped_and_resumed_equals_uninterrupted(corpus, monkeypatch):
    pretrain(corpus, steps=20, out="outputs/whole")
    saved = Checkpoint.save

    def stop_after_first(*arguments):
        saved(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", stop_after_first)
        with pytest.raises(KeyboardInterrupt):
            pretrain(corpus, steps=20, out="outputs/halves")
    pretrain(corpus, steps=20, out="outputs/halves")
    whole, halves = (load_file(corpus / f"outputs/{name}/encoder/model.safetensors") for name in ("whole", "halves"))
    # Kernels may sum in another order when memory is laid out otherwise, so equal to within that; a fresh optimizer
    # or other batches after the stop would differ ten times more. Attention does not feel the bias of its keys, so
    # the gradient there is nothing but that noise, which Adam blows up.
    for name in whole.keys() - {name for name in whole if name.endswith("key.bias")}:
        torch.testing.assert_close(whole[name].float(), halves[name].float(), atol=5e-4, rtol=0)


def test_a_checkpoint_of_other_settings_is_refused(corpus):
    pretrain(corpus, steps=10)
    recipe = load_script("training/pretrain.py")
    config = recipe.PretrainConfig(
        recipe="pretrain",
        corpus={"folder": corpus / "corpus", "files": {"texts.txt": 1}},
        out="outputs/tiny",
        steps=10,
        warmup=1,
        decay=2,
    )
    with pytest.raises(ModelError, match=r"other values of .*batch_size"):
        Checkpoint(corpus / "outputs/tiny/checkpoint", config.model_dump(mode="json"), {}).resume(None, None)


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
    return BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


def batch(hide=3):
    rows = np.random.default_rng(0).integers(5, 50, (4, 8))
    rows[:, 0] = 2
    hidden = np.zeros(rows.shape, dtype=bool)
    hidden[:, hide] = True
    return batch_of(rows, np.where(hidden, 4, rows), hidden, [0, 1, 2, 3, 4], seed=1)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_bag_of_words_loss_trains_cls_and_nothing_asks_it_otherwise(small, objective):
    model, one = OBJECTIVES[objective](small).eval(), batch()
    plain, both = (model(one, weight) for weight in (0.0, 0.5))
    assert both > plain + 0.5
    if objective == "mlm":
        wanted = torch.zeros(4, 50).scatter_(1, one.rows[:, 1:], 1.0)
        logits = model.model(input_ids=one.inputs).logits[:, 0]
        bag = -(logits.log_softmax(1) * wanted / wanted.sum(1, keepdim=True)).sum(1).mean()
        assert (both - plain).item() == pytest.approx(0.5 * bag.item(), rel=1e-4)


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

    store = build_token_store(tmp_path / "tokens", [source], [1.0], tokenizer, 16, pairs)
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
    assert counts == {"kept": 3, "empty": 2, "repeated": 1, "not UTF-8": 1, "cut": 1}
    with pytest.raises(DataError, match=r"does not exist"):
        list(read_documents(tmp_path / "none.txt"))
    (tmp_path / "a.xz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"not a whole \.xz file"):
        list(read_documents(tmp_path / "a.xz"))


def test_texts_of_a_task_are_read_from_its_training_rows(corpus, tmp_path):
    path = tmp_path / "task/train.jsonl"
    path.parent.mkdir()
    rows = ['{"id": "1", "text": "不错"}', '{"id": "2"}', "no JSON", "7", '{"text": null}', "", '{"text": "很好"}']
    path.write_text("\n".join(rows))
    counts = Counter()
    assert list(read_documents(path, counts)) == ["不错", "很好"]
    assert counts == {"kept": 2, "no JSON with a text": 4, "empty": 1, "cut": 0}
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
    with pytest.raises(ModelError, match=r"No space left.*the one before is kept"):
        pretrain(corpus, steps=30)
    assert (folder / "state.json").read_text() == before and len(list(folder.parent.iterdir())) == 4


def test_encoders_that_cannot_be_loaded(tmp_path):
    with pytest.raises(ModelError, match=r"does not exist"):
        locate(str(tmp_path / "none"))
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
    for part, rows in (("train", texts[50:]), ("dev", texts[50:]), ("test", [texts[0], *texts[55:]])):
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
    with pytest.raises(ConfigError, match="warmup=3 and decay=8 do not fit into steps=10"):
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
