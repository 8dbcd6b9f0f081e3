"""mine: a complete folder or none, the same result again for nothing, nothing of the user's replaced."""

import json

import pytest
from datasets import Dataset, load_dataset

from im_datasets import LinearRule, mine, pipeline
from im_datasets.errors import OutputError, RuleError, SelectionError, SourceError
from im_datasets.record import ScoringRecord


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight rows: five whole answers, an echo, an empty one, a wrong one."""
    rows = [
        ("What is the capital of Italy?", "The capital of Italy is Rome."),
        ("Name three primary colours.", "Red, yellow and blue are the primary colours."),
        ("How do bees make honey?", "Bees gather nectar and thicken it into honey inside the hive."),
        ("Why is the sky blue?", "Air scatters the blue part of sunlight more than the red part."),
        ("What does a thermometer measure?", "A thermometer measures temperature."),
        ("Explain what a verb is.", "Explain what a verb is."),
        ("Write a haiku about rain.", ""),
        ("How long is a marathon?", "Bees gather nectar and thicken it into honey inside the hive."),
    ]
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = [json.dumps({"instruction": x, "output": y, "n": n}) for n, (x, y) in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def mined(data, tmp_path_factory):
    return mine(data, tmp_path_factory.mktemp("out") / "mined", top_k=4, progress=False)


def test_mine_writes_every_part(mined):
    names = {path.name for path in mined.folder.iterdir()}
    assert names >= {"kept.parquet", "dropped.parquet", "README.md", "record.json", "report.html", "figures"}
    assert not mined.repeated


def test_mine_keeps_whole_answers(mined):
    assert set(mined.selection.kept["n"]) <= {0, 1, 2, 3, 4}


def test_mine_output_opens_with_load_dataset(mined):
    kept = load_dataset(str(mined.folder), split="train")
    dropped = load_dataset(str(mined.folder), "dropped", split="train")
    assert kept.to_list() == mined.selection.kept.to_list()
    assert sorted([*kept["n"], *dropped["n"]]) == list(range(8))


def test_mine_record_tells_the_selection(mined, data):
    record = ScoringRecord.load(mined.folder / "record.json")
    assert record == mined.record
    assert record.selection["top_k"] == 4
    assert record.selection["kept"] == 4
    assert sum(record.selection["reasons"].values()) == record.selection["dropped"] == 4
    assert record.source["rows"] == record.rows == 8
    assert str(data.parent) not in (mined.folder / "README.md").read_text()


def test_mine_again_repeats_nothing(mined, data, monkeypatch):
    monkeypatch.setattr(pipeline, "score", lambda *_, **__: pytest.fail("scored again"))
    again = mine(data, mined.folder, top_k=4, progress=False)
    assert again.repeated
    assert again.record == mined.record
    assert again.selection.kept.to_list() == mined.selection.kept.to_list()
    assert again.selection.settings == json.loads(json.dumps(mined.selection.settings))


def test_mine_refuses_to_replace_another_result(mined, data):
    with pytest.raises(OutputError, match="holds another result; pass --overwrite"):
        mine(data, mined.folder, top_k=3, progress=False)


def test_mine_overwrites_when_asked(data, tmp_path):
    mine(data, tmp_path / "out", top_k=4, progress=False)
    second = mine(data, tmp_path / "out", top_k=2, overwrite=True, progress=False)
    assert len(second.selection.kept) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_mine_never_replaces_what_it_did_not_write(data, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="only replaces results of im-datasets"):
        mine(data, tmp_path, top_k=4, overwrite=True, progress=False)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_mine_refuses_a_file_as_folder(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        mine(data, tmp_path / "file", top_k=4, progress=False)


@pytest.mark.parametrize("part", ["score", "select", "write_report", "write_card"])
def test_mine_interrupted_leaves_nothing(data, tmp_path, monkeypatch, part):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, part, interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine(data, tmp_path / "out", top_k=4, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_mine_checks_the_request_before_it_computes(data, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "score", lambda *_, **__: pytest.fail("scored"))
    with pytest.raises(SelectionError, match="top_k"):
        mine(data, tmp_path / "out", progress=False)
    with pytest.raises(RuleError, match="no rule 'v9'"):
        mine(data, tmp_path / "out", top_k=1, rule="v9", progress=False)
    with pytest.raises(SourceError, match="nowhere"):
        mine(tmp_path / "nowhere.jsonl", tmp_path / "out", top_k=1, progress=False)


def test_mine_takes_a_dataset_and_a_rule(tmp_path):
    rows = Dataset.from_dict({"prompt": ["Say hello.", "Name a fruit."], "completion": ["Hello!", "An apple."]})
    done = mine(rows, tmp_path / "out", rule=LinearRule.load("embedded"), top_k=1, limit=1, progress=False)
    assert done.record.rows == 1


def test_evaluation_texts_takes_first_turns(tmp_path):
    (tmp_path / "e.jsonl").write_text('{"turns": ["First.", "Then."]}\n{"turns": ["Other."]}\n')
    assert pipeline.evaluation_texts(str(tmp_path / "e.jsonl")) == ["First.", "Other."]


def test_evaluation_texts_refuses_unknown_columns(tmp_path):
    (tmp_path / "e.jsonl").write_text('{"a": "b"}\n')
    with pytest.raises(SourceError, match=r"no instructions in the evaluation set .*\['a'\]"):
        pipeline.evaluation_texts(str(tmp_path / "e.jsonl"))
