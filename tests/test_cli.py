"""The command line as people call it: exit codes, one clear line, JSON for machines."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

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
    command = [sys.executable, "-W", "error", "-c", "from im_datasets.cli import main; main()", *map(str, args)]
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
        (["rows.jsonl", "--top-k", 2, "--rule", "v3"], 1, "im_reward"),
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
    code = "from im_datasets.cli import main; main()"
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


def test_rules_lists_and_shows(tmp_path):
    assert "embedded" in run("rules", cwd=tmp_path).stdout
    assert json.loads(run("rules", "v1", cwd=tmp_path).stdout)["intercept"] == 1.0694


def test_version(tmp_path):
    assert run("--version", cwd=tmp_path).stdout.startswith("im-datasets ")
