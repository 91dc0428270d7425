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

    Args:
        path: the file.
        variable: the setting that names it, for errors.
        catalogues: recommender -> its items.

    Raises:
        ConfigError: it cannot be read.
    """

    def __init__(self, path: Path, variable: str, catalogues: Mapping[str, Catalogue]) -> None:
        self._path, self._variable, self._catalogues = path, variable, catalogues
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] | None = None
        self._masks: dict[str, Mask] = {}
        try:
            self._read()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{variable}: {path} cannot be read ({error}); name a file of item ids") from None

    def mask(self, recommender: str) -> Mask:
        """Return which items of a recommender the file lists, bool of shape (n_items,)."""
        with self._lock:
            try:
                self._read()
            except (OSError, UnicodeDecodeError) as error:
                # A list that is being replaced must not stop the answers: the last one stays in force.
                logger.warning("%s cannot be read (%s): the list read before stays", self._variable, type(error))
            return self._masks[recommender]

    def _read(self) -> None:
        seen = self._path.stat()
        stamp = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        if stamp != self._stamp:
            ids = [line.strip() for line in self._path.read_text(encoding="utf-8-sig").splitlines()]
            self._masks = {name: catalogue.mask(ids) for name, catalogue in self._catalogues.items()}
            self._stamp = stamp


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
        self._allowed = ItemFile(allowed, ALLOWED_ITEMS, catalogues) if allowed else None
        self._out = ItemFile(out_of_stock, OUT_OF_STOCK, catalogues) if out_of_stock else None
        for name in catalogues if self._allowed else ():
            if not self.among(name, in_stock=False).any():  # type: ignore[union-attr]  # there is a list
                raise ConfigError(f"{ALLOWED_ITEMS}: {allowed} lists no item of the model; give one item id a line")

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
