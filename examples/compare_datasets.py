"""Compare two instruction datasets by five indicators in one pass: python examples/compare_datasets.py.

Both are cut to the same number of rows, since the distance to a neighbour falls as rows are added.
"""

from pathlib import Path

import evaluate
from datasets import load_dataset

import im_datasets

DATA = Path(__file__).parent / "data"
ROWS = 40


def read(name: str) -> dict[str, list[str]]:
    """Responses and instructions as ``mine`` reads them, inputs and earlier turns included."""
    rows = load_dataset("json", data_files=str(DATA / f"{name}.jsonl"), split=f"train[:{ROWS}]")
    pairs = im_datasets.Columns.detect(rows.column_names).pairs(rows[:])
    return {"predictions": pairs.responses, "references": pairs.instructions}


modules = evaluate.combine([im_datasets.metric(name) for name in ("length", "mtld", "similarity", "quality", "knn")])
results = {name: modules.compute(**read(name)) for name in ("instructions", "chat")}

print(f"{f'mean of {ROWS} rows (unscored)':30}" + "".join(f"{name:>16}" for name in results))
columns = [key.removeprefix("mean_") for key in results["chat"] if key.startswith("mean_")]
for column in columns:
    shown = (f"{result[f'mean_{column}']:10.2f} ({result[f'unscored_{column}']:3})" for result in results.values())
    print(f"{column:30}" + "".join(f"{cell:>16}" for cell in shown))
