"""The normal form of a text, and files that are whole or not there."""

from pathlib import Path

import pytest

from aftersales.core.errors import StorageError
from aftersales.core.files import atomic_folder, recover, write_text
from aftersales.text.normalise import key, normalise


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("ＡＢＣ１２３，好", "ABC123,好"),
        ("好\u200b的\ufeff", "好的"),
        ("退  款\n\n谢谢 ", "退 款 谢谢"),
        ("啊啊啊啊啊啊", "啊啊啊"),
        ("！！！！！！", "!!!"),
        ("100000元", "100000元"),
        ("\u202e反向", "反向"),
        ("a\ud800b", "ab"),
    ],
)
def test_normal_form(raw, expected):
    assert normalise(raw) == expected
    assert normalise(normalise(raw)) == normalise(raw)


def test_key_ignores_punctuation_and_case_but_keeps_emoji_apart():
    assert key("Hello， 世界！") == key("hello世界")
    assert key("👍👍") != key("😡")


def test_a_failed_folder_leaves_the_old_one_and_no_trace(tmp_path):
    target = tmp_path / "model"
    with atomic_folder(target) as aside:
        (aside / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(target) as aside:
        (aside / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with atomic_folder(target) as aside:
        (aside / "b").write_text("newer")
    assert [path.name for path in target.iterdir()] == ["b"]


def test_a_folder_whose_replacement_was_killed_comes_back(tmp_path, monkeypatch):
    target, rename = tmp_path / "model", Path.rename
    with atomic_folder(target) as aside:
        (aside / "a").write_text("old")

    def killed(path, to):
        if to == target:
            raise KeyboardInterrupt
        return rename(path, to)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", killed)
        with atomic_folder(target):
            pass
    assert not target.exists()
    (tmp_path / ".model.abcdefgh").mkdir()  # what a kill leaves before the replacement
    for other in (".model.v2.abcdefgh", ".model.backup"):
        (tmp_path / other).mkdir()
    recover(target)
    assert (target / "a").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"model", ".model.v2.abcdefgh", ".model.backup"}
    recover(tmp_path / "none" / "model")


def test_a_full_disk_is_told_and_a_bug_is_not_taken_for_one(tmp_path):
    with pytest.raises(StorageError, match=r"No space left.*what stood there is kept"), atomic_folder(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "a"):
        (tmp_path / "none").read_text()
    assert not list(tmp_path.iterdir())


def test_a_failed_text_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
