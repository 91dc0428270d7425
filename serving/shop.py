"""Which items the shop still sells, from lists of ids that the platform rewrites whenever it likes."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aftersales.core.errors import ConfigError
from aftersales.runtime.catalogue import Catalogue
from serving.settings import ALLOWED_ITEMS, OUT_OF_STOCK

logger = logging.getLogger("bentoml.aftersales")
Mask = NDArray[np.bool_]


class ItemFile:
    """A file of item ids, one a line, UTF-8, read anew when it has changed; safe to share between threads.

    A change that would be refused at the start leaves the list read before in force, and is told once in the log.

    Args:
        path: the file.
        variable: the setting that names it, for errors.
        catalogues: recommender -> its items.
        needed: whether the file must list an item of each recommender.

    Raises:
        ConfigError: it cannot be read, or lists no item where it is ``needed``.
    """

    def __init__(self, path: Path, variable: str, catalogues: Mapping[str, Catalogue], needed: bool = False) -> None:
        self._path, self._variable, self._catalogues, self._needed = path, variable, catalogues, needed
        self._lock = threading.Lock()
        # Of the file as it was last read, whether it could be used or not: what is damaged is not read at each request.
        self._stamp = self._stamp_now()
        self._masks = self._read()

    def mask(self, recommender: str) -> Mask:
        """Return which items of a recommender the file lists, bool of shape (n_items,)."""
        with self._lock:
            stamp = self._stamp_now()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._masks = self._read()
                except ConfigError as error:
                    logger.warning("the list read before stays in force: %s", error)
            return self._masks[recommender]

    def _stamp_now(self) -> tuple[int, ...] | None:
        try:
            seen = self._path.stat()
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size, seen.st_ino

    def _read(self) -> dict[str, Mask]:
        try:
            ids = [line.strip() for line in self._path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self._variable}: {self._path} cannot be read ({error}); name a file of item ids"
            ) from None
        masks = {name: catalogue.mask(ids) for name, catalogue in self._catalogues.items()}
        for name, mask in masks.items() if self._needed else ():
            if not mask.any():
                raise ConfigError(
                    f"{self._variable}: {self._path} lists no item of the model {name!r}; give one item id a line"
                )
        return masks


class Shop:
    """What may be shown whatever a request says.

    Args:
        allowed: file of the items that may be shown; None for all.
        out_of_stock: file of the items that are sold out; None for none.
        catalogues: recommender -> its items.

    Raises:
        ConfigError: a file cannot be read, or no item of a model is allowed.
    """

    def __init__(self, allowed: Path | None, out_of_stock: Path | None, catalogues: Mapping[str, Catalogue]) -> None:
        self._allowed = ItemFile(allowed, ALLOWED_ITEMS, catalogues, needed=True) if allowed else None
        self._out = ItemFile(out_of_stock, OUT_OF_STOCK, catalogues) if out_of_stock else None

    def among(self, recommender: str, in_stock: bool) -> Mask | None:
        """Return which items a recommender may show, bool of shape (n_items,); None for all.

        Args:
            recommender: its name.
            in_stock: whether to leave out what is sold out.
        """
        masks = [self._allowed.mask(recommender)] if self._allowed else []
        if in_stock and self._out:
            masks.append(~self._out.mask(recommender))
        return np.logical_and.reduce(masks) if masks else None
