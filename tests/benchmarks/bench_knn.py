"""The 6th nearest neighbour of every row, ours against scikit-learn, faiss and pynndescent, with recall and error.

``python tests/benchmarks/bench_knn.py --data FILE --cache FOLDER``. Embeds FILE's pairs once and keeps the vectors
in FOLDER; ``--rows`` beyond the pairs adds the responses and then the instructions as further rows. Without
``--data``, vectors drawn around random centres stand in.
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

from im_datasets.columns import Columns
from im_datasets.embedding import Embedder
from im_datasets.indicators.neighbours import knn_distances

K = 6
WIDTH = 384
EXACT = "ours, exact"
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

    # One round pays for an import or a compilation at most once: compare() runs a warm-up round first.
    results = compare(
        {name: kept(name, call) for name, call in subjects.items()},
        items=len(vectors),
        rounds=options.rounds,
        clock="wall",
    )
    exact = knn_distances(vectors, K, exact_limit=len(vectors))
    facts = {
        f"{name}: {word}": value
        for name, distances in found.items()
        for word, value in _agreement(distances, exact).items()
    }
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
        "ours, approximate": lambda: knn_distances(vectors, K, exact_limit=1),
        "faiss flat": lambda: _faiss_flat(vectors),
        "faiss HNSW 32, search 64": lambda: _faiss_hnsw(vectors),
        "scikit-learn brute": lambda: _scikit_learn(vectors),
        "pynndescent": lambda: _pynndescent(vectors),
    }
    return {name: call for name, call in subjects.items() if not any(word in name for word in without)}


def _faiss_flat(vectors: Vectors) -> Distances:
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    return np.sqrt(index.search(vectors, K + 1)[0][:, K])


def _faiss_hnsw(vectors: Vectors) -> Distances:
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32)
    index.add(vectors)
    index.hnsw.efSearch = 64
    return np.sqrt(index.search(vectors, K + 1)[0][:, K])


def _scikit_learn(vectors: Vectors) -> Distances:
    model = NearestNeighbors(n_neighbors=K + 1, algorithm="brute", n_jobs=-1).fit(vectors)
    return model.kneighbors(vectors)[0][:, K]


def _pynndescent(vectors: Vectors) -> Distances:
    from pynndescent import NNDescent

    # Its neighbour graph counts a row itself as its first neighbour.
    return NNDescent(vectors, n_neighbors=max(K + 1, 15), random_state=0).neighbor_graph[1][:, K]


def _agreement(distances: Distances, exact: Distances) -> dict[str, float]:
    """Share of rows whose distance is right to within float32, and the largest error.

    A wrong distance means that one or more of six neighbours are missing, so recall@6 is at least that share.
    """
    wrong = np.abs(distances - exact)
    return {
        # Float32 squares are off by up to 1e-6: that is rounding, not a missing neighbour.
        "right": round(float((np.abs(distances**2 - exact**2) < 2e-6).mean()), 5),
        "largest error": float(f"{wrong.max():.2g}"),
    }


def _embedded(options: Namespace) -> Vectors:
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
