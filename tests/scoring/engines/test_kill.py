"""A run that is killed, again and again, at any point: no finished shard twice, and the same scores."""

import json
import subprocess
import sys
from pathlib import Path

import indicators_for_tests

KILLS = 20


def test_killed_run_loses_at_most_the_shard_at_hand(tmp_path):
    program = Path(indicators_for_tests.__file__).with_name("kill_shards.py")
    command = [sys.executable, str(program), str(tmp_path), "--kills", str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["equal"]
    assert len(told["attempts"]) == KILLS + 1
    for attempt in told["attempts"]:
        assert attempt["computed"] - 1 <= attempt["finished"] <= attempt["computed"]
    assert sum(attempt["finished"] for attempt in told["attempts"]) == told["shards"]
    assert sum(attempt["computed"] > 0 for attempt in told["attempts"]) >= 3  # killed amid the work
