"""How far a pair is from its k-th nearest other pair: first ``fit`` on the whole dataset, then a batch function.

The vectors come from ``models.embedder`` and the search from ``search``; here stand the indicator and its fitted
state, one file in the cache folder. A fitted indicator finds a row by its content, so shuffling, filtering and
batch size do not matter, and a second fit on the same rows, in whatever process and order, finds the file and
computes nothing.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import blake2b
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from im_datasets.common.errors import IndicatorError, NotFittedError
from im_datasets.common.storage import output_errors, written_whole
from im_datasets.data.columns import Columns
from im_datasets.data.pairs import Pairs
from im_datasets.indicators.base import Indicator
from im_datasets.indicators.knn.approximate import check_installed
from im_datasets.indicators.knn.search import (
    RECALL,
    Floats,
    Metric,
    Neighbours,
    Space,
    distances_to,
    search_neighbours,
)
from im_datasets.indicators.knn.vectors import Source, Vectors, knn_folder, matrix_in_cache, remedy
from im_datasets.models.embedder import Embedder

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

__all__ = ["FittedKNNDistance", "KNNDistance", "Text", "pair_keys"]

Text = Literal["pair", "instruction", "response", "both"]
Keys = NDArray[np.bytes_]

KEY_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class KNNDistance(Indicator):
    """Distance to the k-th nearest *other* row of a dataset, in embedding space; ≥ 0. Needs ``fit`` first.

    Source: the knn_i indicator of "Instruction Mining" (arXiv 2307.06290), after Dong, Charikar and Li 2011; the
    rule v1 uses i = 6. The paper leaves encoder, text and metric open; unofficial codes take all-MiniLM-L6-v2,
    instruction and response as one text, euclidean, which are the defaults here. Other rows are told by their
    place in the dataset: of m identical rows each has m − 1 others at distance 0.

    Attributes:
        k: Which neighbour, from 1. The column written is ``im_knn_<k>``.
        metric: ``"euclidean"``, or ``"cosine"`` for 1 − cosine, 0 to 2.
        text: What is embedded: ``"pair"`` is instruction, blank line, response; ``"instruction"`` or
            ``"response"`` that one alone; ``"both"`` puts the vectors of the two side by side, divided by √2.
            ``"both"`` is this project's own: it shares its vectors with ``Similarity``, so it costs no further
            forward pass.
        embedder: The sentence encoder.
        exact_limit: Above that many rows the neighbours are searched approximately, by the extra ``large``. ``mine``
            and ``score`` then keep the vectors in float16: a distance moves by some 1e-3 at most; the record says so.
        recall: The share of the k nearest rows that an approximate search must find; a sample says how many it did.
            It is widened until there are enough, up to 90 neighbours a row (2k + 10 where that is more) or what the
            memory allows; where they still are too few, there is a warning, and the record has the share.
        memory_gib: What the graph of an approximate search may take, in GiB; with less than it needs it holds fewer
            neighbours a row, and finds fewer of the right ones. At least 574 bytes a row are taken all the same (more
            where k is beyond 10), with a warning.

    Raises:
        IndicatorError: k below 1, an unknown metric or text, or a recall or memory out of range.
        NotFittedError: While scoring: always, before ``fit``.

    Example:
        >>> KNNDistance(k=3).writes
        ('im_knn_3',)
    """

    version: ClassVar[str] = "2"

    k: int = 6
    metric: Metric = "euclidean"
    text: Text = "pair"
    embedder: Embedder = field(default_factory=Embedder)
    exact_limit: int = 100_000
    recall: float = RECALL
    memory_gib: float = 4.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise IndicatorError(f"k={self.k} is no neighbour; pass 1 or more")
        if not 0 < self.recall <= 1:
            raise IndicatorError(f"recall={self.recall!r}; it must be above 0 and at most 1")
        if self.memory_gib <= 0:
            raise IndicatorError(f"memory_gib={self.memory_gib!r}; it must be above 0")
        for name, kind in (("metric", Metric), ("text", Text)):
            if getattr(self, name) not in get_args(kind):
                raise IndicatorError(f"{name} {getattr(self, name)!r} is unknown; known: {', '.join(get_args(kind))}")

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return (f"im_knn_{self.k}",)

    @override
    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Mapping[str, ArrayLike]:
        raise NotFittedError(
            f"KNNDistance compares a row with all others and has seen none yet; fit it first: "
            f"ds.map(KNNDistance(k={self.k}).fit(ds), batched=True)"
        )

    @override
    def score_pairs(self, pairs: Pairs) -> dict[str, list[float]]:
        # Even where no pair can be scored: the next batch would fail.
        self.score(pairs.instructions, pairs.responses)
        return {}

    @override
    def embeds(self, instructions: Sequence[str], responses: Sequence[str]) -> list[str]:
        if self.text == "pair":
            return [f"{i}\n\n{r}" for i, r in zip(instructions, responses, strict=True)]
        instruction = instructions if self.text in ("instruction", "both") else ()
        response = responses if self.text in ("response", "both") else ()
        return [*instruction, *response]

    def vectors(self, instructions: Sequence[str], responses: Sequence[str]) -> Vectors:
        """The vectors that are compared.

        Returns:
            Unit vectors of n pairs, shape (n, width), float32; twice the encoder's width for ``"both"``.

        Raises:
            ModelError: The embedder's model cannot be had or is not a sentence encoder.
        """
        vectors = self.embedder.embed(self.embeds(instructions, responses))
        if self.text != "both":
            return vectors
        both = np.concatenate([vectors[: len(instructions)], vectors[len(instructions) :]], axis=1)
        # Of unit length again, so that distances are on the scale of those of one text.
        both /= np.float32(sqrt(2))
        return both

    def search(self, vectors: Source) -> Neighbours:
        """The distances among some rows, and how they were searched.

        Args:
            vectors: ``vectors`` of all rows: a matrix, a mapped one, or parts of one as matrices or ``.npy`` files;
                float16 or float32.

        Raises:
            IndicatorError: Fewer than k + 1 rows, or vectors that cannot be read.
            OutputError: The cache folder has no room for an approximate search.
        """
        return search_neighbours(
            vectors,
            self.k,
            self.metric,
            exact_limit=self.exact_limit,
            recall=self.recall,
            memory=int(self.memory_gib * 2**30),
        )

    def fit(self, dataset: "Dataset | IterableDataset", batch_size: int = 1000) -> "FittedKNNDistance":
        """See the whole dataset and keep the distance of each of its rows.

        Goes through the dataset twice, in batches: first to tell which rows these are, then, unless the cache
        folder knows them, to embed them. Memory beside the encoder: rows × width × 4 bytes for the vectors (once
        more for cosine), rows × 24 bytes, and one batch of texts; above ``exact_limit`` the vectors lie in a file of
        the cache folder, and the search takes ``memory_gib``.

        Args:
            dataset: One split; streaming works.
            batch_size: Rows read at a time; does not change the result.

        Returns:
            A batch function that gives each row of the dataset its distance.

        Raises:
            IndicatorError: Fewer than k + 1 scorable rows, or several splits at once.
            ColumnsError: Instruction and response cannot be told from the column names.
            ModelError: The embedder's model cannot be had or is not a sentence encoder.
            OutputError: The cache folder cannot be written.
            MissingExtraError: More than ``exact_limit`` distinct rows, and pynndescent is not installed.
        """
        if isinstance(dataset, dict):
            raise IndicatorError(f"fit needs one split; got {sorted(dataset)}; pass one, as in ds['train']")
        batches = [pair_keys(*texts) for texts in self._scorable(dataset, batch_size)]
        keys = np.concatenate(batches) if batches else np.empty(0, dtype=f"S{KEY_BYTES}")
        order = np.argsort(keys, kind="stable")
        return self._fitted(keys[order], lambda: self._embedded(dataset, batch_size, order))

    def fit_vectors(self, keys: Keys, vectors: Vectors) -> "FittedKNNDistance":
        """``fit`` for a caller that has collected the rows itself.

        Args:
            keys: ``pair_keys`` of the scorable rows, shape (n,).
            vectors: ``vectors`` of the same rows, shape (n, width), float32.

        Raises:
            IndicatorError: Fewer than k + 1 rows.
            OutputError: The cache folder cannot be written.
        """
        order = np.argsort(keys, kind="stable")
        return self._fitted(keys[order], lambda: vectors[order])

    def _scorable(self, dataset: "Dataset | IterableDataset", batch_size: int) -> Iterator[tuple[list[str], list[str]]]:
        """Instructions and responses of the rows that can be scored, batch by batch."""
        from im_datasets.data.arrow import undecoded

        for batch in undecoded(dataset).iter(batch_size):
            rows, scorable = (self.columns or Columns.detect(list(batch))).pairs(batch).scorable()
            if rows:
                yield scorable.instructions, scorable.responses

    def _embedded(self, dataset: "Dataset | IterableDataset", batch_size: int, order: NDArray[np.intp]) -> Vectors:
        """Vectors of the scorable rows, each at its place in ``order``: shape (len(order), width)."""
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        matrix = np.empty((0, 0), dtype=np.float32)
        start = 0
        for texts in self._scorable(dataset, batch_size):
            vectors = self.vectors(*texts)
            if not start:
                shape = (len(order), vectors.shape[1])
                mapped = len(order) > self.exact_limit
                matrix = matrix_in_cache(shape) if mapped else np.empty(shape, dtype=np.float32)
            matrix[place[start : start + len(vectors)]] = vectors
            start += len(vectors)
        return matrix

    def _fitted(self, keys: Keys, vectors: Callable[[], Vectors]) -> "FittedKNNDistance":
        """Find the state of these rows in the cache folder, or compute and keep it.

        Args:
            keys: Sorted, shape (n,): equal rows in whatever order are the same state.
            vectors: Gives the vectors in the order of the keys.
        """
        fitted = FittedKNNDistance(columns=self.columns, knn=self, rows=len(keys), digest=self._digest(keys))
        try:
            _read_state(fitted.path)
        except NotFittedError:
            if len(np.unique(keys)) > self.exact_limit:
                # Embedding so many rows takes hours; equal ones are searched as one.
                check_installed()
            matrix = vectors()
            _write_state(fitted.path, keys, self.search(matrix).distances, matrix)
        return fitted

    def _digest(self, keys: Keys) -> str:
        """Which rows under which settings: 32 hex digits."""
        settings = {**self.settings(), "embedder": asdict(self.embedder), "version": self.version}
        # The weights and not the name: a folder or a branch may hold others the next time.
        settings["embedder"]["model"] = self.embedder.weights()
        digest = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
        digest.update(keys.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class FittedKNNDistance(Indicator):
    """A ``KNNDistance`` that has seen a dataset: each of its rows, found by content, has its distance.

    A row that is not in that dataset gets the exact distance to its k-th nearest row there. Holds no vectors: they
    lie in one file of the cache folder, which every process that uses the indicator must see.

    Attributes:
        knn: The settings.
        rows: Scorable rows of the fitted dataset.
        digest: Which rows under which settings; names the file.

    Raises:
        NotFittedError: While scoring: the fitted state is not in this machine's cache folder.
    """

    version: ClassVar[str] = KNNDistance.version

    knn: KNNDistance
    rows: int
    digest: str

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return self.knn.writes

    @property
    def embedder(self) -> Embedder:
        """The sentence encoder."""
        return self.knn.embedder

    @property
    def path(self) -> Path:
        """The file of the fitted state."""
        return knn_folder() / f"{self.digest}.npys"

    @override
    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Mapping[str, ArrayLike]:
        state, keys = _read_state(self.path), pair_keys(instructions, responses)
        places = np.minimum(np.searchsorted(state.keys, keys), len(state.keys) - 1)
        distances = state.distances[places]
        new = np.flatnonzero(state.keys[places] != keys).tolist()
        if new:
            vectors = self.knn.vectors([instructions[row] for row in new], [responses[row] for row in new])
            distances[new] = distances_to(vectors, _space(self.path, self.knn.metric), self.knn.k)
        return {self.writes[0]: distances}

    @override
    def settings(self) -> dict[str, Any]:
        return {**self.knn.settings(), "fitted_rows": self.rows, "fitted_digest": self.digest}


class _State(NamedTuple):
    """The fitted state as it lies in the file: keys sorted, shape (n,); distances (n,); vectors (n, width)."""

    keys: Keys
    distances: Floats
    vectors: Vectors


def pair_keys(instructions: Sequence[str], responses: Sequence[str]) -> Keys:
    """A digest of 16 bytes for each pair: equal for equal texts. Shape (n,).

    Example:
        >>> len(pair_keys(["Name a fruit."], ["An apple."]))
        1
    """
    return np.array([_pair_key(*pair) for pair in zip(instructions, responses, strict=True)], dtype=f"S{KEY_BYTES}")


def _pair_key(instruction: str, response: str) -> bytes:
    first = instruction.encode("utf-8", "surrogatepass")
    # The length keeps ("ab", "c") apart from ("a", "bc").
    content = len(first).to_bytes(8, "little") + first + response.encode("utf-8", "surrogatepass")
    return blake2b(content, digest_size=KEY_BYTES).digest()


def _write_state(path: Path, keys: Keys, distances: Floats, vectors: Vectors) -> None:
    """Write the three arrays one after the other."""
    with output_errors(path, remedy(vectors.nbytes)), written_whole(path) as aside, aside.open("xb") as file:
        for array in (keys, distances, vectors):
            np.lib.format.write_array(file, array, allow_pickle=False)


# Asked for with every batch.
@lru_cache(maxsize=4)
def _read_state(path: Path) -> _State:
    """Keys and distances read, the vectors mapped."""
    try:
        with path.open("rb") as file:
            keys = np.lib.format.read_array(file, allow_pickle=False)
            distances = np.lib.format.read_array(file, allow_pickle=False)
            # The vectors are mapped, so only their header is read; write_array writes version 1 of so short a one.
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            vectors = np.memmap(path, dtype=dtype, mode="r", offset=file.tell(), shape=shape)
    except (OSError, ValueError) as error:
        raise NotFittedError(
            f"the fitted state {path} cannot be read ({error}); fit again here, .fit(ds), or set "
            f"IM_DATASETS_CACHE to the folder it was written to"
        ) from error
    return _State(keys, distances, vectors)


@lru_cache(maxsize=2)
def _space(path: Path, metric: Metric) -> Space:
    """The fitted rows ready to be searched."""
    return Space.of(_read_state(path).vectors, metric)[0]
