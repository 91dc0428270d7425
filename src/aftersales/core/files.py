"""Files that are never half written: everything is written aside and then renamed."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aftersales.core.errors import StorageError

# What a user can mend; any other error while writing is a bug of ours.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its place when the block ends without an error.

    An existing ``target`` is replaced as a whole; after an error it is untouched and the new folder is gone. After a
    kill ``recover`` puts things right.

    Raises:
        StorageError: the disk is full, or the folder must not be written.
    """
    try:
        yield from _replaced(target)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise unwritable(target, error) from None


def unwritable(target: Path, reason: object) -> StorageError:
    """Return the error of a ``target`` that could not be written; libraries report a full disk in their own ways."""
    return StorageError(
        f"{target} cannot be written ({reason}); what stood there is kept: "
        "make room or choose another place, and run again"
    )


def _replaced(target: Path) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        aside.chmod(0o755)
        yield aside
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.rename(old / "replaced")
            try:
                aside.rename(target)
            except OSError:
                (old / "replaced").rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def recover(target: Path) -> None:
    """Put right what a killed ``atomic_folder`` left: a ``target`` moved away comes back, folders aside are removed.

    Only for a ``target`` that no other process is writing.
    """
    left = re.compile(rf"\.{re.escape(target.name)}\.(old\.)?[a-z0-9_]{{8}}")  # eight: see tempfile.mkdtemp
    found = [path for path in target.parent.glob(f".{target.name}.*") if left.fullmatch(path.name)]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        if (path / "replaced").is_dir() and not target.exists():
            (path / "replaced").rename(target)
        shutil.rmtree(path, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with readable Chinese."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def sha256_of_file(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
