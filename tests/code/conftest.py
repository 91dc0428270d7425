"""A corpus and public sets for the tests of pre-training."""

import pytest


@pytest.fixture
def corpus(project, shipped_texts):
    (project / "corpus").mkdir()
    (project / "corpus" / "texts.txt").write_text("\n".join(shipped_texts), encoding="utf-8")
    return project


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
