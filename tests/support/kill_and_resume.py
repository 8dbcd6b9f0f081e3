"""Kills a scoring run at random points, starts it again each time, and tells what was computed twice or lost.

A program, so that every attempt is a process of its own that SIGKILL ends:
``python tests/support/kill_and_resume.py FOLDER --rows 300 --kills 20`` prints one JSON object. ``FOLDER`` gets a tiny
model, the store and the attempts' logs.
"""

import argparse
import json
import multiprocessing
import os
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}

import tiny_models
import torch
from datasets import Dataset

from im_datasets import LinearRule, score
from im_datasets.indicators import Perplexity
from im_datasets.models import inference
from im_datasets.models.batching import TokenBudget
from im_datasets.models.value_store import using_store
from im_datasets.rules.linear import Term

RULE = LinearRule("perplexity", "by perplexity", 0.0, (Term("im_perplexity", 0.01),))


def main() -> None:
    """Score once undisturbed, then with kills, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    model = tiny_models.save_causal(options.folder / "model")
    fork = multiprocessing.get_context("fork")
    plain, killed = options.folder / "plain", options.folder / "killed"
    run_to_the_end(fork, plain, model, options.rows)
    batches = len((plain / "log-0").read_text().split())
    attempts: list[dict[str, int]] = []
    random.seed(0)
    while len(attempts) < options.kills:
        before = stored(killed)
        process = fork.Process(target=attempt, args=(killed, model, options.rows, len(attempts)))
        process.start()
        wait_for(killed / f"log-{len(attempts)}", random.randint(0, 3 * batches // (2 * options.kills)), process)
        time.sleep(random.uniform(0.0, 0.005))
        process.kill()  # nothing, where the attempt was quicker
        process.join()
        attempts.append({"stored_before": before, **logged(killed, len(attempts))})
    before = stored(killed)
    run_to_the_end(fork, killed, model, options.rows, number=len(attempts))
    last = {"stored_before": before, **logged(killed, len(attempts))}
    equal = (plain / "scores.json").read_bytes() == (killed / "scores.json").read_bytes()
    print(json.dumps({"rows": options.rows, "equal": equal, "attempts": attempts, "last": last}))


def wait_for(log: Path, lines: int, process: Any) -> None:
    """Until an attempt has run so many batches, or has ended."""
    while process.is_alive() and not (log.exists() and len(log.read_text().split()) >= lines):
        time.sleep(0.001)


def run_to_the_end(fork: Any, folder: Path, model: Path, rows: int, number: int = 0) -> None:
    """One attempt that nobody disturbs."""
    process = fork.Process(target=attempt, args=(folder, model, rows, number))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"an undisturbed attempt ended with {process.exitcode}")


def attempt(folder: Path, model: Path, rows: int, number: int) -> None:
    """Score all rows; every batch that ends is a line in the attempt's log, and is stored at once."""
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    inference.FLUSH_SECONDS = 0.0
    run = inference.BatchRunner._run
    log = (folder / f"log-{number}").open("a", buffering=1)

    def noted(self: inference.BatchRunner, batch: Any) -> Any:
        values = run(self, batch)
        log.write(f"{len(batch.rows)}\n")
        return values

    inference.BatchRunner._run = noted  # type: ignore[method-assign]
    loaded = Perplexity(model=str(model)).checkpoint.load()
    object.__setattr__(loaded, "budget", TokenBudget(256))
    dataset = Dataset.from_dict(
        {
            "instruction": [f"Count to {row}." for row in range(rows)],
            "output": [" ".join(map(str, range(row % 37 + 1))) for row in range(rows)],
        }
    )
    with using_store(folder):
        scored = score(dataset, RULE, indicators=[Perplexity(model=str(model))], describe=False, progress=False)
    (folder / "scores.json").write_text(json.dumps(scored.dataset["im_perplexity"][:]))


def stored(folder: Path) -> int:
    """Values in the store."""
    if not (folder / "scores.sqlite").exists():
        return 0
    with sqlite3.connect(folder / "scores.sqlite") as connection:
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'entries'").fetchone()[0]
        return int(connection.execute("SELECT COUNT(*) FROM entries").fetchone()[0]) if tables else 0


def logged(folder: Path, number: int) -> dict[str, int]:
    """How many rows an attempt ran, and its largest batch."""
    path = folder / f"log-{number}"
    sizes = [int(line) for line in path.read_text().split()] if path.exists() else []
    return {"ran": sum(sizes), "largest": max(sizes, default=0)}


if __name__ == "__main__":
    main()
