"""The k best of up to millions of items by inner product, exact, on one core: numpy and ONNX Runtime only.

What is left out at each of three steps certainly is not among the best:

1. Items lie in blocks of falling length. No item scores more than the length of the query times its own
   (Cauchy-Schwarz), so a block whose longest item cannot reach the k-th best found is passed over (as in Teflioudi et
   al. 2015, "LEMP: Fast Retrieval of Large Entries in a Matrix Product").
2. A block is scored in 8-bit integers, with one scale a block, as its items are about equally long. For an item x, a
   query u and what they are rounded to, x' and u', the score is wrong by |x.u - x'.u'| <= |x'||u - u'| + |x - x'||u|.
   Where that says too little, as when one dimension dwarfs the others, the block is scored again in 32-bit floating
   point.
3. The few items that might reach the k-th best are scored as ``ItemIndex.scores`` defines it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from aftersales.core.errors import ConfigError, DataError, ModelError
from aftersales.runtime.integer_product import MATRIX_LIMIT, MOST_COLUMNS, IntegerProduct, factor_limit

FILE = "item_index.safetensors"
# Numbers in a block, an 8-bit matrix of 8 MiB: large enough that calls cost little beside it, small enough that the
# scores of a query (512 KiB at 64 dimensions) stay in the L2 cache between what is done to them.
_BLOCK = 1 << 23
_FIRST = 32  # the first block is so many times smaller, the next ones double
_FEW = 1024  # so many items are scored exactly sooner than a block is looked through
_BATCH = 16  # queries scored at once; more need more memory and are hardly faster
# Above every relative error of 32-bit arithmetic below (six roundings of 2^-24 each), and of 64-bit norms.
_ROUNDING = 2.0**-20
_UNDERFLOW = 4 * float(np.finfo(np.float32).smallest_normal)  # above what a product and its sum may lose to zero
_LARGEST_SCORE = float(np.finfo(np.float32).max) / 16  # so that no bound overflows either


class Found(NamedTuple):
    """The best items of a query, best first.

    Attributes:
        items: item indices from 0, int64 of shape (found,).
        scores: float32 of shape (found,).
    """

    items: NDArray[np.int64]
    scores: NDArray[np.float32]


class ItemIndex:
    """Items that can be searched by inner product; safe to share between threads.

    A search allocates what it writes to (about a megabyte a query) and changes nothing here: threads need no lock and
    do not wait for each other.

    Args:
        items: float32 of shape (n, d), one vector an item.
        bias: float32 of shape (n,), what is added to each item's scores.

    Raises:
        ModelError: a shape or type is another, d is 0 or above 65,536, or a number is NaN or infinite.
    """

    def __init__(self, items: NDArray[np.float32], bias: NDArray[np.float32] | None = None) -> None:
        if fault := _fault(items, bias):
            raise ModelError(f"{fault}; mend the model that made them")
        self.n_items, self.dimensions = items.shape
        rows = max(1, _BLOCK // self.dimensions)
        lengths = np.concatenate([np.zeros(0), *(_lengths(items[at : at + rows]) for at in range(0, len(items), rows))])
        self._order = np.argsort(-lengths, kind="stable")  # place by falling length -> item
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(self.n_items)
        self._items = np.ascontiguousarray(items)[self._order]
        self._bias = None if bias is None else bias[self._order]
        self._blocks = [
            _Block.of(self._items[part], None if self._bias is None else self._bias[part], part)
            for part in _parts(self.n_items, rows)
        ]

    def write(self, folder: Path) -> None:
        """Write the vectors and biases into a model folder, whose manifest then guards them."""
        tensors = {"items": self._items[self._place]}
        if self._bias is not None:
            tensors["bias"] = self._bias[self._place]
        save_file(tensors, folder / FILE)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what ``write`` wrote; everything else is made anew from it.

        Raises:
            ModelError: the file is missing or damaged.
        """
        try:
            tensors = load_file(folder / FILE)
            items, bias = tensors["items"], tensors.get("bias")
        except (OSError, KeyError, SafetensorError) as error:
            raise ModelError(f"{folder / FILE} cannot be read ({error}); export the model again") from None
        if fault := _fault(items, bias):
            raise ModelError(f"{folder / FILE} is no item index: {fault}; export the model again")
        return cls(items, bias)

    def scores(self, query: ArrayLike, items: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return the scores of some items, or of all: the definition that ``search`` answers by.

        A score is the sum of the products, in 64 bits and in an order that depends on d alone, plus the bias, rounded
        to float32.

        Args:
            query: float32 of shape (d,).
            items: item indices; None for all.

        Returns:
            float32 of shape (items,).

        Raises:
            DataError: the query has another shape, holds NaN or infinite numbers, or scores could overflow.
        """
        return self._exact(self._query(query).vector, self._place if items is None else self._place[items])

    def search(
        self,
        query: ArrayLike,
        k: int = 10,
        allowed: NDArray[np.bool_] | None = None,
        excluded: Sequence[int] | NDArray[np.int64] = (),
    ) -> Found:
        """Return the ``k`` items that score highest, of equal ones the lower index first; fewer when fewer are allowed.

        Args:
            query: float32 of shape (d,).
            k: how many.
            allowed: bool of shape (n,), which items may be found; None for all.
            excluded: indices of items that may not be found.

        Raises:
            ConfigError: ``k`` is below 1.
            DataError: the query has another shape, holds NaN or infinite numbers, or scores could overflow; ``allowed``
                has another shape or type; ``excluded`` holds an index that no item has.
        """
        return self.search_many([query], k, allowed, [excluded])[0]

    def search_many(
        self,
        queries: Sequence[ArrayLike] | NDArray[np.float32],
        k: int = 10,
        allowed: NDArray[np.bool_] | None = None,
        excluded: Sequence[Sequence[int] | NDArray[np.int64]] | None = None,
    ) -> list[Found]:
        """Search for several queries: each item's vector is fetched from memory once for all of them.

        Args:
            queries: float32 of shape (queries, d).
            k: how many for each.
            allowed: bool of shape (n,), which items may be found by any; None for all.
            excluded: for each query the indices of items that it may not find.

        Raises:
            ConfigError: ``k`` is below 1.
            DataError: as in ``search``, or ``excluded`` is not as long as ``queries``.
        """
        if k < 1:
            raise ConfigError(f"k is {k}; ask for at least 1 item")
        barred = [()] * len(queries) if excluded is None else excluded
        if len(barred) != len(queries):
            raise DataError(f"{len(queries)} queries have {len(barred)} lists of excluded items; give one list each")
        searches = [
            _Search(self._query(query), k, self._mask(allowed, out)) for query, out in zip(queries, barred, strict=True)
        ]
        for at in range(0, len(searches), _BATCH):
            self._run(searches[at : at + _BATCH])
        return [Found(search.items, search.scores) for search in searches]

    def _run(self, searches: Sequence["_Search"]) -> None:
        rest = [search for search in searches if not self._settled(search)]
        for block in self._blocks:
            going = [search for search in rest if block.highest_score(search.query) >= search.threshold]
            if not going:
                continue
            products = block.product(np.stack([search.query.rounded for search in going]))
            for search, product in zip(going, products, strict=True):
                scored = block.from_integers(product, search.query)
                places = self._candidates(search, block, *scored)
                if len(places) > max(search.k, len(product) // 16):
                    scored = block.from_floats(self._items[block.part], search.query)
                    places = self._candidates(search, block, *scored)
                self._offer(search, places)

    def _settled(self, search: "_Search") -> bool:
        """Answer at once where so few items are allowed, or the query is zero, that blocks are of no help."""
        open_ = self.n_items if search.allowed is None else int(np.count_nonzero(search.allowed))
        if open_ > _FEW and search.query.length > 0:
            return False
        items = np.arange(self.n_items) if search.allowed is None else np.flatnonzero(search.allowed)
        if search.query.length > 0:
            self._offer(search, self._place[items])
        else:
            bias = np.zeros(len(items), dtype=np.float32) if self._bias is None else self._bias[self._place[items]]
            search.add(bias, items)
        return True

    def _candidates(
        self, search: "_Search", block: "_Block", scores: NDArray[np.float32], error: float
    ) -> NDArray[np.int64]:
        """Return the places of a block's allowed items that may be among the best: scores are wrong by ``error``."""
        least = search.threshold - error
        if search.threshold == -np.inf and len(scores) > search.k:
            # Nothing to compare with yet: the k-th best of this block's own scores is at most ``error`` too high.
            own = scores if search.allowed is None else scores[search.allowed[self._order[block.part]]]
            if len(own) > search.k:
                least = float(np.partition(own, -search.k)[-search.k]) - 2 * error
        places: NDArray[np.int64] = block.part.start + np.flatnonzero(scores >= np.float32(least))
        return places if search.allowed is None else places[search.allowed[self._order[places]]]

    def _offer(self, search: "_Search", places: NDArray[np.int64]) -> None:
        if len(places):
            search.add(self._exact(search.query.vector, places), self._order[places])

    def _exact(self, query: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score items as ``scores`` says: numpy sums each row of a C-ordered array by itself, in the same order."""
        found = np.empty(len(places), dtype=np.float32)
        rows = max(1, _BLOCK // self.dimensions)
        for at in range(0, len(places), rows):  # in parts, so that all items at once need no memory of their own
            part = places[at : at + rows]
            total = (self._items[part].astype(np.float64) * query).sum(axis=1)
            found[at : at + rows] = total if self._bias is None else total + self._bias[part]
        return found

    def _query(self, query: ArrayLike) -> "_Query":
        vector = np.asarray(query, dtype=np.float32)
        if vector.shape != (self.dimensions,):
            raise DataError(
                f"a query has the shape {vector.shape} and items have {self.dimensions} dimensions; "
                f"give one float32 vector of shape ({self.dimensions},)"
            )
        if not np.isfinite(vector).all():
            raise DataError("a query holds NaN or infinite numbers; check what made it")
        made = _Query.of(vector)
        if any(block.largest_score(made) > _LARGEST_SCORE for block in self._blocks):
            raise DataError("scores of a query could be too large for float32; scale the query down")
        return made

    def _mask(
        self, allowed: NDArray[np.bool_] | None, excluded: Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.bool_] | None:
        if allowed is not None and (allowed.shape != (self.n_items,) or allowed.dtype != np.bool_):
            raise DataError(
                f"allowed is {allowed.dtype} of shape {allowed.shape}; give one bool for each of {self.n_items} items"
            )
        if len(excluded) == 0:
            return allowed
        out = np.asarray(excluded)
        if out.dtype.kind not in "iu" or out.min() < 0 or out.max() >= self.n_items:
            raise DataError(f"excluded items must be item indices from 0 to {self.n_items - 1}")
        mask = np.ones(self.n_items, dtype=np.bool_) if allowed is None else allowed.copy()
        mask[out] = False
        return mask


@dataclass(frozen=True)
class _Query:
    """A query and what it is rounded to.

    Attributes:
        vector: float64 of shape (d,).
        rounded: int8 of shape (d,), in units of ``step``.
        step: the value of one unit.
        length: of ``vector``.
        residual: length of what rounding takes off.
    """

    vector: NDArray[np.float64]
    rounded: NDArray[np.int8]
    step: float
    length: float
    residual: float

    @classmethod
    def of(cls, query: NDArray[np.float32]) -> Self:
        vector = query.astype(np.float64)
        step = float(np.abs(vector).max()) / factor_limit() or 1.0
        rounded = np.rint(vector / step)
        length, residual = float(np.linalg.norm(vector)), float(np.linalg.norm(vector - rounded * step))
        return cls(vector, rounded.astype(np.int8), step, length, residual)


@dataclass(frozen=True)
class _Block:
    """Items of about equal length.

    Attributes:
        part: their places.
        product: with their vectors in units of ``step``.
        bias: float32 of shape (rows,).
        step: the value of one unit.
        length, rounded_length, residual: largest length of a vector, of one in units, and of what rounding takes off.
        highest_bias, largest_bias: largest bias, and largest by absolute value.
    """

    part: slice
    product: IntegerProduct
    bias: NDArray[np.float32] | None
    step: float
    length: float
    rounded_length: float
    residual: float
    highest_bias: float
    largest_bias: float

    @classmethod
    def of(cls, items: NDArray[np.float32], bias: NDArray[np.float32] | None, part: slice) -> Self:
        vectors = items.astype(np.float64)
        step = float(np.abs(vectors).max()) / MATRIX_LIMIT or 1.0
        rounded = np.rint(vectors / step)
        return cls(
            part=part,
            product=IntegerProduct(rounded.astype(np.int8)),
            bias=bias,
            step=step,
            length=float(_lengths(vectors).max()),
            rounded_length=float(_lengths(rounded).max()) * step,
            residual=float(_lengths(vectors - rounded * step).max()),
            highest_bias=0.0 if bias is None else float(bias.max()),
            largest_bias=0.0 if bias is None else float(np.abs(bias).max()),
        )

    def highest_score(self, query: _Query) -> float:
        """Return a bound that no item's score exceeds."""
        return query.length * self.length + self.highest_bias + self._slack(query)

    def largest_score(self, query: _Query) -> float:
        """Return a bound that no score, in 8 bits or exact, exceeds by absolute value."""
        return (query.length + query.residual) * (self.length + self.rounded_length) + self.largest_bias

    def from_integers(self, product: NDArray[np.int32], query: _Query) -> tuple[NDArray[np.float32], float]:
        """Return the scores (rows,) by 8-bit integers and by how much they may be wrong."""
        scores = product.astype(np.float32)
        scores *= np.float32(self.step * query.step)
        if self.bias is not None:
            scores += self.bias
        return scores, self.rounded_length * query.residual + self.residual * query.length + self._slack(query)

    def from_floats(self, items: NDArray[np.float32], query: _Query) -> tuple[NDArray[np.float32], float]:
        """Return the scores (rows,) by 32-bit floating point and by how much they may be wrong.

        Summing d products in any order errs by at most d 2^-24 of the product of the lengths, to first order (Higham
        2002, "Accuracy and Stability of Numerical Algorithms", section 3.1); twice that bounds the rest.
        """
        scores = items @ query.vector.astype(np.float32)
        if self.bias is not None:
            scores += self.bias
        return scores, len(query.vector) * 2.0**-23 * query.length * self.length + self._slack(query)

    def _slack(self, query: _Query) -> float:
        """Bound what is lost in 32-bit arithmetic, underflow included."""
        return _ROUNDING * self.largest_score(query) + _UNDERFLOW * len(query.vector)


@dataclass
class _Search:
    """One query's best items so far."""

    query: _Query
    k: int
    allowed: NDArray[np.bool_] | None
    items: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))

    @property
    def threshold(self) -> float:
        """The k-th best score; minus infinity as long as there are fewer."""
        return float(self.scores[-1]) if len(self.scores) == self.k else -np.inf

    def add(self, scores: NDArray[np.float32], items: NDArray[np.int64]) -> None:
        scores, items = np.concatenate([self.scores, scores]), np.concatenate([self.items, items])
        if len(scores) > self.k:
            good = scores >= np.partition(scores, -self.k)[-self.k]
            scores, items = scores[good], items[good]
        best = np.lexsort((items, -scores))[: self.k]
        self.scores, self.items = scores[best], items[best]


def _parts(n: int, most: int) -> Iterator[slice]:
    """Yield the places of each block: the first are small, as among the longest items lengths differ most."""
    at, rows = 0, max(1, most // _FIRST)
    while at < n:
        yield slice(at, min(at + rows, n))
        at, rows = at + rows, min(2 * rows, most)


def _lengths(vectors: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return found


def _fault(items: NDArray[np.float32], bias: NDArray[np.float32] | None) -> str | None:
    """Return what is wrong with the vectors and biases of items, if anything is."""
    if items.ndim != 2 or items.dtype != np.float32 or not 0 < items.shape[1] <= MOST_COLUMNS:
        return (
            f"item vectors are {items.dtype} of shape {items.shape}; they must be float32 of shape (items, dimensions) "
            f"with 1 to {MOST_COLUMNS:,} dimensions"
        )
    if bias is not None and (bias.shape != items.shape[:1] or bias.dtype != np.float32):
        return f"item biases are {bias.dtype} of shape {bias.shape}; they must be float32 of shape ({len(items)},)"
    for what, values in (("vectors", items), ("biases", bias)):
        if values is not None and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values.reshape(len(items), -1)).all(axis=1))[0])
            return f"item {what} hold NaN or infinite numbers, first in row {row}"
    return None
