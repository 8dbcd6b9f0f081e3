"""Groups of options become the requests that they are made from."""

import sys
from pathlib import Path

import pytest
from cyclopts import CoercionError

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


def test_targets_are_a_place_and_a_model():
    given = parse("mine rows.jsonl --top-k 3 --targets job.jsonl --target-model embedded --out x")
    assert given["selection"] == SelectionOptions(top_k=3, targets="job.jsonl", target_model="embedded")
    with pytest.raises(SelectionError, match="targets choose rows by nearness, a threshold by score"):
        parse("select scored --threshold 1 --targets job.jsonl --out x")


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


def test_a_dash_is_a_value_where_one_is_asked_for():
    given = parse("mine rows.jsonl --threshold -2 --log-json - --out x")
    assert (given["selection"].threshold, given["run"].log_json) == (-2, "-")
    pushed = parse("push mined me/best --message -1st --pretty-name --best--")
    assert (pushed["message"], pushed["pretty_name"]) == ("-1st", "--best--")
    assert parse("calibrate a.jsonl --template -{instruction} --out x")["experiment"].template == "-{instruction}"


@pytest.mark.parametrize(
    "words",
    [
        "mine rows.jsonl --out x --top-k 2.5",
        "mine rows.jsonl --out x --top-k 2 --limit none",
        "compare rows.jsonl --out x --size 100 --size 0x10",
        "score rows.jsonl --out x --workers 1.5",
    ],
)
def test_no_whole_number_is_refused_and_not_rounded(words):
    with pytest.raises(CoercionError, match=f'unable to convert "{words.split()[-1]}" into int'):
        app.parse_args(words.split(), print_error=False, exit_on_error=False)


def test_no_sample_is_refused_in_words_that_name_both_ways():
    with pytest.raises(CoercionError, match=r'"3\.7" is neither a whole number nor all\.'):
        app.parse_args(["verify", "me/best", "--sample", "3.7"], print_error=False, exit_on_error=False)


def test_a_whole_number_may_have_a_sign_and_a_point():
    given = parse("mine rows.jsonl --top-k +1_000 --limit 30. --seed -2.0 --out x")
    assert (given["selection"].top_k, given["source"].limit, given["selection"].seed) == (1000, 30, -2)


def test_run_options_choose_the_engine(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/im-datasets", "score", "/home/me/rows.jsonl", "--out", "x"])
    run = RunOptions(workers=2, resume=False, log_json="-").request(overwrite=True, progress=False)
    assert (run.overwrite, run.progress, run.cache, run.resume, run.log) == (True, False, True, False, "-")
    assert run.engine == LocalEngine(2)
    assert run.command == command_line() == ["im-datasets", "score", "rows.jsonl", "--out", "x"]


def test_completion_of_shells_knows_the_options():
    assert "--near-duplicates" in app.generate_completion(shell="bash")
