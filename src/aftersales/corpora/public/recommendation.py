"""Adapters of public sets of interactions, by name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from aftersales.core.errors import ConfigError, nearest
from aftersales.corpora.public import public_folder, retail, sequences
from aftersales.corpora.public.interactions import PublicInteractions

# Name -> folder and reader.
INTERACTIONS: dict[str, tuple[str, Callable[[Path], PublicInteractions]]] = {
    "ml1m_gsasrec": ("ml1m_gsasrec", sequences.ml1m_gsasrec),
    "ml1m_gsasrec/known": ("ml1m_gsasrec", sequences.ml1m_known),
    "s3rec_amazon/Beauty": ("s3rec_amazon", partial(sequences.s3rec, name="Beauty")),
    "s3rec_amazon/Toys": ("s3rec_amazon", partial(sequences.s3rec, name="Toys_and_Games")),
    "s3rec_amazon/Sports": ("s3rec_amazon", partial(sequences.s3rec, name="Sports_and_Outdoors")),
    "s3rec_amazon/Yelp": ("s3rec_amazon", partial(sequences.s3rec, name="Yelp")),
    "gcegnn_Tmall": ("gcegnn_Tmall", sequences.gcegnn_tmall),
    "online_retail_uci": ("online_retail_uci", retail.online_retail_uci),
}


def load_public_interactions(name: str) -> PublicInteractions:
    """Load a public set of interactions by name from the folder in ``$AFTERSALES_PUBLIC_DATA``.

    Raises:
        ConfigError: the set is unknown, or the folder is not set or lacks it.
        DataError: a file of the set is missing or damaged.
    """
    if name not in INTERACTIONS:
        raise ConfigError(f"public set {name!r} has no adapter for interactions{nearest(name, INTERACTIONS)}")
    folder_name, read = INTERACTIONS[name]
    return read(public_folder(name, folder_name))
