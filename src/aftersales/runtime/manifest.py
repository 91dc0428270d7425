"""The manifest of a model folder: what it is and the SHA-256 of every file, checked at every load."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from aftersales.core.errors import ModelError
from aftersales.core.files import sha256_of_file, write_text

MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """What a model folder says of itself.

    Attributes:
        format: version of the folder layout.
        kind: ``classifier`` or ``recommender``.
        name: the task's name, or ``recommendation``.
        created: UTC time of sealing, ISO 8601.
        files: path inside the folder -> hex SHA-256.
    """

    format: int = 1
    kind: str
    name: str
    created: str
    files: dict[str, str]

    @property
    def version(self) -> str:
        """A short name of exactly these files: the first 12 hex digits over all their hashes."""
        return hashlib.sha256("".join(f"{k}{v}" for k, v in sorted(self.files.items())).encode()).hexdigest()[:12]


def seal(folder: Path, kind: str, name: str) -> Manifest:
    """Write the manifest over every file now in ``folder``; nothing may change afterwards."""
    files = {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in _files(folder)}
    manifest = Manifest(kind=kind, name=name, created=datetime.now(UTC).isoformat(timespec="seconds"), files=files)
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def verify(folder: Path, kind: str | None = None) -> Manifest:
    """Check every file of a model folder against its manifest.

    Raises:
        ModelError: there is no readable manifest, a file is missing, altered or unknown, or the kind is another.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(f"{folder} is not a model folder: it has no {MANIFEST}; export the model again")
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise ModelError(f"{path} cannot be read; export the model again") from None
    present = {file.relative_to(folder).as_posix() for file in _files(folder)}
    for name, expected in manifest.files.items():
        if name not in present:
            raise ModelError(f"model file {folder / name} is missing; export or download the model again")
        if sha256_of_file(folder / name) != expected:
            raise ModelError(
                f"model file {folder / name} is corrupt or was altered (its SHA-256 is not the one in {MANIFEST}); "
                "export or download the model again"
            )
    if unknown := sorted(present - manifest.files.keys()):
        raise ModelError(f"{folder} holds {unknown[0]!r}, which its {MANIFEST} does not list; remove the file")
    if kind is not None and manifest.kind != kind:
        raise ModelError(f"{folder} holds a {manifest.kind}, not a {kind}")
    return manifest


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST and "__pycache__" not in p.parts)
