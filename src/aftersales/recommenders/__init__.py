"""Recommenders behind one interface. A new one is a file with a subclass of ``Recommender`` and a line here."""

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from aftersales.core.config import Config
from aftersales.core.errors import ConfigError, nearest
from aftersales.recommenders.base import Recommender
from aftersales.recommenders.content import Content
from aftersales.recommenders.ease import Ease
from aftersales.recommenders.ials import Ials
from aftersales.recommenders.item_knn import ItemKnn
from aftersales.recommenders.popularity import Popularity
from aftersales.recommenders.sequential import Sequential

RECOMMENDERS: dict[str, type[Recommender[Any]]] = {
    recommender.name: recommender
    for recommender in (
        Popularity,
        ItemKnn,
        Ease,
        Ials,
        Content,
        Sequential,
    )
}


def create(name: str, options: dict[str, Any] | None = None) -> Recommender[Any]:
    """Return the unfitted recommender ``name`` with ``options`` of its configuration.

    Raises:
        ConfigError: an unknown name or option (the nearest valid one is named), or a wrong value.
    """
    if name not in RECOMMENDERS:
        raise ConfigError(f"unknown recommender {name!r}{nearest(name, RECOMMENDERS)}")
    return RECOMMENDERS[name].from_options(options or {}, f"options of {name}")


class ModelConfig(Config):
    """Which recommender, with options of its own configuration; wrong ones are found before anything is read."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in RECOMMENDERS:
            raise ValueError(f"there is no such recommender{nearest(name, RECOMMENDERS)}")
        return name

    @field_validator("options")
    @classmethod
    def _of_this_recommender(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if name := info.data.get("name"):
            try:
                create(name, options)
            except ConfigError as error:
                raise ValueError(f"{error}; with another model.name begin from model.options={{}}") from None
        return options


__all__ = ["RECOMMENDERS", "ModelConfig", "Recommender", "create"]
