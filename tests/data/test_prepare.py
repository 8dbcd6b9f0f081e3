"""One row per assistant turn, one row per answer of a message tree."""

import re

import pytest
from datasets import Dataset

from im_datasets.common.errors import ColumnsError
from im_datasets.data.columns import Columns
from im_datasets.data.prepare import expand_turns, prepare, threads

TREE = {
    "message_id": ["r", "a1", "a2", "q", "a3", "lost"],
    "parent_id": [None, "r", "r", "a1", "q", "gone"],
    "text": ["Hello?", "Hi.", "Yes?", "And now?", "Bye.", "Orphan."],
    "role": ["prompter", "assistant", "assistant", "prompter", "assistant", "assistant"],
}


def _chat(*texts: str | None) -> list[dict[str, str | None]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def test_expand_turns_gives_a_row_per_answer() -> None:
    dataset = Dataset.from_dict(
        {"id": [7, 8, 9], "messages": [_chat("Q1", "A1", "Q2", "A2"), _chat("Q"), _chat("Q3", "A3")]}
    )
    expanded, columns = expand_turns(dataset, Columns.detect(dataset.column_names))
    assert expanded["im_source_row"][:] == [0, 0, 1, 2]
    assert expanded["im_turn"][:] == [0, 1, 0, 0]
    assert expanded["id"][:] == [7, 7, 8, 9]
    pairs = columns.pairs(expanded[:])
    assert pairs.responses == ["A1", "A2", "", "A3"]
    assert pairs.reasons == ["", "", "no assistant turn", ""]
    assert pairs.instructions[1] == "User: Q1\n\nAssistant: A1\n\nUser: Q2"
    assert Columns.detect(expanded.column_names) == columns
    assert "every assistant turn is a row of its own" in columns.notes


def test_expand_turns_counts_the_answers_of_a_history() -> None:
    dataset = Dataset.from_dict({"instruction": ["Q2"], "output": ["A2"], "history": [[["Q1", "A1"]]]})
    expanded, columns = expand_turns(dataset, Columns.detect(dataset.column_names))
    assert columns.pairs(expanded[:]).responses == ["A1", "A2"]


def test_expand_turns_refuses_to_expand_twice() -> None:
    dataset = Dataset.from_dict({"messages": [_chat("Q", "A")]})
    expanded, columns = expand_turns(dataset, Columns.detect(dataset.column_names))
    with pytest.raises(ColumnsError, match="expanded already"):
        expand_turns(expanded, columns)


def test_threads_gives_each_answer_its_ancestors() -> None:
    rows, columns = threads(Dataset.from_dict(TREE))
    assert rows["message_id"][:] == ["a1", "a2", "a3", "lost"]
    assert rows["im_source_row"][:] == [1, 2, 4, 5]
    pairs = columns.pairs(rows[:])
    assert pairs.responses == ["Hi.", "Yes?", "Bye.", ""]
    assert pairs.instructions[2] == "User: Hello?\n\nAssistant: Hi.\n\nUser: And now?"
    assert pairs.reasons[3] == "missing or empty instruction"


def test_threads_finds_the_id_that_parents_point_to() -> None:
    dataset = Dataset.from_dict({"task_id": list("uvwxyz"), **TREE}).rename_column("message_id", "user_message_id")
    assert threads(dataset)[0]["message_id"][0] == "a1"


def test_threads_refuses_a_broken_tree() -> None:
    circle = {**TREE, "parent_id": ["a1", "r", "r", "a1", "q", "gone"]}
    twice = {**TREE, "message_id": ["r", "a1", "a1", "q", "a3", "lost"]}
    silent = {**TREE, "role": ["prompter"] * 6}
    cases = [
        (circle, "its own ancestor"),
        (twice, "same id twice"),
        (silent, "role assistant"),
        ({"x": ["y"]}, "no message tree"),
    ]
    for broken, match in cases:
        with pytest.raises(ColumnsError, match=match):
            threads(Dataset.from_dict(broken))


def test_threads_refuses_a_tree_without_ids() -> None:
    dataset = Dataset.from_dict({name: TREE[name] for name in ("parent_id", "text", "role")})
    with pytest.raises(ColumnsError, match="no id column beside 'parent_id'"):
        threads(dataset)


def test_prepare_picks_the_right_step() -> None:
    plain = Dataset.from_dict({"instruction": ["Q"], "output": ["A"]})
    assert prepare(plain) == (plain, Columns("instruction", "output"))
    assert len(prepare(Dataset.from_dict(TREE))[0]) == 4
    talk = Dataset.from_dict({"messages": [_chat("Q1", "A1", "Q2", "A2")]})
    assert len(prepare(talk, every_turn=True)[0]) == 2
    with pytest.raises(ColumnsError, match=re.escape("no column ['a']")):
        prepare(plain, Columns("instruction", "a"))
    with pytest.raises(ColumnsError, match="name instruction= too"):
        prepare(plain, Columns(response="output"))
