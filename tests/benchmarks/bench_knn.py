"""Distance to the 6th nearest other row, ours against scikit-learn, faiss and pynndescent, with recall and error.

``python tests/benchmarks/bench_knn.py --data FILE --cache FOLDER``. Embeds FILE's pairs once and keeps the vectors
in FOLDER; ``--rows`` beyond the pairs adds the responses and then the instructions as further rows. FILE may be an
.npy file of vectors too. Without ``--data``, vectors drawn around random centres stand in.

``python tests/benchmarks/bench_knn.py --rows 1000000 --out-of-core FOLDER`` measures ours alone, as a large dataset
meets it: drawn vectors in float16 shards in FOLDER, never whole in memory; CPU and wall seconds, memory of its own,
recall.
"""

import hashlib
import json
import os
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from common import arguments, compare, machine, read_rows, report, versions
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from im_datasets.data.columns import Columns
from im_datasets.indicators.knn.search import search_neighbours
from im_datasets.models.embedder import Embedder

K = 6
WIDTH = 384
EXACT, APPROXIMATE = "ours, exact", "ours, approximate"
SHARD_ROWS = 16_384
PACKAGES = ("faiss-cpu", "scikit-learn", "pynndescent", "numpy")

Distances = NDArray[np.floating[Any]]
Vectors = NDArray[np.float32]


def main() -> None:
    """Time all of them, and compare their values with ours, which are exact."""
    options = _options()
    if options.out_of_core:
        _measure_out_of_core(options)
        return
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
        facts[APPROXIMATE] = json.dumps(search_neighbours(vectors, K, exact_limit=1).search)
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
    parser.add_argument("--out-of-core", type=Path, metavar="FOLDER", help="ours alone, from float16 shards in FOLDER")
    parser.add_argument("--width", type=int, default=WIDTH, metavar="N", help="of drawn vectors (%(default)s)")
    parser.add_argument("--memory", type=float, default=4.0, metavar="GIB", help="for the graph (%(default)s)")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="leave out, e.g. scikit-learn")
    return parser.parse_args()


def _subjects(vectors: Vectors, without: list[str]) -> dict[str, Callable[[], Distances]]:
    subjects: dict[str, Callable[[], Distances]] = {
        EXACT: lambda: search_neighbours(vectors, K, exact_limit=len(vectors)).distances,
        APPROXIMATE: lambda: search_neighbours(vectors, K, exact_limit=1).distances,
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


def _measure_out_of_core(options: Namespace) -> None:
    rows = options.rows or 100_000
    shards = _shards(options.out_of_core, rows, options.width)
    os.environ["IM_DATASETS_CACHE"] = str(options.out_of_core / "cache")
    start, cpu = time.perf_counter(), time.process_time()
    with _peak_of_own_memory() as peak:
        found = search_neighbours(shards, K, exact_limit=1, memory=int(options.memory * 2**30))
    record = {
        "benchmark": "knn out of core",
        "data": f"drawn, {rows} × {options.width}, float16, {len(shards)} shards, k = {K}",
        "clock": "one run; from shards to the distance of every row",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "wall_seconds": round(time.perf_counter() - start, 1),
        "own_memory_gib": round(peak[0] / 2**30, 2),
        "search": found.search,
    }
    print(json.dumps(record, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _shards(folder: Path, rows: int, width: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, rows, SHARD_ROWS):
        paths.append(folder / f"vectors-{width}-{start:09d}.npy")
        if not paths[-1].exists():
            np.save(paths[-1], _drawn(min(SHARD_ROWS, rows - start), width, rows, start).astype(np.float16))
    return paths


@contextmanager
def _peak_of_own_memory() -> Iterator[list[int]]:
    """The most memory above the start that is the process's own, mapped files left out (RssAnon of Linux), in bytes."""

    def own() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    before, peak, done = own(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            peak[0] = max(peak[0], own() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


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


def _drawn(rows: int, width: int = WIDTH, of: int | None = None, seed: int = 0) -> Vectors:
    """Unit vectors around centres that are the same whichever part ``seed`` of all ``of`` rows is drawn."""
    shared = np.random.default_rng(0)
    centres = shared.normal(size=((of or rows) // 50 + 1, width)).astype(np.float32)
    # Neighbourhoods of embeddings have some 20 dimensions, not 384.
    directions = shared.normal(size=(20, width)) / 20**0.5
    random = np.random.default_rng([1, seed])
    vectors = centres[random.integers(len(centres), size=rows)] + random.normal(size=(rows, 20)) @ directions
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
