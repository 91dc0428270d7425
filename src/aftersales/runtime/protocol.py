"""What goes over the wire: requests and answers of the scoring service, their limits and their examples."""

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from aftersales.runtime.decision import Prediction
from aftersales.runtime.events import DAY, EventKind, PastEvent
from aftersales.runtime.filters import Filters
from aftersales.runtime.recommender import Recommendation
from aftersales.text.normalise import normalise

MAX_TEXTS = 64
MAX_TEXT_CHARACTERS = 2_000
MAX_TOP_K = 50
MAX_HISTORY = 1_000
MAX_ITEM_ID = 64
MAX_ITEMS = 100
MAX_USER_ID = 128
MAX_CATEGORY = 64
MAX_CATEGORIES = 100
MAX_PRICE = 1e9
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
UserId = Annotated[str, Field(min_length=1, max_length=MAX_USER_ID)]
Category = Annotated[str, Field(min_length=1, max_length=MAX_CATEGORY)]
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
    """Whom to recommend to, and what may be shown.

    Attributes:
        user_id: whose stored history to look up; also decides the variant of an experiment.
        history: item ids, or events; oldest first, unless all events have times. With ``user_id`` it is what the store
            does not know yet: what has no time comes last. A new customer has none.
        now: the moment of the request, to which timestamps are compared and after which nothing stored is used; the
            server's clock when null.
        k: how many items to return at most.
        kind: only products, only after-sales services, or (null) both.
        exclude_seen: leave out what the customer has bought.
        categories: only these; null for all.
        exclude_categories: none of these.
        exclude_items: none of these, such as what is out of stock; unknown ids are ignored.
        in_stock: leave out what the service's list of items says is out of stock, where it has one.
        price_max: CNY, nothing dearer.
    """

    user_id: UserId | None = Field(
        default=None, description="whose stored history to look up; decides the variant, too", examples=["U000001"]
    )
    history: list[HistoryEntry] = Field(
        default=[],
        max_length=MAX_HISTORY,
        description="item ids or events; oldest first, unless all events have times; may be empty; beside user_id "
        "these are added to the stored ones",
    )
    now: Seconds | None = Field(default=None, description="the moment of the request; null: the server's clock")
    k: int = Field(default=10, ge=1, le=MAX_ITEMS, description="how many items to return at most")
    kind: Literal["product", "service"] | None = Field(default="product", description="only items of this kind")
    exclude_seen: bool = Field(
        default=False,
        description="leave out what was bought or booked; off because consumables are bought again",
    )
    categories: list[Category] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CATEGORIES,
        description="only items of these categories",
        examples=[["手机通讯", "影音数码"]],
    )
    exclude_categories: list[Category] = Field(
        default=[], max_length=MAX_CATEGORIES, description="no items of these categories", examples=[["食品生鲜"]]
    )
    exclude_items: list[ItemId] = Field(
        default=[],
        max_length=MAX_HISTORY,
        description="none of these items, such as what is sold out; unknown ids are ignored",
        examples=[["P00001"]],
    )
    in_stock: bool = Field(default=True, description="leave out what the service's stock list says is sold out")
    price_max: float | None = Field(
        default=None, ge=0, le=MAX_PRICE, allow_inf_nan=False, description="CNY, nothing dearer", examples=[199]
    )

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.user_id is None and "history" not in self.model_fields_set:
            raise PydanticCustomError("nobody", "give user_id, history (empty for a new customer) or both")
        return self

    @model_validator(mode="after")
    def _all_timed_or_none(self) -> Self:
        timed = [one.timestamp is not None or one.days_ago is not None for one in self.history]
        if any(timed) and not all(timed):
            raise PydanticCustomError("some_times", "some of history has a time and some has none; give all or none")
        return self

    def events(self, clock: float) -> list[PastEvent]:
        """Return the history as a recommender takes it; ``clock`` is the server's, in seconds since 1970 UTC."""
        return [_past_event(one, self.moment(clock)) for one in self.history]

    def moment(self, clock: float) -> float:
        """Return when the request is, in seconds since 1970 UTC; ``clock`` is the server's."""
        return clock if self.now is None else float(self.now)

    def filters(self, among: NDArray[np.bool_] | None = None) -> Filters:
        """Return what may be shown; ``among`` is what the shop sells, bool of shape (n_items,)."""
        return Filters(
            kind=self.kind,
            categories=self.categories,
            exclude_categories=self.exclude_categories,
            exclude_items=self.exclude_items,
            exclude_seen=self.exclude_seen,
            price_max=self.price_max,
            among=among,
        )


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


class Exposed(BaseModel):
    """Which variant of which experiment an answer is from.

    Attributes:
        name: of the experiment.
        variant: whose answer this is.
        assigned: false where nobody was assigned, as no ``user_id`` was given or the user does not take part: the
            answer is then the control's, and is not read with the experiment.
    """

    name: str
    variant: str
    assigned: bool


class RecommendResponse(BaseModel):
    """Recommended items, best first.

    Attributes:
        request_id: the caller's own, else a made one.
        model: which model answered.
        results: fewer than asked for where there are no more.
        reason: ``history``, or ``popularity`` where nothing of the history is known to the model.
        unknown: item ids of the request's history that the model does not know, which were ignored.
        known_user: whether the store knows the user; null where it was not asked or could not be read.
        experiment: the experiment that is running; null where there is none.
    """

    request_id: str
    model: ModelInfo
    results: list[Recommendation]
    reason: Literal["history", "popularity"]
    unknown: list[str]
    known_user: bool | None = None
    experiment: Exposed | None = None


class Problem(BaseModel):
    """What is wrong with one field; never what was sent in it."""

    field: str
    problem: str


class ErrorResponse(BaseModel):
    """Why a request was refused."""

    error: str
    detail: list[Problem] = []
    request_id: str
