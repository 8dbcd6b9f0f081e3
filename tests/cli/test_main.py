"""The command line as people call it: exit codes, one clear line, JSON for machines."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from im_datasets.cli import main as cli
from im_datasets.cli.options import ModelOptions
from im_datasets.indicators import Quality
from im_datasets.models.embedder import Embedder
from im_datasets.scoring.record import ScoringRecord

ROWS = [
    {"instruction": "What is the capital of Italy?", "output": "The capital of Italy is Rome."},
    {"instruction": "Name three primary colours.", "output": "Red, yellow and blue."},
    {"instruction": "How do bees make honey?", "output": "They thicken nectar inside the hive."},
    {"instruction": "Write a haiku about rain.", "output": ""},
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def run(*args, cwd):
    command = [sys.executable, "-W", "error", "-c", "from im_datasets.cli.main import main; main()", *map(str, args)]
    environment = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_mine_ends_with_a_summary(data, tmp_path):
    done = run("mine", data, "--top-k", 2, "--out", "mined", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Kept 2 of 4 rows by the rule 'embedded'" in done.stdout
    assert "below the cut" in done.stdout
    assert "unscorable: empty response" in done.stdout
    assert "The 3 best rows" in done.stdout
    assert "open report.html" in done.stdout
    assert "Scoring" in done.stderr
    again = run("mine", data, "--top-k", 2, "--out", "mined", cwd=tmp_path)
    assert "nothing was computed again" in again.stdout


@pytest.mark.slow
@pytest.mark.xdist_group("static")
def test_mine_with_the_static_embedder(data, tmp_path):
    done = run(
        "mine", data, "--top-k", 2, "--out", "mined", "--embedder", "static", "--near-duplicates", 0.9, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "mined" / "record.json").read_text())
    models = {indicator["name"]: indicator["model"]["id"] for indicator in record["indicators"] if indicator["model"]}
    assert models == {"Quality": "static", "Similarity": "static", "KNNDistance": "static"}
    assert record["selection"]["embedder"]["id"] == "static"


def test_mine_json_is_for_machines(data, tmp_path):
    done = run("mine", data, "--top-k", 2, "--out", "mined", "--json", cwd=tmp_path)
    assert done.stderr == ""
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["kept"], summary["dropped"]) == (4, 2, 2)
    assert summary["reasons"] == {"below the cut": 1, "unscorable: empty response": 1}
    assert summary["best"][0]["rank"] == 1
    assert summary["worst"][0]["rank"] == 3


@pytest.mark.parametrize(
    ("args", "status", "line"),
    [
        (["nowhere.jsonl", "--top-k", 2], 1, "nowhere.jsonl"),
        (["rows.jsonl"], 1, "top_k"),
        (["rows.jsonl", "--top-k", 99], 1, "99"),
        (["rows.jsonl", "--top-k", 2, "--fraction", 0.5], 1, "fraction"),
        (["rows.jsonl", "--fraction", 1.5], 1, "1.5"),
        (["rows.jsonl", "--top-k", 2, "--rule", "v9"], 1, "no rule 'v9'"),
        (["rows.jsonl", "--top-k", 2, "--rule", "v3"], 1, "download it first: hf download OpenAssistant/"),
        (["rows.jsonl", "--top-k", 2, "--columns", "response=nothing"], 1, "nothing"),
        (["rows.jsonl", "--top-k", 2, "--columns", "nonsense"], 1, "nonsense"),
        (["rows.jsonl", "--top-k", 2, "--per-group", "a"], 1, "COLUMN=QUOTA"),
        (["rows.jsonl", "--top-k", 2, "--limit", 0], 1, "limit"),
        (["rows.jsonl", "--top-k", "two"], 2, "--top-k"),
    ],
)
def test_mine_bad_input_is_one_clear_line(data, tmp_path, args, status, line):
    done = run("mine", *args, "--out", "mined", cwd=tmp_path)
    assert done.returncode == status
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mined").exists()
    if status == 1:
        assert [text for text in done.stderr.splitlines() if text.startswith("im-datasets: error: ")][-1:]


def test_mine_interrupted_says_so_and_leaves_nothing(tmp_path):
    many = [{"instruction": f"What is {n} plus {n}?", "output": f"It is {2 * n}. " * 40} for n in range(3000)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    code = "from im_datasets.cli.main import main; main()"
    command = [sys.executable, "-c", code, "mine", "rows.jsonl", "--top-k", "2", "--out", "mined"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        seen = ""
        while "Scoring" not in seen:
            seen += process.stderr.read(1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "interrupted; nothing was written" in rest
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl"}


@pytest.mark.filterwarnings("ignore:this CPU has no instructions")
def test_dtype_leaves_unieval_in_float32():
    """v3 subtracts two of its nearly equal scores; a setting in Python may still say otherwise."""
    models = ModelOptions(rule="v3", perplexity_model="causal", device="cpu", dtype="bfloat16")
    made = {type(one).__name__: one for one in models.indicators()}
    assert {name: (one.dtype, one.device) for name, one in made.items()} == {
        "Reward": ("bfloat16", "cpu"),
        "UniEval": ("float32", "cpu"),
        "Perplexity": ("bfloat16", "cpu"),
    }


def test_score_then_select_and_a_log_for_machines(data, tmp_path):
    done = run("score", data, "--out", "scored", "--log-json", "log.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("scored: 4 rows, 1 could not be scored; ")
    events = [json.loads(line)["event"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert events == ["start", "shard", "part", "end"]
    chosen = run("select", "scored", "--top-k", 2, "--out", "mined", "--json", cwd=tmp_path)
    assert chosen.returncode == 0, chosen.stderr
    assert json.loads(chosen.stdout)["kept"] == 2
    told = (
        "score rows.jsonl --out scored --log-json log.jsonl && im-datasets select scored --top-k 2 --out mined --json"
    )
    assert ScoringRecord.load(tmp_path / "mined/record.json").command == ["sh", "-c", f"im-datasets {told}"]
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "log.jsonl", "scored", "mined"}


def test_rules_lists_and_shows(tmp_path):
    assert "embedded" in run("rules", cwd=tmp_path).stdout
    assert json.loads(run("rules", "v1", cwd=tmp_path).stdout)["intercept"] == 1.0694


def test_who_reads_only_the_beginning_sees_no_traceback(tmp_path):
    code = "from im_datasets.cli.main import main; main()"
    command = [sys.executable, "-c", code, "rules", "v1"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_version(tmp_path):
    assert run("--version", cwd=tmp_path).stdout.startswith("im-datasets ")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process; returns exit status, standard output and standard error."""

    def run_here(*args):
        monkeypatch.setattr(sys, "argv", ["im-datasets", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run_here


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["mine", "rows.jsonl"], "missing --out; im-datasets mine --help lists all"),
        (["mine", "rows.jsonl", "--out"], "--out requires an argument."),
        (["mine", "--out", "x"], "missing DATA; im-datasets mine --help lists all"),
        (["mine", "rows.jsonl", "--out", "x", "--top-k", "two"], "Invalid value for --top-k: unable to convert"),
        (["mine", "rows.jsonl", "--out", "x", "--topk", "2"], "Unknown option: --topk. Did you mean --top-k?"),
        (["mine", "rows.jsonl", "--out", "x", "--no-overwrite"], "Unknown option: --no-overwrite."),
        (["mine", "rows.jsonl", "--out", "x", "--workers", "0"], 'Invalid value "0" for --workers. Must be >= 1.'),
        (["select", "rows.jsonl", "more", "--out", "x"], "unexpected more;"),
        (["compare", "--out", "x"], "missing DATA; im-datasets compare --help lists all"),
        (["nine"], 'Unknown command "nine".'),
        (["verify", "x", "--sample", "-1"], 'Invalid value "-1" for --sample'),
        (["verify", "x", "--sample", "some"], 'Invalid value for --sample: "some" is neither a whole number nor all.'),
    ],
)
def test_a_wrong_call_is_one_clear_line(call, args, line):
    status, out, err = call(*args)
    assert (status, out) == (2, "")
    assert err.startswith("im-datasets: error: ")
    assert line in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("args", [[], ["metrics"]])
