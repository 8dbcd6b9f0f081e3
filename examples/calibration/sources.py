"""The rows of the experiment: text for the base model, candidates, two unseen sources, and evaluation sets.

Everything is written as JSON Lines with ``instruction`` and ``response`` into the experiment's folder, from a folder
of public datasets that are no part of this repository; or, as a toy, from the example data beside this script.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from im_datasets import load_source
from im_datasets.common.storage import write_text
from im_datasets.data.prepare import prepare

HERE = Path(__file__).parent

SEEN = {
    "alpaca": "alpaca52k/alpaca_data.json",
    "gsm8k": "gsm8k_alpaca/gsm_8k_train.json",
    "gpteacher": "gpteacher/toolformer-dedupe-only-dataset.json",
    "strong": "llamafactory_demo/alpaca_en_demo.json",
}
"""Name → file. Every other row of these is text for the base model, the first of the rest are candidates."""

CANDIDATES = 8000
"""The most candidates of a source."""

COLUMNS = {"code": "instruction=instruction,input=input,response=output"}
"""Where a file has two columns that could be the response."""

UNSEEN = {"dolly": "dolly/dolly_3k.json", "code": "code_alpaca/new_codealpaca.json"}
"""Neither the base model nor the fitted rule sees them. The quality head was trained on Dolly, never on the code."""

EVALUATION = "eval_sets"


@dataclass(frozen=True)
class Sources:
    """Paths of what was written: name → file."""

    text: Path
    seen: dict[str, Path]
    unseen: dict[str, Path]
    evaluation: dict[str, Path]
    spare: list[dict[str, str]]
    """Rows of the first seen source that are neither text nor candidates, for the known answer."""


def write_sources(data: Path | None, out: Path) -> Sources:
    """Write the experiment's rows; ``data`` None takes the example data."""
    if data is None:
        return _toy(out)
    seen, text, spare = {}, [], []
    for name, file in SEEN.items():
        rows = list(pairs(data / file, COLUMNS.get(name)))
        text += rows[::2]
        spare = spare or rows[1::2][CANDIDATES:]
        seen[name] = write(out / f"{name}.jsonl", rows[1::2][:CANDIDATES])
    unseen = {
        name: write(out / f"{name}.jsonl", pairs(data / file, COLUMNS.get(name))) for name, file in UNSEEN.items()
    }
    folder = data / EVALUATION
    references = [*_references(folder, "mt_bench"), *_references(folder, "vicuna")]
    evaluation = {
        "self-instruct": write(out / "self-instruct.jsonl", pairs(folder / "user_oriented_instructions.jsonl")),
        "references": write(out / "references.jsonl", references),
    }
    return Sources(write(out / "text.jsonl", text), seen, unseen, evaluation, spare)


def pairs(path: Path, columns: str | None = None) -> Iterator[dict[str, str]]:
    """Instruction and response of every scorable row."""
    from im_datasets import Columns

    dataset, mapping = prepare(load_source(path).dataset, Columns.parse(columns) if columns else None)
    read = mapping.pairs(dataset[:])
    for instruction, response, reason in zip(read.instructions, read.responses, read.reasons, strict=True):
        if not reason:
            yield {"instruction": instruction, "response": response}


def _references(folder: Path, name: str) -> Iterator[dict[str, str]]:
    """First turns of a benchmark's questions, with the strong model's answers where there are any."""
    questions = {row["question_id"]: row["turns"][0] for row in _lines(folder / f"{name}_question.jsonl")}
    for row in _lines(folder / f"{name}_reference_gpt-4.jsonl"):
        if row["question_id"] in questions:
            yield {"instruction": questions[row["question_id"]], "response": row["choices"][0]["turns"][0]}


def _toy(out: Path) -> Sources:
    examples = HERE.parent / "data"
    rows = list(pairs(examples / "instructions.jsonl"))
    chat = list(pairs(examples / "chat.jsonl"))
    evaluation = list(pairs(examples / "evaluation.jsonl"))
    return Sources(
        write(out / "text.jsonl", rows),
        {"even": write(out / "even.jsonl", rows[::2]), "chat": write(out / "chat.jsonl", chat)},
        {"odd": write(out / "odd.jsonl", rows[1::2])},
        {"held": write(out / "held.jsonl", evaluation)},
        rows,
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def write(path: Path, rows: Iterable[dict[str, str]]) -> Path:
    """Write rows as JSON Lines; a file that holds them already is left as it is."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # Whole or not at all: another process of the experiment may be reading.
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path
