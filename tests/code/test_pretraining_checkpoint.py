"""Checkpoints of pre-training: what does not fit is refused, what is damaged is told, what was kept stays."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import pretrain
from transformers import AutoTokenizer

from aftersales.core.errors import ModelError, StorageError
from aftersales.core.paths import load_script
from aftersales.encoders.checkpoint import Checkpoint, Training

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
