"""What goes over the wire: requests and answers of the scoring service, their limits and their examples."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from aftersales.runtime.decision import Prediction
from aftersales.runtime.recommender import Recommendation
from aftersales.text.normalise import normalise

MAX_TEXTS = 64
MAX_TEXT_CHARACTERS = 2_000
MAX_TOP_K = 50
MAX_HISTORY = 1_000
MAX_ITEM_ID = 64
MAX_ITEMS = 100
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


class RecommendRequest(Request):
    """What a customer did, to recommend what comes next.

    Attributes:
        history: item ids, oldest first; a new customer has none.
        k: how many items to return at most.
        kind: only products, only after-sales services, or (null) both.
        exclude_seen: leave out what is in the history.
    """

    history: list[ItemId] = Field(max_length=MAX_HISTORY, description="item ids, oldest first; may be empty")
    k: int = Field(default=10, ge=1, le=MAX_ITEMS, description="how many items to return at most")
    kind: Literal["product", "service"] | None = Field(default="product", description="only items of this kind")
    exclude_seen: bool = Field(default=False, description="leave out what is in the history (consumables come back)")


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
