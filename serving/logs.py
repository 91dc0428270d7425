"""Nothing a customer wrote reaches the server's log.

BentoML logs the whole traceback of a failed request, and an exception's message may quote what was sent. So the
place of an error is logged and its message withheld, except of our own model errors, which name files only.
Control characters are escaped: a path or header of a request can then not forge a line of the log.
"""

import logging
import traceback

from aftersales.core.errors import ModelError

_CONTROL = {code: f"\\x{code:02x}" for code in [*range(32), *range(127, 160)] if chr(code) not in "\t\n"}
_ONE_LINE = _CONTROL | {ord("\n"): "\\n"}


class WithholdTexts(logging.Filter):
    """Rewrites each record so that it holds no message of a foreign exception and no control character."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite ``record``; every record passes."""
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = describe(record.exc_info[1])
            record.exc_info = None
        record.msg, record.args = record.getMessage().translate(_ONE_LINE), ()
        return True


def describe(error: BaseException) -> str:
    """Return where ``error`` and its causes arose and what kind they are, without their messages."""
    lines: list[str] = []
    chain: BaseException | None = error
    while chain is not None:
        message = str(chain) if isinstance(chain, ModelError) else "(message withheld: it may quote a customer)"
        lines[:0] = [*traceback.format_tb(chain.__traceback__), f"{type(chain).__name__}: {message}\n"]
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return "".join(lines).rstrip("\n").translate(_CONTROL)


def withhold_texts() -> None:
    """Put the filter on every handler that the server's loggers use now."""
    loggers = [logging.getLogger(name) for name in (None, "bentoml", "uvicorn.error", "circus")]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if not any(isinstance(known, WithholdTexts) for known in handler.filters):
            handler.addFilter(WithholdTexts())