def test_a_call_without_a_command_shows_the_help(call, args):
    status, out, err = call(*args)
    assert status == 2
    assert "Usage: im-datasets" in out + err
    assert "im-datasets: error" not in err


def test_help_names_the_argument_as_people_read_it(call):
    status, out, _ = call("mine", "--help")
    assert status == 0
    assert "Usage: im-datasets mine --out PATH [OPTIONS] DATA" in out


@pytest.mark.parametrize("module", ["im_datasets", "im_datasets.cli.main"])
def test_python_m_runs_the_command_line(tmp_path, module):
    command = [sys.executable, "-m", module, "rules"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "embedded" in done.stdout


@pytest.mark.filterwarnings("default")
def test_mine_warns_of_evaluation_rows_that_it_cannot_read(call, data, tmp_path):
    (tmp_path / "e.jsonl").write_text('{"prompt": "How do bees make honey?"}\n{"prompt": " "}\n')
    arguments = [data, "--fraction", 1, "--out", tmp_path / "out", "--exclude-contaminated", tmp_path / "e.jsonl"]
    status, _, told = call("mine", *arguments, "--json")
    assert status == 0
    assert re.search("^im-datasets: warning: no instruction can be read in 1 of the 2 rows of", told, re.MULTILINE)
    assert ScoringRecord.load(tmp_path / "out/record.json").selection["reasons"]["contaminated"] == 1


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--device", "foo"], "device 'foo' is not available here"),
        (["--device", "cuda:99"], "device 'cuda:99' is not available here"),
        (["--dtype", "foo"], "dtype 'foo' is unknown; known: float32"),
        (["--dtype", "bfloat16"], "no indicator of this run takes --dtype bfloat16; leave it out"),
    ],
)
def test_mine_refuses_a_device_or_dtype_that_changes_nothing(call, data, tmp_path, args, line):
    status, _, err = call("mine", data, "--top-k", 2, "--out", tmp_path / "out", *args)
    assert status == 1
    assert line in err


