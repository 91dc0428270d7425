"""The errors a user can cause and mend.

Each message names the thing that is wrong and the way out. The command line prints the message alone and
exits with code 2; every other exception is a bug of ours and shows its traceback.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class AftersalesError(Exception):
    """Base of every error that a user can mend."""


class ConfigError(AftersalesError):
    """A configuration file, key, override or option is wrong."""


class DataError(AftersalesError):
    """A data file, column, row or label is wrong."""


class ModelError(AftersalesError):
    """A model, encoder or checkpoint folder is missing, altered or does not fit."""


class TrackingError(AftersalesError):
    """The experiment store or the registry lacks something or cannot be reached."""


class StorageError(AftersalesError):
    """A disk is full, or a folder must not be written."""


@contextmanager
def told_errors() -> Iterator[None]:
    """End the program with the message of an error that its user can mend, and exit code 2."""
    try:
        yield
    except AftersalesError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, else the list of known names."""
    choices = sorted(known)
    close = get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(choices)}" if choices else ""
