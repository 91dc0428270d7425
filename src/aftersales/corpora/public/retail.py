"""A public set of a shop's invoices whose cancellations are returns."""

from pathlib import Path

import pandas as pd

from aftersales.core.errors import DataError
from aftersales.corpora.interactions import Event, Interactions, Item
from aftersales.corpora.public.interactions import PublicInteractions
from aftersales.corpora.time_split import global_time_split

COLUMNS = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"]
# Days of the validation and of the test targets.
VALIDATION_DAYS, TEST_DAYS = 30.0, 30.0


def online_retail_uci(folder: Path) -> PublicInteractions:
    """Invoices of a British wholesaler of gifts, December 2010 to December 2011 (UCI Online Retail).

    An invoice line is a ``buy``, a line of a cancelled invoice a ``return``. Left out are lines without a customer,
    repeated lines, lines that are no product (postage, fees, discounts: their codes do not begin with five digits) and
    corrections of the stock. Codes that differ in their last letters are variants of one product (``group``). The split
    is ours, since none is published: by time, for purchases alone; ``interactions`` holds the returns too.

    Raises:
        DataError: the file is missing or lacks a column.
    """
    lines = _lines(folder / "online_retail.csv.xz")
    interactions = Interactions.of_tables(_items(lines), lines[list(Event._fields)])
    split = global_time_split(interactions.only(["buy"]), VALIDATION_DAYS, TEST_DAYS)
    return PublicInteractions(interactions, split, split.train, exclude_history=False)


def _lines(path: Path) -> pd.DataFrame:
    """Return the lines that are events, with the columns of ``Event`` and those of the file."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; is the public set whole?")
    table = pd.read_csv(path, dtype=dict.fromkeys(("InvoiceNo", "StockCode", "Description"), str))
    if absent := [column for column in COLUMNS if column not in table]:
        raise DataError(f"{path} has no column {absent[0]!r}; is the public set whole?")
    table = table.drop_duplicates()
    table["StockCode"] = table["StockCode"].str.upper()
    cancelled = table["InvoiceNo"].str.startswith("C")
    product = table["StockCode"].str.match(r"[0-9]{5}")
    kept = table["CustomerID"].notna() & product & (cancelled | (table["Quantity"] > 0))
    table, cancelled = table[kept], cancelled[kept]
    return table.assign(
        user_id=table["CustomerID"].astype(int).astype(str),
        item_id=table["StockCode"],
        kind=cancelled.map({True: "return", False: "buy"}),
        timestamp=(pd.to_datetime(table["InvoiceDate"]) - pd.Timestamp(0)) // pd.Timedelta(seconds=1),
        detail="",
    )


def _items(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the catalogue: the last description and the median price of each code."""
    found = lines.groupby("item_id", sort=True).agg(title=("Description", "last"), price=("UnitPrice", "median"))
    found = found.reset_index()
    found["title"] = found["title"].fillna(found["item_id"]).str.strip()
    found = found.assign(
        category="", kind="product", product_type="", brand="", group=found["item_id"].str[:5], attributes=""
    )
    return found[list(Item._fields)]
