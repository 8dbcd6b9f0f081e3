"""Distance to the 6th nearest other row, ours against scikit-learn, faiss and pynndescent, with recall and error.

``python tests/benchmarks/bench_knn.py --data FILE --cache FOLDER``. Embeds FILE's pairs once and keeps the vectors
in FOLDER; ``--rows`` beyond the pairs adds the responses and then the instructions as further rows. FILE may be an
.npy file of vectors too. Without ``--data``, vectors drawn around random centres stand in.
"""

import hashlib
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from common import arguments, compare, read_rows, report
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from im_datasets import nearest
from im_datasets.columns import Columns
from im_datasets.embedding import Embedder
from im_datasets.nearest import knn_distances

K = 6
WIDTH = 384
EXACT, APPROXIMATE = "ours, exact", "ours, approximate"
SAMPLE = 2000
PACKAGES = ("faiss-cpu", "scikit-learn", "pynndescent", "numpy")

Distances = NDArray[np.floating[Any]]
Vectors = NDArray[np.float32]


def main() -> None:
    """Time all of them, and compare their values with ours, which are exact."""
    options = _options()
    vectors = _embedded(options) if options.data else _drawn(options.rows or 10_000)
    subjects = _subjects(vectors, options.without)
    found: dict[str, Distances] = {}

    def kept(name: str, call: Callable[[], Distances]) -> Callable[[], None]:
        return lambda: found.update({name: call()})

    # pynndescent compiles in the warm-up round, which is not timed.
    results = compare(
        {name: kept(name, call) for name, call in subjects.items()},
        items=len(vectors),
        rounds=options.rounds,
        clock="wall",
    )
    exact = found[EXACT]
    facts = {f"{name}: largest error": _largest_error(distances, exact) for name, distances in found.items()}
    facts |= {
        f"{name}: recall@{K}": _recall(distances, exact) for name, distances in found.items() if distances.ndim == 2
    }
    if APPROXIMATE in found:
        facts[f"{APPROXIMATE}: recall@{K} of {SAMPLE} rows"] = _our_recall(vectors, exact)
        facts[f"{APPROXIMATE}: exact distances"] = round(float((found[APPROXIMATE] == exact).mean()), 4)
    report(
        "knn",
        results,
        data=f"{options.data.name if options.data else 'drawn'}, {len(vectors)} × {vectors.shape[1]}, k = {K}",
        covers="from a float32 matrix to the distance of every row",
        clock="wall",
        packages=PACKAGES,
        out=options.out,
        facts=facts,
    )


def _options() -> Namespace:
    parser = arguments(__doc__.partition("\n")[0], rounds=1)
    for action in parser._actions:
        action.required = False
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the vectors of --data here")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="leave out, e.g. scikit-learn")
    return parser.parse_args()


def _subjects(vectors: Vectors, without: list[str]) -> dict[str, Callable[[], Distances]]:
    subjects: dict[str, Callable[[], Distances]] = {
        EXACT: lambda: knn_distances(vectors, K, exact_limit=len(vectors)),
        APPROXIMATE: lambda: knn_distances(vectors, K, exact_limit=1),
        "faiss flat": lambda: _faiss_flat(vectors),
        "faiss HNSW 32, search 64": lambda: _faiss_hnsw(vectors),
        "scikit-learn brute": lambda: _scikit_learn(vectors),
        "pynndescent": lambda: _pynndescent(vectors),
    }
    return {name: call for name, call in subjects.items() if not any(word in name for word in without)}


def _faiss_flat(vectors: Vectors) -> Distances:
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    return np.sqrt(index.search(vectors, K + 1)[0][:, 1:])


def _faiss_hnsw(vectors: Vectors) -> Distances:
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32)
    index.add(vectors)
    index.hnsw.efSearch = 64
    return np.sqrt(index.search(vectors, K + 1)[0][:, 1:])


def _scikit_learn(vectors: Vectors) -> Distances:
    model = NearestNeighbors(n_neighbors=K + 1, algorithm="brute", n_jobs=-1).fit(vectors)
    return model.kneighbors(vectors)[0][:, 1:]


def _pynndescent(vectors: Vectors) -> Distances:
    from pynndescent import NNDescent

    # Its neighbour graph counts a row itself as its first neighbour.
    return NNDescent(vectors, n_neighbors=max(K + 1, 15), random_state=0).neighbor_graph[1][:, 1 : K + 1]


def _largest_error(distances: Distances, exact: Distances) -> float:
    last = distances if distances.ndim == 1 else distances[:, -1]
    return float(f"{np.abs(last - exact).max():.2g}")


def _recall(distances: Distances, exact: Distances) -> float:
    """Share of the neighbours found that are among the K nearest.

    Args:
        distances: To the K neighbours found, shape (n, K).
        exact: To the K-th nearest, shape (n,).
    """
    # Float32 squares are off by up to 1e-6: that is rounding, not a missing neighbour.
    return round(float((distances**2 <= exact[:, None] ** 2 + 2e-6).mean()), 5)


def _our_recall(vectors: Vectors, exact: Distances) -> float:
    """The same for our approximate search, on some rows: it gives one distance, so it is asked K times."""
    space, _ = nearest.Space.of(vectors, "euclidean")
    first, group, copies = nearest._distinct(space.rounded)
    graph = nearest._graph(space.rounded, first)
    rows = np.random.default_rng(0).choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)
    kinds = group[rows]
    squares = [nearest._walk(graph, space, first, copies, kinds, k) for k in range(1, K + 1)]
    return _recall(np.sqrt(np.stack(squares, axis=1)), exact[rows])


def _embedded(options: Namespace) -> Vectors:
    if options.data.suffix == ".npy":
        return np.ascontiguousarray(np.load(options.data)[: options.rows], dtype=np.float32)
    texts = _texts(options.data, options.rows)
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    kept = options.cache / f"vectors-{len(texts)}-{digest}.npy" if options.cache else None
    if kept and kept.exists():
        return np.load(kept)
    vectors = Embedder().embed(texts)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, vectors)
    return vectors


def _texts(path: Path, limit: int | None) -> list[str]:
    """The pairs; where more rows are asked for than there are, then responses, then instructions."""
    rows = read_rows(path)
    batch = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    pairs = Columns.detect(list(batch)).pairs(batch)
    scorable = [row for row, reason in enumerate(pairs.reasons) if not reason]
    instructions = [pairs.instructions[row] for row in scorable]
    responses = [pairs.responses[row] for row in scorable]
    texts = [f"{i}\n\n{r}" for i, r in zip(instructions, responses, strict=True)]
    return [*texts, *responses, *instructions][: limit or len(texts)]


def _drawn(rows: int) -> Vectors:
    random = np.random.default_rng(0)
    centres = random.normal(size=(rows // 50 + 1, WIDTH))
    # Neighbourhoods of embeddings have some 20 dimensions, not 384.
    spread = random.normal(size=(rows, 20)) @ random.normal(size=(20, WIDTH)) / 20**0.5
    vectors = centres[random.integers(len(centres), size=rows)] + spread
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
