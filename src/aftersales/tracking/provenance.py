"""What a run was: commit, lock file, machine and package versions."""

import getpass
import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from aftersales.core.paths import project_root

PACKAGES = ("torch", "transformers", "datasets", "onnxruntime", "mlflow", "scikit-learn", "numpy")
# What measuring itself writes.
NO_CODE = (":!experiments/*/results.json", ":!experiments/*/README.md")


def provenance() -> dict[str, str]:
    """Return tags that say from what a run was made; ``commit`` ends in ``-dirty`` when the tree was changed."""
    root = project_root()
    commit = _commit(root)
    tags = {
        "commit": commit,
        # What MLflow's own page shows as source, version and user of a run.
        "mlflow.source.git.commit": commit.removesuffix("-dirty"),
        "mlflow.source.name": "aftersales train",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user(),
        "lock_sha256": _sha256(root / "requirements.lock"),
        "machine": f"{_processor()} x {os.cpu_count()}",
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            tags[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    return tags


def user() -> str:
    """Return who runs this; a container's number may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _commit(root: Path) -> str:
    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)  # noqa: S603
        return done.stdout.strip()

    try:
        dirty = "-dirty" if git("status", "--porcelain", "--", ".", *NO_CODE) else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "none"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
