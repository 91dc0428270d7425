"""From dirty text files to the batches of a step."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.conftest import pretrain, pretrain_config

from aftersales.core.errors import DataError
from aftersales.core.paths import load_script
from aftersales.corpora.public import FOLDED
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
from aftersales.encoders.load import load_tokenizer


def test_processes_share_a_batch_and_each_has_something_hidden(corpus, tiny_encoder):
    recipe, config = load_script("training/pretrain.py"), pretrain_config(corpus, batch_size=7, mask_rate=1e-6)
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
    config = pretrain_config(corpus, corpus={"folder": "corpus", "files": files})  # relative: begins at the project
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
    recipe, config = load_script("training/pretrain.py"), pretrain_config(corpus)
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
