"""What goes over the wire: requests and answers of the scoring service, their limits and their examples."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from aftersales.runtime.decision import Prediction
from aftersales.runtime.events import DAY, EventKind, PastEvent
from aftersales.runtime.recommender import Recommendation
from aftersales.text.normalise import normalise

MAX_TEXTS = 64
MAX_TEXT_CHARACTERS = 2_000
MAX_TOP_K = 50
MAX_HISTORY = 1_000
MAX_ITEM_ID = 64
MAX_ITEMS = 100
MAX_SECONDS = 4_102_444_800  # the year 2100; what is greater is in milliseconds
MAX_DAYS = 36_525
# The longest valid body is 64 texts of 2,000 characters, all written as \uXXXX pairs: 1.5 MB.
MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_REQUEST_ID = 64
REQUEST_ID = rf"[A-Za-z0-9_-]{{1,{MAX_REQUEST_ID}}}"

EXAMPLE_TEXTS = ["快递三天没动静了，再不发货就退款", "衣服很好看，就是洗了一次有点掉色"]


def _says_something(text: str) -> str:
    normal = normalise(text)
    if not normal:
        raise PydanticCustomError("blank", "the text is empty once white space and invisible characters are removed")
    if len(normal) > MAX_TEXT_CHARACTERS:  # some characters stand for several
        raise PydanticCustomError("string_too_long", "the text has too many characters once they are written out")
    return text


Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS), AfterValidator(_says_something)]
ItemId = Annotated[str, Field(min_length=1, max_length=MAX_ITEM_ID)]
Seconds = Annotated[int, Field(ge=0, le=MAX_SECONDS)]


class Request(BaseModel):
    """Base of every request: nothing unknown, nothing converted, and no error that quotes what was sent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class ScoreRequest(Request):
    """Customer messages to score.

    Attributes:
        texts: 1 to 64 messages of 1 to 2,000 characters.
        top_k: how many ranked labels to return for each message (multi-label tasks return the labels given).
    """

    texts: list[Text] = Field(
        min_length=1, max_length=MAX_TEXTS, description="customer messages", examples=[EXAMPLE_TEXTS]
    )
    top_k: int = Field(default=3, ge=1, le=MAX_TOP_K, description="ranked labels to return for each message")


class HistoryEvent(Request):
    """One thing a customer did.

    Attributes:
        item_id: with which item.
        kind: what; null: a service was booked, or a product bought.
        timestamp: when, in seconds since 1970-01-01 UTC.
        days_ago: when, in days before the request, instead of ``timestamp``.
    """

    item_id: ItemId
    kind: EventKind | None = Field(default=None, description="null: a service was booked, or a product bought")
    timestamp: Seconds | None = Field(default=None, description="when, in seconds (not milliseconds) since 1970 UTC")
    days_ago: float | None = Field(
        default=None, ge=0, le=MAX_DAYS, allow_inf_nan=False, description="when, instead of timestamp"
    )

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if self.timestamp is not None and self.days_ago is not None:
            raise PydanticCustomError("two_times", "give either timestamp or days_ago")
        return self


def _written_out(entry: object) -> object:
    return {"item_id": entry} if isinstance(entry, str) else entry


# No tagged union, which BentoML would take apart; the description of the service shows both forms all the same.
HistoryEntry = Annotated[HistoryEvent, BeforeValidator(_written_out, json_schema_input_type=ItemId | HistoryEvent)]


class RecommendRequest(Request):
    """What a customer did, to recommend what comes next.

    Attributes:
        history: item ids, or events; oldest first, unless all events have times. A new customer has none.
        now: the moment of the request, to which timestamps are compared; the server's clock when null.
        k: how many items to return at most.
        kind: only products, only after-sales services, or (null) both.
        exclude_seen: leave out what is in the history.
    """

    history: list[HistoryEntry] = Field(
        max_length=MAX_HISTORY,
        description="item ids or events; oldest first, unless all events have times; may be empty",
    )
    now: Seconds | None = Field(default=None, description="the moment of the request; null: the server's clock")
    k: int = Field(default=10, ge=1, le=MAX_ITEMS, description="how many items to return at most")
    kind: Literal["product", "service"] | None = Field(default="product", description="only items of this kind")
    exclude_seen: bool = Field(default=False, description="leave out what is in the history (consumables come back)")

    @model_validator(mode="after")
    def _all_timed_or_none(self) -> Self:
        timed = [one.timestamp is not None or one.days_ago is not None for one in self.history]
        if any(timed) and not all(timed):
            raise PydanticCustomError("some_times", "some of history has a time and some has none; give all or none")
        return self

    def events(self, clock: float) -> list[PastEvent]:
        """Return the history as a recommender takes it; ``clock`` is the server's, in seconds since 1970 UTC."""
        now = clock if self.now is None else self.now
        return [_past_event(one, now) for one in self.history]


def _past_event(one: HistoryEvent, now: float) -> PastEvent:
    days = one.days_ago if one.timestamp is None else (now - one.timestamp) / DAY
    return PastEvent(one.item_id, one.kind, days)


class ModelInfo(BaseModel):
    """Which model answered: its version names exactly its files, the data version what it learned from."""

    name: str
    version: str
    data_version: str


class ScoreResponse(BaseModel):
    """One prediction for each text, in the order of the request."""

    request_id: str
    model: ModelInfo
    results: list[Prediction]


class TriageResponse(BaseModel):
    """For each text, in the order of the request, one prediction of every classifier, by task name."""

    request_id: str
    models: dict[str, ModelInfo]
    results: list[dict[str, Prediction]]


class RecommendResponse(BaseModel):
    """Recommended items, best first.

    Attributes:
        request_id: the caller's own, else a made one.
        model: which model answered.
        results: fewer than asked for where there are no more.
        reason: ``history``, or ``popularity`` where nothing of the history is known to the model.
        unknown: item ids of the history that the model does not know, which were ignored.
    """

    request_id: str
    model: ModelInfo
    results: list[Recommendation]
    reason: Literal["history", "popularity"]
    unknown: list[str]


class Problem(BaseModel):
    """What is wrong with one field; never what was sent in it."""

    field: str
    problem: str


class ErrorResponse(BaseModel):
    """Why a request was refused."""

    error: str
    detail: list[Problem] = []
    request_id: str
