"""Targets: every form they come in, what a record may tell of them, and each refusal."""

import hashlib
import json
import pickle

import pytest
from datasets import Dataset

from im_datasets.common.errors import ColumnsError, IndicatorError, SourceError
from im_datasets.indicators.target.examples import MOST, Targets

PAIRS = [("Name a fruit.", "An apple."), ("Name a nut.", "A walnut.")]
ROWS = [{"instruction": i, "output": r} for i, r in PAIRS]
SPOKEN = tuple(((("user", i),), r) for i, r in PAIRS)


@pytest.mark.parametrize("form", ["pairs", "lists", "rows", "dataset", "json", "jsonl", "path", "messages"])
def test_read_takes_every_form(form, tmp_path):
    text = "\n".join(json.dumps(row) for row in ROWS)
    (tmp_path / "targets.jsonl").write_text(text)
    (tmp_path / "targets.json").write_text(json.dumps(ROWS))
    forms = {
        "pairs": PAIRS,
        "lists": [list(pair) for pair in PAIRS],
        "rows": ROWS,
        "dataset": Dataset.from_list(ROWS),
        "json": str(tmp_path / "targets.json"),
        "jsonl": str(tmp_path / "targets.jsonl"),
        "path": tmp_path / "targets.json",
        "messages": [
            {"messages": [{"role": "user", "content": i}, {"role": "assistant", "content": r}]} for i, r in PAIRS
        ],
    }
    targets = Targets.read(forms[form])
    assert targets == Targets(SPOKEN)
    assert Targets.read(targets) is targets
    assert (targets.instructions, targets.responses) == ([i for i, _ in PAIRS], [r for _, r in PAIRS])


def test_equal_targets_count_once_and_turns_are_kept():
    talk = [("user", "Hi."), ("assistant", "Hello."), ("user", "Bye.")]
    messages = [{"role": role, "content": text} for role, text in [*talk, ("assistant", "See you.")]]
    targets = Targets.read([{"messages": messages}] * 3)
    assert targets.pairs == ((tuple(talk), "See you."),)
    assert targets.instructions == ["User: Hi.\n\nAssistant: Hello.\n\nUser: Bye."]


def test_describe_tells_number_and_digest_and_no_text():
    expected = hashlib.sha256(json.dumps(SPOKEN).encode()).hexdigest()
    described = Targets.read(PAIRS).describe()
    assert described == {"examples": 2, "sha256": expected, "hub": None}
    assert "apple" not in repr(Targets.read(PAIRS))
    assert Targets.read(PAIRS[::-1]).sha256 != expected


def test_digest_of_a_text_that_no_utf8_holds():
    spoken = (("user", "花"),)
    digests = {Targets(((spoken, response),)).sha256 for response in ("\ud800", "\ud801", "\ud800")}
    assert len(digests) == 2


def test_pickle_is_that_of_the_pairs_alone():
    targets = Targets.read(PAIRS)
    before = pickle.dumps(targets)
    assert targets.instructions
    assert targets.sha256
    assert pickle.dumps(targets) == before


def test_targets_without_a_pair_are_left_out_with_a_warning():
    with pytest.warns(UserWarning, match=r"1 of 3 targets hold no pair \(row 2: .*\); these are left out"):
        targets = Targets.read([*ROWS, {"instruction": "Name a berry.", "output": ""}])
    assert targets.pairs == SPOKEN


def test_no_target_with_a_pair_is_refused():
    with pytest.raises(IndicatorError, match=r"1 of 1 targets hold no pair \(row 0: .*\); pass rows with"):
        Targets.read([{"instruction": "Name a berry.", "output": ""}])


@pytest.mark.parametrize("data", [[], None, 7, ["Name a fruit."], [("a", "b", "c")], {"instruction": ["a"]}])
def test_anything_else_is_refused(data):
    with pytest.raises(IndicatorError, match=r"targets are .*; pass a file, a Hub id, a Dataset, or a list of rows"):
        Targets.read(data)


def test_too_many_targets_are_refused():
    rows = Dataset.from_dict({"instruction": ["a"] * (MOST + 1), "response": ["b"] * (MOST + 1)})
    with pytest.raises(IndicatorError, match="5,001 targets; pass at most 5,000"):
        Targets.read(rows)


def test_columns_that_cannot_be_told_are_named():
    with pytest.raises(ColumnsError, match="the targets: "):
        Targets.read([{"left": "a", "right": "b"}])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"no file or folder .*none\.jsonl"):
        Targets.read(str(tmp_path / "none.jsonl"))
