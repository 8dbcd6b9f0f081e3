"""Rows are compared with their source however they were read from it."""

import json

import pytest
from forging import RULE
from verifying import FAILED, NOT_CHECKED, PASSED, ROWS, told

from im_datasets import mine, verify
from im_datasets.common.errors import SourceError


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def mined(source, folder, **options):
    return mine(source, folder, rule=RULE, top_k=3, progress=False, **options).folder


PAIRS = [{"instruction": x, "output": y} for x, y in ROWS]
TURNS = [
    {"messages": [{"role": ("user", "assistant")[n % 2], "content": t} for n, t in enumerate((*one, *two))]}
    for one, two in zip(ROWS[:4], ROWS[4:8], strict=True)
]
TREE = [
    {"message_id": f"{n}{part}", "parent_id": None if part == "q" else f"{n}q", "text": text, "role": role}
    for n, row in enumerate(ROWS[:5])
    for part, text, role in (("q", row[0], "prompter"), ("a", row[1], "assistant"))
]


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (PAIRS, {}),
        (PAIRS, {"limit": 6}),
        (TURNS, {"every_turn": True}),
        (TURNS, {}),
        (TREE, {}),
        ([{**row, "im_row": 70 + number} for number, row in enumerate(PAIRS)], {}),
    ],
    ids=["pairs", "the first rows", "every turn", "the last turn", "a message tree", "numbers of its own"],
)
def test_the_rows_are_those_of_their_source_and_of_no_other(tmp_path, rows, options):
    folder = mined(write(tmp_path / "rows.jsonl", rows), tmp_path / "mined", **options)
    verification = verify(folder, sample=0, source=tmp_path / "rows.jsonl")
    assert told(verification, FAILED) == ""
    assert "the rows are those of " in told(verification, PASSED)
    other = json.loads(json.dumps(rows).replace("Rome", "Roma"))
    verification = verify(folder, sample=0, source=write(tmp_path / "other.jsonl", other))
    assert "is another one in the source" in told(verification, FAILED)
    assert "the source has the fingerprint" in told(verification, FAILED)


def test_a_source_of_other_columns_settles_nothing(tmp_path):
    folder = mined(write(tmp_path / "rows.jsonl", PAIRS), tmp_path / "mined")
    other = write(tmp_path / "other.jsonl", [{"question": "Why?", "answer": "Because."}])
    verification = verify(folder, sample=0, source=other)
    assert "that these rows are those of rows.jsonl: no column" in told(verification, NOT_CHECKED)


@pytest.mark.parametrize("source", ["lost.jsonl", "../lost/folder", "https://example.org/rows"])
def test_a_source_that_is_not_there_is_refused_before_anything_is_checked(tmp_path, source):
    with pytest.raises(SourceError, match=f"no file or folder {source}"):
        verify(tmp_path / "no publication", source=source)


def test_a_source_in_memory_has_no_name(tmp_path):
    from datasets import Dataset

    folder = mined(Dataset.from_list(PAIRS), tmp_path / "mined")
    assert "that these rows are those of a dataset in memory: pass --source a copy" in told(
        verify(folder, sample=0), NOT_CHECKED
    )
    verification = verify(folder, sample=0, source=write(tmp_path / "rows.jsonl", PAIRS))
    assert told(verification, FAILED) == ""
