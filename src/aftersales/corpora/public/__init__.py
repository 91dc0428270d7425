"""Adapters of public labelled sets (of interactions: ``recommendation``); their rows stay outside the repository."""

import os
from collections.abc import Callable
from pathlib import Path

from aftersales.core.errors import ConfigError, nearest
from aftersales.corpora.labelled import FOLDS, LabelledData
from aftersales.corpora.public import aspects, causes, intents, sentiment

PUBLIC_DATA_VARIABLE = "AFTERSALES_PUBLIC_DATA"

# Name -> folder and reader; the second table's readers want the fold to hold out, or the part to learn from.
ADAPTERS: dict[str, tuple[str, Callable[[Path], LabelledData]]] = {
    "online_shopping_10_cats": ("online_shopping_10_cats", sentiment.online_shopping_10_cats),
    "chnsenticorp": ("ChnSentiCorp", sentiment.chnsenticorp),
    "smp2017_task1": ("smp2017_task1", intents.smp2017_task1),
    "jd_laptop_fine": ("jd_laptop_hzwang", causes.jd_laptop_fine),
    "jd_laptop_coarse": ("jd_laptop_hzwang", causes.jd_laptop_coarse),
    "jd_laptop_sentiment": ("jd_laptop_hzwang", causes.jd_laptop_sentiment),
    "xmxoxo_phone": ("xmxoxo_phone_hotel", sentiment.xmxoxo_phone),
    "meituan_stars": ("zhijiang2019", sentiment.meituan_stars),
    "zhijiang2019": ("zhijiang2019", aspects.zhijiang2019),
    "bdci2018_car": ("bdci2018_car", aspects.bdci2018_car),
}
FOLDED: dict[str, tuple[str, Callable[[Path, int], LabelledData]]] = {
    "eprstmt_fewclue": ("eprstmt_fewclue", sentiment.eprstmt_fewclue),
    "jddc_uss_asap": ("jddc_uss_asap", intents.jddc_uss_asap),
    "unionpay_faq": ("unionpay_faq", intents.unionpay_faq),
}


def load_public(name: str, fold: int | None = None) -> LabelledData:
    """Load a public set by name from the folder in ``$AFTERSALES_PUBLIC_DATA``.

    Args:
        name: of the set.
        fold: which of the five folds to hold out, for sets without published parts.

    Raises:
        ConfigError: the set is unknown, the folder is not set or lacks it, or a fold is missing or not wanted.
    """
    if name not in {*ADAPTERS, *FOLDED}:
        raise ConfigError(f"public set {name!r} has no adapter{nearest(name, [*ADAPTERS, *FOLDED])}")
    if (name in FOLDED) != (fold is not None):
        wants = f"needs data.fold, 0 to {FOLDS - 1}" if name in FOLDED else "has published parts; leave out data.fold"
        raise ConfigError(f"public set {name!r} {wants}")
    folder = public_folder(name, (FOLDED[name] if fold is not None else ADAPTERS[name])[0])
    return FOLDED[name][1](folder, fold) if fold is not None else ADAPTERS[name][1](folder)


def public_folder(name: str, folder_name: str) -> Path:
    """Return the folder of a public set below ``$AFTERSALES_PUBLIC_DATA``.

    Raises:
        ConfigError: the variable is not set, or its folder holds no such folder.
    """
    root = os.environ.get(PUBLIC_DATA_VARIABLE)
    if not root:
        raise ConfigError(f"set {PUBLIC_DATA_VARIABLE} to the folder that holds the public sets to use {name!r}")
    found = sorted(Path(root).glob(f"**/{folder_name}"))
    if not found:
        raise ConfigError(f"{PUBLIC_DATA_VARIABLE}={root} holds no folder {folder_name!r}")
    return found[0]
