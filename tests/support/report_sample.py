"""Selections and records for the tests of report, card and figures; every number comes from the row's index."""

from collections import Counter
from pathlib import Path

import numpy as np
from datasets import Dataset

from im_datasets.data.columns import Columns
from im_datasets.rules.linear import LinearRule, read_rule
from im_datasets.scoring.record import IndicatorRecord, ScoringRecord
from im_datasets.selection.select import Selection

RULE = {
    "schema_version": 1,
    "name": "sample",
    "title": "Sample rule: whole answers, not too long",
    "intercept": 0.5,
    "terms": [
        {"column": "im_quality", "coefficient": -1.0, "low": None, "high": None},
        {"column": "im_output_length", "coefficient": 0.01, "low": None, "high": 100.0},
    ],
    "target": "log loss in nats",
    "aggregation": "applied to each row",
    "indicators": {},
    "provenance": {"kind": "sample", "r_squared": 0.5, "data": {"rows": 12, "sets": ["a", "b"]}},
    "caveats": ["This rule is not from the paper: it was made up for a test.", "It means nothing."],
}


def make_scores(rows: int, unscorable: int = 0) -> dict[str, np.ndarray]:
    """Score columns of ``rows`` rows, the last ``unscorable`` of them NaN."""
    index = np.arange(rows, dtype=np.float64)
    scores = {
        "im_input_length": 5 + index % 7,
        "im_output_length": 10 + (index * 37) % 150,
        "im_quality": 3 * np.sin(index) + 1,
    }
    for values in scores.values():
        values[rows - unscorable :] = np.nan
    scores["im_log_loss"] = LinearRule.from_dict(RULE).predict(scores) if rows else np.empty(0)
    return scores


def make_selection(
    rows: int = 24,
    keep: int = 8,
    *,
    unscorable: int = 2,
    duplicates: int = 1,
    texts: list[tuple[str, str]] | None = None,
    scores: dict[str, np.ndarray] | None = None,
    reason: str = "below the cut",
    extra: dict[str, list[str]] | None = None,
) -> Selection:
    """The best ``keep`` rows but for the first ``duplicates``, which are dropped as near-duplicates."""
    scores = make_scores(rows, unscorable) if scores is None else scores
    losses = scores["im_log_loss"]
    scored = int(np.isfinite(losses).sum())
    order = np.argsort(losses, kind="stable").tolist()
    repeated = order[1 : 1 + duplicates] if scored > duplicates else []
    kept = [row for row in order[:scored] if row not in repeated][:keep]
    rank = {row: place + 1 if place < scored else 0 for place, row in enumerate(order)}
    texts = texts or [(f"Describe thing number {n}.", f"Thing {n} is quite large.\nIt is blue.") for n in range(rows)]

    def why(row: int) -> str:
        if not rank[row]:
            return "unscorable: empty response"
        return "near-duplicate" if row in repeated else reason

    def side(members: list[int], *, is_kept: bool) -> Dataset:
        columns = {
            "instruction": [texts[row][0] for row in members],
            "output": [texts[row][1] if rank[row] else "" for row in members],
            **{name: [values[row] for row in members] for name, values in (extra or {}).items()},
            **{name: values[members].astype(np.float64) for name, values in scores.items()},
            "im_unscorable": ["" if rank[row] else "empty response" for row in members],
            "im_row": members,
            "im_rank": [rank[row] for row in members],
        }
        if not is_kept:
            columns["im_reason"] = [why(row) for row in members]
            columns["im_duplicate_of"] = [kept[0] if row in repeated else -1 for row in members]
        return Dataset.from_dict(columns)

    dropped = [row for row in order if row not in set(kept)]
    reasons = dict(Counter(map(why, dropped)).most_common())
    settings = {
        "top_k": keep,
        "fraction": None,
        "near_duplicates": 0.9 if duplicates else None,
        "seed": 0,
        "shortfall": 0,
    }
    cut = float(losses[kept[-1]]) if kept else None
    return Selection(side(kept, is_kept=True), side(dropped, is_kept=False), settings, cut, reasons)


def make_record(**changes: object) -> ScoringRecord:
    """A record in which nothing depends on the machine or the hour; its rule may be given as data."""
    fields = {
        "package_version": "0.1.0",
        "created": "2026-01-02T03:04:05+00:00",
        "source": {
            "kind": "json",
            "id": "sample.json",
            "split": "train",
            "revision": None,
            "fingerprint": "0123456789abcdef",
            "files": ["sample.json"],
        },
        "columns": Columns(instruction="instruction", response="output"),
        "rule": RULE,
        "indicators": [
            IndicatorRecord("Length", "1", ["im_input_length", "im_output_length"], {"tokenizer": "tiny"}, seconds=0.5),
            IndicatorRecord(
                "Quality",
                "1",
                ["im_quality"],
                {},
                {"id": "tiny-encoder", "revision": "abc123", "dtype": "float32", "device": "cpu"},
                truncated=3,
                seconds=1.5,
            ),
        ],
        "rows": 24,
        "unscorable": {"empty response": 2},
        "command": ["im-datasets", "mine", "sample.json", "--top-k", "8", "--out", "my results"],
        "versions": {"python": "3.11.0", "datasets": "5.2.0"},
        "seconds": {"load": 0.25, "score": 2.0},
        "peak_memory_bytes": 300 * 2**20,
    }
    fields |= changes
    return ScoringRecord(**fields | {"rule": read_rule(fields["rule"])})


GOLDEN = Path(__file__).parents[1] / "golden"
