"""A run that is killed goes on where it was: nothing stored is computed again, nothing that ended is lost."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import tiny_models

ROWS, KILLS = 300, 20


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    program = Path(tiny_models.__file__).with_name("kill_and_resume.py")
    command = [sys.executable, str(program), str(tmp_path_factory.mktemp("runs")), "--rows", str(ROWS)]
    done = subprocess.run([*command, "--kills", str(KILLS)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_killed_run_ends_with_the_same_scores(told):
    assert told["equal"]
    assert len(told["attempts"]) == KILLS


def test_a_killed_run_computes_nothing_again_that_was_stored(told):
    assert told["last"]["stored_before"] + told["last"]["ran"] == ROWS
    assert sum(attempt["ran"] > 0 for attempt in told["attempts"]) >= KILLS // 2  # killed amid the work


def test_a_killed_run_loses_no_more_than_the_batches_at_hand(told):
    runs = [*told["attempts"], told["last"]]
    for one, after in pairwise(runs):
        lost = one["stored_before"] + one["ran"] - after["stored_before"]
        assert 0 <= lost <= 4 * one["largest"]
