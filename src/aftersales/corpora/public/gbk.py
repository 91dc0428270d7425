"""Tables of public sets that are not UTF-8. Files of one's own are expected in UTF-8 (``corpora.tables``)."""

import csv
import io
from pathlib import Path

from aftersales.core.errors import DataError


def read_gbk(path: Path) -> list[dict[str, str]]:
    """Read a comma-separated table in GB18030; what is no character of it becomes U+FFFD, an absent cell is empty.

    Raises:
        DataError: the file is missing.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; is the public set whole?")
    text = path.read_bytes().decode("gb18030", "replace")
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="")
    return [{name: value for name, value in row.items() if isinstance(name, str)} for row in rows]