def test_mine_hands_the_device_to_the_embedded_indicator():
    assert ModelOptions().indicators() == []
    assert ModelOptions(device="cpu").indicators() == [Quality(embedder=Embedder(device="cpu"))]
    static = Embedder(model="static", device="cpu")
    assert ModelOptions(device="cpu", embedder="static").indicators() == [Quality(embedder=static)]


@pytest.mark.parametrize("answers", [["{{name}} is it."] * 3])
def test_mine_tells_why_no_row_could_be_scored(call, tmp_path, answers):
    rows = [{"instruction": "Who is it?", "output": answer} for answer in [*answers, ""]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, err = call("mine", tmp_path / "rows.jsonl", "--top-k", 1, "--out", tmp_path / "out", "--json")
    assert status == 1
    assert "none of the 4 rows could be scored: unfilled template (3), empty response (1)\n" in err


def test_no_control_character_of_an_error_reaches_the_terminal(call, tmp_path):
    status, _, err = call("mine", tmp_path / "a\x1b[31mb.jsonl", "--top-k", 1, "--out", tmp_path / "out")
    assert status == 1
    assert "a␛[31mb.jsonl" in err
    assert "\x1b" not in err


def test_mine_tells_a_shortfall_and_shows_rows_without_control_characters(call, tmp_path):
    odd = "An answer with \x1b[2J\x9b31m\u202e an escape."
    rows = [{"instruction": "Say it.", "output": odd, "topic": "a"} for _ in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["mine", tmp_path / "rows.jsonl", "--top-k", 2, "--per-group", "topic=1", "--out", tmp_path / "out"]
    status, out, _ = call(*command)
    assert status == 0
    assert "1 rows fewer than asked for: the checks left no more." in out
    assert "␛[2J" in out
    assert not set("\x1b\x9b\u202e") & set(out)
    assert json.loads(call(*command, "--json")[1])["shortfall"] == 1


def test_metrics_push_warns_that_the_spaces_ask_pypi_for_this_package(call):
    status, _, err = call("metrics", "push", "--namespace", "me", "--only", "mtld", "--dry-run")
    assert status == 0
    assert "im-datasets: warning: the Spaces will install im-datasets==" in err
    assert "--package git+https://" in err
    assert call("metrics", "push", "--namespace", "me", "--dry-run", "--package", "git+https://x/y")[2] == ""
