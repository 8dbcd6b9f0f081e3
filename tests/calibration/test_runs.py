"""The table of runs: what is written comes back, a killed writer costs its own line only, mistakes are named."""

import json
import math
import multiprocessing
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_datasets.calibration.runs import Run, append_run, read_runs
from im_datasets.common.errors import CalibrationError

NUMBERS = st.floats(-1e50, 1e50)
NAMES = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable())


def make(run="a", means=None, losses=None, **fields):
    return Run(run, means or {"im_mtld": 61.5}, losses or {"mt-bench": 0.74}, **fields)


def table(tmp_path, *lines):
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


PLAIN = {"run": "a", "means": {"im_mtld": 61.5}, "losses": {"mt-bench": 0.74}}


def test_run_without_digests_of_its_evaluation_sets_is_read():
    plain = {"run": "a", "means": {}, "losses": {"e": 1.0}}
    assert Run.from_dict(plain).evaluations == {}
    stated = Run.from_dict({**plain, "evaluations": {"e": "12"}})
    assert Run.from_dict(json.loads(stated.to_json())) == stated
    with pytest.raises(CalibrationError, match="field 'evaluations': got list; an object"):
        Run.from_dict({**plain, "evaluations": ["12"]})


@settings(max_examples=30)
@given(
    st.dictionaries(NAMES, NUMBERS, max_size=4),
    st.dictionaries(NAMES, NUMBERS, min_size=1, max_size=3),
    st.text(max_size=30),
)
def test_append_run_then_read_runs_gives_the_run_back(means, losses, subset):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep" / "runs.jsonl"
        run = Run("r\u2028\n1", means, losses, kind="search", subset=subset, seed=3, rows=10, training={"lr": 1e-4})
        append_run(path, run)
        assert read_runs(path).runs == (run,)
        assert path.read_bytes().count(b"\n") == 1


def test_nan_is_null_in_the_file_and_nan_again(tmp_path):
    append_run(tmp_path / "runs.jsonl", make(means={"im_mtld": math.nan}, losses={"a": math.nan}))
    assert json.loads((tmp_path / "runs.jsonl").read_text())["means"] == {"im_mtld": None}
    run = read_runs(tmp_path / "runs.jsonl").runs[0]
    assert math.isnan(run.means["im_mtld"])
    assert math.isnan(run.losses["a"])


def _append_many(path, writer):
    for i in range(20):
        append_run(path, make(f"{writer}-{i}", subset="x" * 20_000))


def test_append_run_by_several_processes_keeps_every_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(path, writer)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    ids = {run.run for run in read_runs(path).runs}
    assert ids == {f"{writer}-{i}" for writer in range(3) for i in range(20)}


@pytest.mark.parametrize("kept", [1, 20, 60])
def test_read_runs_leaves_out_a_torn_last_line_and_says_so(tmp_path, kept):
    path = table(tmp_path, PLAIN)
    path.write_bytes(path.read_bytes() + make("b").to_json().encode()[:kept])
    runs = read_runs(path)
    assert [run.run for run in runs.runs] == ["a"]
    assert runs.notes == ("line 2 was not finished when its writer stopped, and is left out",)


def test_a_last_line_torn_inside_a_character_is_left_out_and_replaced(tmp_path):
    path = table(tmp_path, PLAIN)
    torn = make("b", subset="é").to_json().encode()
    path.write_bytes(path.read_bytes() + torn[: torn.index("é".encode()) + 1])
    runs = read_runs(path)
    assert [run.run for run in runs.runs] == ["a"]
    assert runs.notes == ("line 2 was not finished when its writer stopped, and is left out",)
    append_run(path, make("c"))
    assert [run.run for run in read_runs(path).runs] == ["a", "c"]


