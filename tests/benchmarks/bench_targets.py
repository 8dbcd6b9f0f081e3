"""How many of the rows that selection by targets keeps are of the targets' source, against random rows.

``python tests/benchmarks/bench_targets.py --sources gsm8k=FILE code=FILE dolly=FILE alpaca=FILE``. Rows of several
datasets are mixed in equal parts; some further rows of one of them are the targets; a tenth of the mixture is kept by
``select(…, targets=…)``, and beside it the same number of rows with the highest ``im_target_similarity``. Random rows
have the share that the source has in the mixture. Rows of a source are drawn with a fixed seed. This says whether
nearness finds a job's rows; whether training on them helps is another question. ``--synthetic N`` times the turns alone
over N random vectors, and says what memory they took.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, print_table, read_rows, versions
from datasets import Dataset

from im_datasets import Embedder, select
from im_datasets.common.storage import peak_memory_bytes
from im_datasets.data.columns import Columns
from im_datasets.indicators import TargetSimilarity
from im_datasets.indicators.knn.vectors import Vectors
from im_datasets.selection.targets import BLOCK
from im_datasets.selection.turns import Cosines, TargetOrder

SEED = 0

Pair = tuple[str, str]


def main() -> None:
    """Mix, select and count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sources", nargs="+", metavar="NAME=FILE", help="JSON or JSONL datasets")
    parser.add_argument("--rows", type=int, default=3000, metavar="N", help="rows of the mixture (%(default)s)")
    parser.add_argument("--targets", type=int, default=24, metavar="N", help="target examples (%(default)s)")
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the rows that is kept (%(default)s)")
    parser.add_argument("--kinds", nargs="+", default=["sentence"], help="kinds of encoders: sentence, causal")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="tokens that a causal model reads of a row")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the results here too")
    parser.add_argument("--synthetic", type=int, metavar="N", help="only the turns, over N random vectors")
    options = parser.parse_args()
    if options.synthetic:
        _take_turns(options.synthetic, options.targets, round(options.fraction * options.synthetic))
        return
    files = dict(source.split("=", 1) for source in options.sources)
    part = options.rows // len(files)
    drawn = {name: _draw(Path(file), part + options.targets) for name, file in files.items()}
    origin = np.repeat(list(drawn), part)
    mixed = np.random.default_rng(SEED).permutation(len(origin))
    pairs = [pair for rows in drawn.values() for pair in rows[:part]]
    ds = _dataset([pairs[place] for place in mixed])
    rows, seconds = [], {}
    for kind in options.kinds:
        embedder = Embedder(kind=kind, max_tokens=options.max_tokens if kind == "causal" else None)
        clock = time.process_time()
        # All vectors once: what follows finds them in the process's cache.
        embedder.embed([f"{i}\n\n{r}" for i, r in pairs])
        seconds[kind] = round(time.process_time() - clock, 1)
        for name, of_source in drawn.items():
            similarity = TargetSimilarity(targets=of_source[part:], embedder=embedder)
            rows.append({"encoder": kind, **_shares(ds, origin[mixed] == name, similarity, options.fraction, name)})
    record = {
        "benchmark": "selection by targets",
        "data": f"{len(ds)} rows, {part} of each of {', '.join(files)}; {options.targets} targets of one; seed {SEED}",
        "machine": machine(),
        "versions": versions("torch", "transformers", "numpy"),
        "max_tokens": options.max_tokens,
        "weights": {kind: Embedder(kind=kind).weights() for kind in options.kinds},
        "cpu_seconds_to_embed": seconds,
        "shares": rows,
    }
    print(json.dumps({name: value for name, value in record.items() if name != "shares"}, indent=2))
    print_table(rows)
    if options.out is not None:
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _take_turns(rows: int, targets: int, wanted: int) -> None:
    """Time and memory of the turns alone, over random unit vectors of MiniLM's width that are never all in memory."""
    passes = []

    def cosines() -> Iterator[Cosines]:
        passes.append(rows)
        for start in range(0, rows, BLOCK):
            block = _unit(start + 1, min(BLOCK, rows - start))
            yield (block.astype(np.float64) @ aims.T).astype(np.float32)

    aims = _unit(0, targets).astype(np.float64)
    before, clock = peak_memory_bytes(), time.perf_counter()
    order = TargetOrder(np.arange(rows), targets, cosines, wanted)
    taken = sum(1 for _ in islice(order, wanted))
    result = {
        "rows": rows,
        "targets": targets,
        "turns taken": taken,
        "passes over the rows": len(passes),
        "wall seconds": round(time.perf_counter() - clock, 1),
        "peak MiB": round(peak_memory_bytes() / 2**20),
        "before, MiB": round(before / 2**20),
    }
    print_table([result])


def _unit(seed: int, number: int) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((number, 384), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _draw(path: Path, number: int) -> list[Pair]:
    """Scorable rows of a file, no instruction twice."""
    rows = read_rows(path)
    batch = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    keys = ("instruction", "input", "output") if {"response", "output"} <= set(batch) else tuple(batch)
    _, pairs = Columns.detect(keys).pairs(batch).scorable()
    distinct = list(dict(zip(pairs.instructions, pairs.responses, strict=True)).items())
    chosen = np.random.default_rng(SEED).permutation(len(distinct))[:number]
    return [distinct[place] for place in chosen]


def _dataset(pairs: list[Pair]) -> Dataset:
    instructions, responses = zip(*pairs, strict=True)
    # All of one score: the targets alone choose.
    return Dataset.from_dict({"instruction": instructions, "response": responses, "im_log_loss": [0.0] * len(pairs)})


def _shares(ds: Dataset, is_of_source: Any, similarity: TargetSimilarity, fraction: float, name: str) -> dict[str, Any]:
    """The share of a source among the rows that are kept, in percent."""
    selection = select(ds, fraction=fraction, targets=similarity)
    kept = selection.kept["im_row"][:]
    nearest = np.argsort(-np.array(similarity(ds[:])["im_target_similarity"]), kind="stable")[: len(kept)]
    return {
        "targets of": name,
        "kept rows": len(kept),
        "by turns, %": round(100 * float(is_of_source[kept].mean()), 1),
        "nearest, %": round(100 * float(is_of_source[nearest].mean()), 1),
        "random, %": round(100 * float(is_of_source.mean()), 1),
        "repeat a target": selection.reasons.get("repeats a target", 0),
    }


if __name__ == "__main__":
    main()
