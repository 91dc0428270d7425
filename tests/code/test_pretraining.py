"""Pre-training: resumed equals uninterrupted, and what does not fit is refused."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import pretrain
from transformers import AutoModel, AutoTokenizer

from aftersales.core.errors import DataError, ModelError
from aftersales.core.paths import load_script
from aftersales.encoders.load import load_for_classification, load_tokenizer, locate
from aftersales.encoders.pretraining import mask_rows, read_documents, start_local


@pytest.fixture
def corpus(project, shipped_texts):
    (project / "corpus").mkdir()
    (project / "corpus" / "texts.txt").write_text("\n".join(shipped_texts), encoding="utf-8")
    return project


def test_stopped_and_resumed_equals_uninterrupted(corpus):
    pretrain(corpus, steps=20, out="outputs/whole")
    recipe = load_script("training/pretrain.py")
    saved = recipe.save_checkpoint

    def stop_after_first(*arguments):
        saved(*arguments)
        raise KeyboardInterrupt

    recipe.save_checkpoint = stop_after_first
    try:
        with pytest.raises(KeyboardInterrupt):
            pretrain(corpus, steps=20, out="outputs/halves")
    finally:
        recipe.save_checkpoint = saved
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
        recipe="pretrain", corpus={"folder": corpus / "corpus", "files": {"texts.txt": 1}}, out="outputs/tiny", steps=10
    )
    with pytest.raises(ModelError, match=r"other values of .*batch_size"):
        recipe.resume(corpus / "outputs/tiny/checkpoint", config, None, None)


def test_the_encoder_is_an_ordinary_transformers_folder(tiny_encoder):
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_encoder), AutoModel.from_pretrained(tiny_encoder)
    batch = tokenizer(["快递😡iPhone15坏了"], return_tensors="pt")
    assert tokenizer.tokenize("坏了😡15") == ["坏", "了", "😡", "1", "5"]
    assert model(**batch.to("cpu")).last_hidden_state.shape[-1] == 32


def test_heads_of_the_first_layer_start_on_their_neighbours():
    recipe = load_script("training/pretrain.py")
    config = recipe.BertConfig(vocab_size=100, hidden_size=256, num_hidden_layers=1, num_attention_heads=4)
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = recipe.BertForMaskedLM(config).eval()
    start_local(model)
    attention = model.bert(torch.randint(0, 100, (64, 32)), output_attentions=True).attentions[0].mean(dim=0)
    for head, offset in enumerate((-1, 1, -2, 2)):
        assert attention[head, 16].argmax() == 16 + offset


def test_the_bag_of_words_loss_trains_cls_and_nothing_asks_it_otherwise():
    recipe = load_script("training/pretrain.py")
    torch.manual_seed(0)
    model = recipe.BertForMaskedLM(
        recipe.BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
    )
    model.eval()
    rows = np.random.default_rng(0).integers(5, 50, (4, 8))
    hidden = np.zeros(rows.shape, dtype=bool)
    hidden[:, 3] = True
    plain, both = (recipe.pretraining_loss(model, rows, rows, hidden, weight) for weight in (0.0, 0.5))
    wanted = torch.zeros(4, 50).scatter_(1, torch.from_numpy(rows[:, 1:]), 1.0)
    logits = model(input_ids=torch.from_numpy(rows)).logits[:, 0]
    bag = -(logits.log_softmax(1) * wanted / wanted.sum(1, keepdim=True)).sum(1).mean()
    assert (both - plain).item() == pytest.approx(0.5 * bag.item(), rel=1e-4)
    assert bag.item() > 1


def test_masks_hide_the_wanted_share_and_no_special_token():
    rows = np.tile(np.arange(100), (50, 1))
    inputs, hidden = mask_rows(rows, 0.15, 100, [0, 1, 2, 3, 4], 4, seed=1, step=0)
    assert hidden[:, 5:].mean() == pytest.approx(0.15, abs=0.02) and not hidden[:, :5].any()
    assert (inputs[~hidden] == rows[~hidden]).all()
    assert (inputs[hidden] == 4).mean() == pytest.approx(0.8, abs=0.05)


def test_a_corpus_that_is_not_there_or_not_utf8(tmp_path):
    with pytest.raises(DataError, match=r"does not exist"):
        list(read_documents(tmp_path / "none.txt"))
    (tmp_path / "a.txt").write_bytes("好\n".encode() + "质量".encode("gb18030"))
    with pytest.raises(DataError, match=r"line 2 is not UTF-8"):
        list(read_documents(tmp_path / "a.txt"))


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