def test_append_run_after_a_torn_line_takes_its_place(tmp_path):
    path = table(tmp_path, PLAIN)
    path.write_bytes(path.read_bytes() + b'{"run": "b", "mea')
    append_run(path, make("c"))
    assert [run.run for run in read_runs(path).runs] == ["a", "c"]
    assert read_runs(path).notes == ()


def test_append_run_after_a_line_without_its_line_feed_keeps_it(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(PLAIN))
    assert [run.run for run in read_runs(path).runs] == ["a"]
    append_run(path, make("b"))
    assert [run.run for run in read_runs(path).runs] == ["a", "b"]


def test_read_runs_takes_blank_lines_and_the_three_needed_fields(tmp_path):
    run = read_runs(table(tmp_path, PLAIN, "", PLAIN | {"run": "b", "kind": "compare"})).runs
    assert [r.kind for r in run] == ["calibration", "compare"]
    assert run[0].rows is None


def test_of_kind_tells_runs_apart(tmp_path):
    runs = read_runs(table(tmp_path, PLAIN, PLAIN | {"run": "b", "kind": "compare"}))
    assert [run.run for run in runs.of_kind("compare")] == ["b"]


def test_read_runs_leaves_out_a_repeat_and_says_so(tmp_path):
    runs = read_runs(table(tmp_path, PLAIN, PLAIN))
    assert len(runs.runs) == 1
    assert runs.notes == ("line 2 repeats run 'a' of line 1, and is left out",)


def test_read_runs_refuses_an_id_with_two_results(tmp_path):
    path = table(tmp_path, PLAIN, PLAIN | {"losses": {"mt-bench": 0.75}})
    with pytest.raises(CalibrationError, match="line 2, field 'run': 'a' is already line 1"):
        read_runs(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: it is not JSON"),
        ("[" * 100_000, "line 2: it is nested deeper"),
        ("[1]", "line 2: a run is a JSON object, got list"),
        ({"run": "b", "means": {}}, "line 2: has no 'losses'; a run needs"),
        (PLAIN | {"loss": 1}, "line 2: has unknown fields 'loss'; put them under 'details'"),
        (PLAIN | {"run": ""}, "line 2: .*field 'run': got ''"),
        (PLAIN | {"run": 7}, "line 2: .*field 'run': got 7"),
        (PLAIN | {"kind": "test"}, "field 'kind': got 'test'; one of calibration, search, compare"),
        (PLAIN | {"means": [1]}, "field 'means': got list"),
        (PLAIN | {"means": {"im_mtld": "61"}}, "line 2: .*field 'means.im_mtld': got '61'; a finite number"),
        (PLAIN | {"means": {"im_mtld": True}}, "field 'means.im_mtld': got True"),
        (PLAIN | {"losses": {"a": math.inf}}, "field 'losses.a': got inf"),
        (PLAIN | {"losses": {"a": 10**400}}, "field 'losses.a': got 1000.*; a finite number up to"),
        (PLAIN | {"losses": {}}, "field 'losses': empty"),
        (PLAIN | {"seed": 1.5}, "field 'seed': got 1.5"),
        (PLAIN | {"rows": -1}, "field 'rows': got -1"),
        (PLAIN | {"seconds": "3"}, "field 'seconds': got '3'"),
        (PLAIN | {"subset": 3}, "field 'subset': got int"),
        (PLAIN | {"training": "lora"}, "field 'training': got str"),
    ],
)
def test_read_runs_names_line_field_and_fix(tmp_path, line, message):
    with pytest.raises(CalibrationError, match=message):
        read_runs(table(tmp_path, PLAIN | {"run": "first"}, line))


def test_read_runs_without_a_file_or_with_other_bytes(tmp_path):
    with pytest.raises(CalibrationError, match=r"cannot read .*nothing.jsonl as a table of runs"):
        read_runs(tmp_path / "nothing.jsonl")
    (tmp_path / "odd.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(CalibrationError, match=r"odd.jsonl, line 1: it is not UTF-8"):
        read_runs(tmp_path / "odd.jsonl")
