"""Kills a scoring run at random points, starts it again each time, and tells which shards were computed twice.

A program, so that every attempt is a process of its own that SIGKILL ends: ``python kill_shards.py FOLDER --kills 20``
prints one JSON object.
"""

import argparse
import json
import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

from indicators_for_tests import RULE, Letters, rows

from im_datasets import score
from im_datasets.scoring import score as scoring

SHARDS, SHARD_ROWS = 60, 20


def main() -> None:
    """Score once undisturbed, then with kills, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    scoring.SHARD_ROWS = scoring.CHUNK_ROWS = SHARD_ROWS
    plain, killed = options.folder / "plain", options.folder / "killed"
    attempt(plain)
    fork = multiprocessing.get_context("fork")
    random.seed(0)
    attempts: list[dict[str, int]] = []
    for number in range(options.kills + 1):
        before, noted = finished(killed), computed(killed)
        process = fork.Process(target=attempt, args=(killed,))
        process.start()
        if number < options.kills:
            wait_for(killed, noted + random.randint(0, 2 * SHARDS // options.kills), process)
            time.sleep(random.uniform(0.0, 0.02))
            # Where the attempt was quicker, there is nothing to kill.
            process.kill()
        process.join()
        now = {"finished": finished(killed) - before, "computed": computed(killed) - noted}
        attempts.append({"finished_before": before, **now})
    equal = (plain / "scores.json").read_bytes() == (killed / "scores.json").read_bytes()
    print(json.dumps({"shards": SHARDS, "equal": equal, "attempts": attempts}))


def wait_for(folder: Path, notes: int, process: Any) -> None:
    """Until so many shards were scored, or the attempt has ended."""
    while process.is_alive() and computed(folder) < notes:
        time.sleep(0.001)


def attempt(folder: Path) -> None:
    """Score all rows, every shard a line in the notes."""
    folder.mkdir(exist_ok=True)
    indicator: Any = Letters(seconds=0.01, notes=str(folder / "notes"))
    scored = score(
        rows(SHARDS * SHARD_ROWS), RULE, indicators=[indicator], describe=False, progress=False, folder=folder / "run"
    )
    (folder / "scores.json").write_text(json.dumps(scored.dataset["letters"][:]))


def finished(folder: Path) -> int:
    """Shards that are there."""
    return len(list((folder / "run").glob("shard-*.parquet")))


def computed(folder: Path) -> int:
    """Shards that were scored, written or not."""
    notes = folder / "notes"
    return len(notes.read_text().splitlines()) if notes.exists() else 0


if __name__ == "__main__":
    main()
