"""What the platform sets of a running service: environment variables that name files. All of them may be left out."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

HISTORIES = "AFTERSALES_HISTORIES"
ALLOWED_ITEMS = "AFTERSALES_ALLOWED_ITEMS"
OUT_OF_STOCK = "AFTERSALES_OUT_OF_STOCK"
EXPERIMENT = "AFTERSALES_EXPERIMENT"
LOG = "AFTERSALES_RECOMMENDATION_LOG"
VARIABLES = (HISTORIES, ALLOWED_ITEMS, OUT_OF_STOCK, EXPERIMENT, LOG)


@dataclass(frozen=True)
class Settings:
    """The files that are set.

    Attributes:
        histories: what users did, as ``aftersales histories build`` writes it; without it only histories in requests.
        allowed_items: ids of the items that may be shown, one a line; without it all of the catalogue.
        out_of_stock: ids of items that are sold out, one a line.
        experiment: an A/B test as in ``configs/ab``; without it everybody gets the champion.
        log: JSON lines to which every item shown is added; without it nothing is kept.
    """

    histories: Path | None = None
    allowed_items: Path | None = None
    out_of_stock: Path | None = None
    experiment: Path | None = None
    log: Path | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the variables; an empty one is one that is not set."""
        return cls(*(Path(value) if (value := environment.get(name)) else None for name in VARIABLES))


def absolute(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the files named from the root, as a server runs in a folder of its own."""
    named = {name: str(Path(environment[name]).expanduser().resolve()) for name in VARIABLES if environment.get(name)}
    return {**environment, **named}
