"""How far the static embedder agrees with the transformer that it was distilled from, and how much faster it is.

``python tests/benchmarks/bench_static.py --data FILE --rows 5000``. Draws rows with a fixed seed, embeds instructions
and responses with both, and compares what the indicators make of them: neighbour distance, similarity, quality, and the
tenth of the rows that the rule ``embedded`` keeps. ``--cache FOLDER`` keeps the transformer's vectors, which take
nearly all of the time.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, machine, print_table, read_rows, versions
from numpy.typing import NDArray

from im_datasets.common.errors import IndicatorError
from im_datasets.data.columns import Columns
from im_datasets.indicators.knn.search import search_neighbours
from im_datasets.indicators.quality import load_head, pair_features
from im_datasets.models.embedder import Embedder

K, KEPT, SEED = 6, 0.1, 0
EMBEDDERS = ("embedded", "static")

Values = NDArray[np.float64]
Vectors = NDArray[np.float32]


def main() -> None:
    """Embed, score and compare."""
    parser = arguments(__doc__.partition("\n")[0], rounds=1)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the vectors here")
    options = parser.parse_args()
    instructions, responses = _sample(options.data, options.rows or 5000)
    scores, speed = {}, {}
    for model in EMBEDDERS:
        asked, first = _vectors(model, instructions, options.cache)
        answered, second = _vectors(model, responses, options.cache)
        seconds = None if first is None or second is None else first + second
        speed[model] = None if seconds is None else round(2 * len(instructions) / seconds)
        scores[model] = _scores(model, instructions, responses, asked, answered)
    rows = [_agreement(name, *(scores[model].get(name) for model in EMBEDDERS)) for name in scores[EMBEDDERS[0]]]
    record = {
        "benchmark": "static against transformer",
        "data": f"{options.data.name}, {len(instructions)} pairs drawn with seed {SEED}",
        "machine": machine(),
        "versions": versions("torch", "transformers", "tokenizers", "numpy"),
        "weights": {model: Embedder(model=model).weights() for model in EMBEDDERS},
        "texts_per_cpu_second": speed,
        "agreement": rows,
    }
    print(json.dumps({name: value for name, value in record.items() if name != "agreement"}, indent=2))
    print_table(rows)
    if options.out is not None:
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _sample(path: Path, number: int) -> tuple[list[str], list[str]]:
    rows = read_rows(path)
    batch = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    _, pairs = Columns.detect(list(batch)).pairs(batch).scorable()
    drawn = np.random.default_rng(SEED).permutation(len(pairs))[:number].tolist()
    return [pairs.instructions[row] for row in drawn], [pairs.responses[row] for row in drawn]


def _vectors(model: str, texts: list[str], cache: Path | None) -> tuple[Vectors, float | None]:
    """The vectors, and the CPU seconds they took; None where they were kept."""
    embedder = Embedder(model=model)
    digest = hashlib.sha256("\0".join([embedder.weights(), *texts]).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    kept = cache / f"vectors-{model}-{digest}.npy" if cache else None
    if kept and kept.exists():
        return np.load(kept), None
    embedder.embed(["loaded before the clock starts"])
    start = time.process_time()
    vectors = embedder.embed(texts)
    seconds = time.process_time() - start
    if kept and model == EMBEDDERS[0]:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, vectors)
    return vectors, seconds


def _scores(
    model: str, instructions: list[str], responses: list[str], asked: Vectors, answered: Vectors
) -> dict[str, Values]:
    both = np.concatenate([asked, answered], axis=1) / np.float32(2**0.5)
    found = {
        "im_similarity": np.einsum("ij,ij->i", asked.astype(np.float64), answered.astype(np.float64)),
        f"im_knn_{K}, both": search_neighbours(both, K).distances,
        f"im_knn_{K}, instruction": search_neighbours(asked, K).distances,
        f"im_knn_{K}, response": search_neighbours(answered, K).distances,
    }
    try:
        head = load_head(model)
    except IndicatorError as error:
        print(f"im_quality is left out: {error}")
        return found
    pairs = zip(instructions, responses, asked, answered, strict=True)
    return found | {"im_quality": np.array([head.logit(pair_features(*pair)) for pair in pairs])}


def _agreement(name: str, ours: Values, theirs: Values | None) -> dict[str, Any]:
    """Rank correlation over the rows, and the share of the highest tenth by one that is in the other's."""
    if theirs is None:
        return {"indicator": name, "spearman": float("nan"), "overlap of the top 10 %": float("nan")}
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (ours, theirs)]
    tops = [set(np.flatnonzero(rank >= len(rank) - round(KEPT * len(rank))).tolist()) for rank in ranks]
    return {
        "indicator": name,
        "spearman": round(float(np.corrcoef(*ranks)[0, 1]), 4),
        "overlap of the top 10 %": round(len(tops[0] & tops[1]) / len(tops[0]), 4),
    }


if __name__ == "__main__":
    main()
