"""Groups of options become the requests that they are made from."""

import sys
from pathlib import Path

import pytest

from im_datasets.cli.main import app
from im_datasets.cli.options import DataOptions, ModelOptions, RunOptions, SelectionOptions, command_line
from im_datasets.common.errors import SelectionError
from im_datasets.data.columns import Columns
from im_datasets.data.request import SourceRequest
from im_datasets.scoring.engines.local import LocalEngine


def parse(words):
    """The arguments that a command would get, by name."""
    return app.parse_args(words.split())[1].arguments


def test_words_become_requests(tmp_path):
    (tmp_path / "e.jsonl").write_text('{"prompt": "Why?"}\n')
    words = "mine rows.jsonl --top-k 3 --per-group a=b=2 --columns instruction=q,response=a --limit 9 --out x"
    given = parse(f"{words} --exclude-contaminated {tmp_path / 'e.jsonl'}")
    assert given["selection"] == SelectionOptions(top_k=3, per_group=("a=b", 2), exclude_contaminated=["Why?"])
    assert given["source"] == DataOptions(columns=Columns(instruction="q", response="a"), limit=9)
    assert (given["data"], given["out"]) == ("rows.jsonl", Path("x"))
    scoring = ModelOptions().request("rows.jsonl", given["source"])
    assert (scoring.source.data, scoring.source.limit, scoring.columns.response) == ("rows.jsonl", 9, "a")
    assert isinstance(scoring.source, SourceRequest)


def test_an_option_given_twice_counts_once_unless_it_is_repeatable():
    given = parse(
        "mine rows.jsonl --top-k 3 --top-k 4 --per-group a=1 --per-group b=2 --language en --language de --out x"
    )
    assert given["selection"] == SelectionOptions(top_k=4, per_group=("b", 2))
    assert given["language"] == ["en", "de"]


def test_words_may_stand_on_both_sides_of_options():
    assert parse("compare a.jsonl --out x b.jsonl")["data"] == ("a.jsonl", "b.jsonl")


def test_a_quota_of_another_form_names_the_form():
    with pytest.raises(SelectionError, match="--per-group takes COLUMN=QUOTA with a whole number, got 'a=-1'"):
        parse("mine rows.jsonl --top-k 3 --per-group a=-1 --out x")


def test_run_options_choose_the_engine(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/im-datasets", "score", "/home/me/rows.jsonl", "--out", "x"])
    run = RunOptions(workers=2, resume=False, log_json="-").request(overwrite=True, progress=False)
    assert (run.overwrite, run.progress, run.cache, run.resume, run.log) == (True, False, True, False, "-")
    assert run.engine == LocalEngine(2)
    assert run.command == command_line() == ["im-datasets", "score", "rows.jsonl", "--out", "x"]


def test_completion_of_shells_knows_the_options():
    assert "--near-duplicates" in app.generate_completion(shell="bash")
