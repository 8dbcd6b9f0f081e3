"""The training rows: four openly licensed sources → deduplicated instruction-response rows, split by instruction.

Leaves the spoiling of responses to ``degrade`` and the fitting to ``train``.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 3000
"""Characters of a row: most of a longer one lies beyond what the embedder reads."""
CHINESE = re.compile(r"[\u3400-\u9fff]")


@dataclass(frozen=True)
class Source:
    """One file of training rows: where it stands in the data folder, its licence, and how many rows to take."""

    name: str
    path: str
    licence: str
    origin: str
    rows: int


SOURCES = (
    Source("dolly", "dolly/dolly_3k.json", "CC BY-SA 3.0", "databricks/databricks-dolly-15k on the Hub", 2900),
    Source("gpteacher", "gpteacher/toolformer-dedupe-only-dataset.json", "MIT", "teknium1/GPTeacher on GitHub", 350),
    Source("gsm8k", "gsm8k_alpaca/gsm_8k_train.json", "MIT", "openai/gsm8k on the Hub", 700),
    Source("oasst_seed", "oasst_seed/realistic_seed_data.json", "Apache-2.0", "LAION-AI/Open-Assistant on GitHub", 180),
    Source("oasst_zh", "oasst_zh/oaast_sft_zh.json", "Apache-2.0", "OpenAssistant/oasst1 on the Hub", 120),
)


@dataclass(frozen=True)
class Row:
    """An instruction with its own response."""

    source: str
    instruction: str
    response: str

    @property
    def key(self) -> str:
        """What identifies the row, whatever order the rows come in."""
        return sha256(f"{self.source}\0{self.instruction}\0{self.response}".encode()).hexdigest()

    @cached_property
    def chinese(self) -> bool:
        """The response is mostly Chinese."""
        return _is_chinese(self.response)

    @cached_property
    def one_language(self) -> bool:
        """Instruction and response are both Chinese or both not; a translation is not."""
        return _is_chinese(self.instruction) == self.chinese


def load_rows(folder: Path) -> list[Row]:
    """Rows of all sources, in the order of their keys, one per distinct instruction.

    Args:
        folder: Holds the files named in ``SOURCES``.

    Raises:
        FileNotFoundError: A source is missing.
    """
    rows: list[Row] = []
    for source in SOURCES:
        records = json.loads((folder / source.path).read_text(encoding="utf-8"))
        usable = sorted(_usable(_READERS.get(source.name, _alpaca)(source.name, records)), key=lambda row: row.key)
        rows += _distinct(usable)[: source.rows]
    return sorted(rows, key=lambda row: row.key)


def near_copies(vectors: NDArray[np.float32], cosine: float) -> list[int]:
    """The group of every row, where rows whose instructions lie at least that close share a group.

    Args:
        vectors: Unit vectors of the instructions, shape (n, width).
        cosine: From which cosine on two instructions count as near-copies.

    Returns:
        n group numbers: the lowest row number of the group.
    """
    group = list(range(len(vectors)))

    def find(row: int) -> int:
        while group[row] != row:
            row = group[row]
        return row

    for start in range(0, len(vectors), 512):
        for a, b in np.argwhere(vectors[start : start + 512] @ vectors.T >= cosine).tolist():
            first, second = sorted((find(a + start), find(b)))
            group[second] = first
    return [find(row) for row in range(len(vectors))]


def split(rows: Sequence[Row], groups: Sequence[int], first: float, last: float) -> NDArray[np.bool_]:
    """Which rows are held out: whole groups of near-copies whose draw, by the key of the first row, is in a range.

    Args:
        rows: The rows.
        groups: Their groups, as ``near_copies`` gives them.
        first: The least draw of a held-out group, from 0 to 1.
        last: The draw that is no longer held out.
    """
    draws = [Random(f"split:{rows[group].key}").random() for group in groups]
    return np.array([first <= draw < last for draw in draws])


def _is_chinese(text: str) -> bool:
    return len(CHINESE.findall(text)) > 0.3 * len(text)


def _usable(rows: Iterator[Row]) -> Iterator[Row]:
    return (
        row
        for row in rows
        if row.instruction.strip() and row.response.strip() and len(row.instruction + row.response) <= LONGEST
    )


def _distinct(rows: Sequence[Row]) -> list[Row]:
    kept: dict[str, Row] = {}
    for row in rows:
        kept.setdefault(re.sub(r"[\W_]+", " ", row.instruction.lower()).strip(), row)
    return list(kept.values())


def _alpaca(source: str, records: list[dict[str, Any]]) -> Iterator[Row]:
    """Rows of one question; a conversation's last turn stands beyond what the embedder reads."""
    for record in records:
        if not record.get("history"):
            question = "\n\n".join(part for part in (record["instruction"], record["input"]) if part)
            yield Row(source, question, record["output"])


def _toolformer(source: str, records: list[dict[str, Any]]) -> Iterator[Row]:
    """Without the list of tools that stands before every question: it would make all rows near-copies."""
    for record in records:
        question = record["instruction"].strip().rpartition("\n")[2]
        yield Row(source, "\n\n".join(part for part in (question, record["input"]) if part), record["output"])


def _message_tree(source: str, records: list[dict[str, Any]]) -> Iterator[Row]:
    """First questions with their first answers; later turns depend on what was said before."""
    openings = {record["user_message_id"]: record for record in records if record["parent_message_id"] is None}
    for record in records:
        if record["role"] == "assistant" and record["parent_message_id"] in openings:
            yield Row(source, openings[record["parent_message_id"]]["text"], record["text"])


_READERS = {"gpteacher": _toolformer, "oasst_seed": _message_tree}
