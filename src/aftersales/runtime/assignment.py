"""Which variant of an A/B test a user gets: the same at every request, with nothing stored.

Weighted rendezvous hashing: every variant draws a number from the hash of experiment, salt, variant and user, and the
best draw wins (Thaler & Ravishankar 1998, "Using Name-Based Mappings to Increase Hit Rates"; weights by the
logarithmic method of Schindelhauer & Schomaker 2005, "Weighted Distributed Hash Tables"). Only ratios of weights
count, so a user leaves a variant only for one that has gained weight against it: raising a treatment's weight moves
users into it and nobody else, and no treated user goes back to a control that has lost weight.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from aftersales.core.config import Config
from aftersales.core.errors import ConfigError, DataError, nearest

# No control characters, so that names joined by one cannot be read in two ways.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
Salt = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$", max_length=100)]
_SEPARATOR = "\x1f"
CHAMPION = "champion"


class Variant(Config):
    """One of the things that users may get.

    Attributes:
        name: as it is logged with every answer.
        weight: share of the experiment's users; 0 switches the variant off.
        recommender: which packaged recommender the service answers with: ``champion``, or the name that
            ``aftersales package --challenger`` gave to another one.
        explore: temperature at which the service draws the first place among the best items; 0 leaves nothing to
            chance.
    """

    name: Name
    weight: float = Field(ge=0, le=1)
    recommender: Name = CHAMPION
    explore: float = Field(default=0.0, ge=0, le=100)


class Experiment(Config):
    """An A/B test.

    Attributes:
        name: unique among the experiments; a part of the hash.
        salt: the other part; a new salt assigns all users anew.
        control: name of the variant that the others are compared with.
        traffic: share of all users who take part; the others get what control gets and are not read. Raising it adds
            users and moves none, and keeps the ratio of the variants, so it is the safe way to ramp up.
        variants: two or more; the weights sum to 1. Their order does not matter.
    """

    name: Name
    salt: Salt
    control: Name
    traffic: float = Field(default=1.0, ge=0, le=1)
    variants: list[Variant] = Field(min_length=2)

    def variant(self, name: str) -> Variant:
        """Return one of the variants by its name."""
        return next(variant for variant in self.variants if variant.name == name)

    @property
    def weights(self) -> dict[str, float]:
        """Variant -> share of the experiment's users."""
        return {variant.name: variant.weight for variant in self.variants}

    @model_validator(mode="after")
    def _check(self) -> Self:
        _refuse_repeated("variant", [variant.name for variant in self.variants], f"experiment {self.name!r}")
        total = math.fsum(self.weights.values())
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the weights of experiment {self.name!r} sum to {total:g}; they must sum to 1")
        if self.control not in self.weights:
            hint = nearest(self.control, self.weights)
            raise ValueError(f"control {self.control!r} of experiment {self.name!r} is none of its variants{hint}")
        return self


class Experiments(Config):
    """All experiments of a service; each assigns its users independently of the others."""

    experiments: list[Experiment] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _refuse_repeated("experiment", [experiment.name for experiment in self.experiments], "the file")
        return self

    def experiment(self, name: str | None = None) -> Experiment:
        """Return the experiment ``name``; it may be left out where there is only one.

        Raises:
            ConfigError: there is no such experiment, or no name although there are several.
        """
        known = {experiment.name: experiment for experiment in self.experiments}
        if name is None and len(known) == 1:
            return self.experiments[0]
        if name is None:
            raise ConfigError(f"name one of the experiments: {', '.join(sorted(known))}")
        if name not in known:
            raise ConfigError(f"there is no experiment {name!r}{nearest(name, known)}")
        return known[name]


class Assigner:
    """Assigns users to the variants of one experiment; made once, then asked at every request, from any thread."""

    def __init__(self, experiment: Experiment) -> None:
        def stream(*parts: str) -> hashlib.blake2b:
            return _started(experiment.name, experiment.salt, *parts)

        self._traffic = experiment.traffic
        self._gate = stream("traffic")
        self._draws = [(one.name, one.weight, stream("variant", one.name)) for one in experiment.variants if one.weight]

    def variant(self, user_id: str) -> str | None:
        """Return the user's variant, or None for a user who does not take part.

        Raises:
            DataError: the user id is empty.
        """
        if not user_id:
            raise DataError("the user id is empty; a user without one cannot take part in an experiment")
        user = user_id.encode("utf-8", "surrogatepass")
        if self._traffic < 1 and _uniform(self._gate, user) >= self._traffic:
            return None
        # Exponential draws with rate = weight: the first to come wins with a chance of its weight.
        return min((-math.log(_uniform(state, user)) / weight, name) for name, weight, state in self._draws)[1]


def _started(*parts: str) -> hashlib.blake2b:
    """Return a hash that has read ``parts``, so that only the user id remains to be read at a request."""
    return hashlib.blake2b(_SEPARATOR.join((*parts, "")).encode(), digest_size=8)


def _uniform(state: hashlib.blake2b, user: bytes) -> float:
    """Return a number evenly spread over the open interval (0, 1)."""
    drawn = state.copy()
    drawn.update(user)
    return ((int.from_bytes(drawn.digest()) >> 12) + 0.5) * 2.0**-52


def _refuse_repeated(what: str, names: Sequence[str], where: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{where} lists the {what} {repeated[0]!r} twice; names must be unique")
