"""Public sets of interactions that are files of item numbers in the order of time."""

import json
from pathlib import Path

from aftersales.core.errors import DataError
from aftersales.corpora.interactions import Split, leave_one_out
from aftersales.corpora.public.interactions import PublicInteractions, holdout_of, numbered, of_sequences
from aftersales.corpora.tables import read_rows

# The share of Tmall's training sessions, the last ones, that models are chosen on.
TMALL_VALIDATION = 0.1


def ml1m_gsasrec(folder: Path) -> PublicInteractions:
    """MovieLens-1M as gSASRec splits it (Petrov & Macdonald 2023, arXiv 2308.07192).

    All users have a test target, their last item, and 512 a validation target, the last but one. Of the others the last
    item but one is not among the files, so that their histories in test are shorter by it than in the published
    figures.
    """
    train, validation = sequences(folder / "train" / "input.txt"), sequences(folder / "val" / "input.txt")
    validation_targets = _column(folder / "val" / "output.txt", len(validation))
    test_targets = _column(folder / "test" / "output.txt", len(train))
    numbers = _continued(train, validation, folder)
    known = list(train)
    for number, row, target in zip(numbers, validation, validation_targets, strict=True):
        known[number] = [*row, target]
    whole = [[*row, target] for row, target in zip(known, test_targets, strict=True)]
    items, users = numbered(whole), [str(number) for number in range(1, len(train) + 1)]
    learned = of_sequences(items, train, users)
    split = Split(
        train=learned,
        validation=holdout_of(items, validation, validation_targets, [users[number] for number in numbers]),
        test=holdout_of(items, known, test_targets, users),
    )
    return PublicInteractions(of_sequences(items, whole, users), split, learned, exclude_history=True)


def ml1m_known(folder: Path) -> PublicInteractions:
    """MovieLens-1M split likewise one event earlier, where every user's whole history is among the files.

    The last item of each training row is the test target. The last but one is the validation target of the users on
    whom ``ml1m_gsasrec`` chooses.
    """
    rows, validation = sequences(folder / "train" / "input.txt"), sequences(folder / "val" / "input.txt")
    chosen = _continued(rows, validation, folder)
    learned = [row[:-1] for row in rows]
    for number in chosen:
        learned[number] = rows[number][:-2]
    items, users = numbered(rows), [str(number) for number in range(1, len(rows) + 1)]
    train = of_sequences(items, learned, users)
    before, wanted = [rows[number][:-2] for number in chosen], [rows[number][-2] for number in chosen]
    split = Split(
        train=train,
        validation=holdout_of(items, before, wanted, [users[number] for number in chosen]),
        test=holdout_of(items, [row[:-1] for row in rows], [row[-1] for row in rows], users),
    )
    return PublicInteractions(of_sequences(items, rows, users), split, train, exclude_history=True)


def s3rec(folder: Path, name: str) -> PublicInteractions:
    """Amazon reviews or Yelp, users and items with five events or more (S3-Rec: Zhou et al. 2020, arXiv 2008.07873).

    The last item of each user is the test target, the last but one the validation target. Items have attributes.
    """
    rows = sequences(folder / f"{name}.txt")
    described = json.loads(_existing(folder / f"{name}_item2attributes.json").read_text(encoding="utf-8"))
    interactions = of_sequences(
        numbered([row[1:] for row in rows]), [row[1:] for row in rows], [row[0] for row in rows], described
    )
    split = leave_one_out(interactions)
    return PublicInteractions(interactions, split, split.train, exclude_history=True)


def gcegnn_tmall(folder: Path) -> PublicInteractions:
    """Anonymous sessions of Tmall (GCE-GNN: Wang et al. 2020, arXiv 2106.05081): the next item after each prefix.

    The test prefixes are the published ones. The training sessions are taken to be in the order of time, and the last
    of them are held out for validation in the same way.
    """
    sessions = [_session(row) for _, row in read_rows(folder / "all_train_seq.jsonl", ("session",))]
    test = [(_session(row), str(row["next"])) for _, row in read_rows(folder / "test.jsonl", ("session", "next"))]
    items = numbered([*sessions, *([*row, following] for row, following in test)])
    names = [f"s{number:06d}" for number in range(len(sessions))]  # in the order of time when sorted
    cut = round(len(sessions) * (1 - TMALL_VALIDATION))
    prefixes = [(row[:end], row[end]) for row in sessions[cut:] for end in range(1, len(row))]
    whole = of_sequences(items, sessions, names)
    split = Split(
        train=whole.where((whole.events["user_id"] < names[cut]).to_numpy(dtype=bool)),
        validation=holdout_of(items, [row for row, _ in prefixes], [following for _, following in prefixes]),
        test=holdout_of(items, [row for row, _ in test], [following for _, following in test]),
    )
    return PublicInteractions(whole, split, whole, exclude_history=False)


def sequences(path: Path) -> list[list[str]]:
    """Read a file with one sequence of ids a line, separated by blanks.

    Raises:
        DataError: the file is missing, or a line is empty or holds something else than numbers; it is named.
    """
    rows = [line.split() for line in _existing(path).read_text(encoding="utf-8").splitlines()]
    for line, row in enumerate(rows, 1):
        if not row or not all(word.isdecimal() for word in row):
            raise DataError(f"{path} line {line}: {' '.join(row)[:40]!r} is not a sequence of ids; is the set whole?")
    return rows


def _column(path: Path, expected: int) -> list[str]:
    rows = sequences(path)
    if len(rows) != expected:
        raise DataError(f"{path} has {len(rows)} lines and its inputs {expected}; is the set whole?")
    return [row[0] for row in rows]


def _continued(train: list[list[str]], validation: list[list[str]], folder: Path) -> list[int]:
    """Return which training row each validation row goes on from: it is that row and one item more."""
    numbers = {tuple(row): number for number, row in enumerate(train)}
    found = [numbers.get(tuple(row[:-1]), -1) for row in validation]
    if -1 in found or len(set(found)) != len(found):
        raise DataError(f"{folder}: val/input.txt does not continue rows of train/input.txt; is the set whole?")
    return found


def _session(row: dict[str, object]) -> list[str]:
    session = row["session"]
    if not isinstance(session, list) or not session:
        raise DataError(f"a session of the set is {session!r} and not a list of items; is the set whole?")
    return [str(item) for item in session]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path} does not exist; is the public set whole?")
    return path
