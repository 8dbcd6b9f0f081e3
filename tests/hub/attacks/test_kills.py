"""SIGKILL at any step of mine, score and push: the old result, the new one or none; the next run leaves nothing of it.

``IM_KILLS`` is the number of steps at which each of them is killed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import indicators_for_tests
import pytest

KILLS = int(os.environ.get("IM_KILLS", "40"))
SEEN = {"mine": {"old", "new"}, "score": {"old", "new", "unfinished"}, "push": {"old", "new"}}
"""What may lie under the result's name after a kill. A single file of scores has a record beside it: while the two take
their names, the record says that it fits no rows, and no command reads them."""


@pytest.mark.parametrize("command", SEEN)
def test_a_killed_command_leaves_no_half_and_the_same_again_completes_it(tmp_path, command):
    program = Path(indicators_for_tests.__file__).with_name("kill_steps.py")
    call = [sys.executable, str(program), str(tmp_path), command, "--kills", str(KILLS)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout.splitlines()[-1])
    assert len(kills) == KILLS
    for kill in kills:
        assert kill["seen"] in SEEN[command], kill
        assert (kill["again"], kill["left"]) == ("new", []), kill
    # Over the whole run: some of them came before the result took its place, some after.
    assert {"old", "new"} <= {kill["seen"] for kill in kills}
