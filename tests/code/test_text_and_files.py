"""The normal form of a text, and files that are whole or not there."""

import pytest

from aftersales.core.files import atomic_folder, write_text
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


def test_a_failed_text_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
