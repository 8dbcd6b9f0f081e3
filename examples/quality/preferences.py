"""Pairs of answers of which people or strong models held one for the better: to evaluate on, never to train on.

Reads the public files as they come. A set whose files are missing is left out, and the record then lacks it.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple


class Preference(NamedTuple):
    """Two answers to one instruction."""

    instruction: str
    better: str
    worse: str


@dataclass(frozen=True)
class PreferenceSet:
    """A set of pairs: the files it needs, how to read them, and whose judgement it holds."""

    name: str
    paths: tuple[str, ...]
    judge: str
    read: Callable[..., Iterator[Preference]]


def load_preferences(folder: Path) -> dict[str, list[Preference]]:
    """All sets whose files are there; pairs of equal or blank answers are left out."""
    sets = {}
    for one in PREFERENCE_SETS:
        files = [folder / path for path in one.paths]
        if all(file.is_file() for file in files):
            pairs = one.read(*(file.read_text(encoding="utf-8") for file in files))
            sets[one.name] = [p for p in pairs if p.better != p.worse and p.better.strip() and p.worse.strip()]
    return sets


def _dpo(text: str) -> Iterator[Preference]:
    for row in json.loads(text):
        turns = "\n\n".join(turn["value"] for turn in row["conversations"])
        yield Preference(turns, row["chosen"]["value"], row["rejected"]["value"])


def _dpo_messages(text: str) -> Iterator[Preference]:
    for line in text.splitlines():
        row = json.loads(line)
        chosen, rejected = (
            ["".join(part["value"] for part in turn["content"]) for turn in row[side]]
            for side in ("chosen_messages", "rejected_messages")
        )
        yield Preference("\n\n".join(chosen[:-1]), chosen[-1], rejected[-1])


def _topical_chat(text: str) -> Iterator[Preference]:
    """Replies to one context whose mean overall score (1 to 5) differs by a point or more."""
    contexts: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(text):
        contexts.setdefault(row["source"].strip(), []).append(row)
    for context, rows in contexts.items():
        ranked = sorted(rows, key=lambda row: row["scores"]["overall"])
        for worse, better in combinations(ranked, 2):
            if better["scores"]["overall"] - worse["scores"]["overall"] >= 1:
                yield Preference(context, better["system_output"].strip(), worse["system_output"].strip())


def _corrected(difference: str, cleaned: str, alpaca: str) -> Iterator[Preference]:
    rows, originals = json.loads(cleaned), json.loads(alpaca)
    for change in map(json.loads, difference.splitlines()):
        if change["kind"] == "changed" and "output" in change["fields"]:
            row = rows[change["clean_pos"]]
            yield Preference(_question(row), row["output"], originals[change["i"]]["output"])


def _same_question(better: str, alpaca: str) -> Iterator[Preference]:
    originals = {_question(row): row["output"] for row in reversed(json.loads(alpaca))}
    for row in json.loads(better):
        if (question := _question(row)) in originals:
            yield Preference(question, row["output"], originals[question])


def _question(row: dict[str, str]) -> str:
    return "\n\n".join(part for part in (row["instruction"], row["input"]) if part)


_ALPACA = "alpaca52k/alpaca_data.json"
PREFERENCE_SETS = (
    PreferenceSet("dpo_en", ("llamafactory_demo/dpo_en_demo.json",), "a strong model", _dpo),
    PreferenceSet("dpo_zh", ("llamafactory_demo/dpo_zh_demo.json",), "a strong model", _dpo),
    PreferenceSet("dpo_messages", ("llamafactory_demo/v1_dpo_demo.jsonl",), "a strong model", _dpo_messages),
    PreferenceSet("topical_chat", ("unieval/topical_chat.json",), "people, mean of three", _topical_chat),
    PreferenceSet(
        "alpaca_cleaned",
        (
            "alpaca_cleaned/alpaca_vs_cleaned_first1000.jsonl",
            "alpaca_cleaned/alpaca_data_cleaned_first_1000.json",
            _ALPACA,
        ),
        "people who corrected Alpaca",
        _corrected,
    ),
    PreferenceSet(
        "alpaca_stronger",
        ("llamafactory_demo/alpaca_en_demo.json", _ALPACA),
        "the stronger of two models wrote it",
        _same_question,
    ),
)
