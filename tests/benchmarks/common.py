"""What every benchmark shares: timing side by side, the machine and versions, a table, and JSON.

Subjects of one comparison run in the same process on the same inputs, in turn, round after round, so that a busy
moment of the machine meets them all; the best round of each counts, and ratios are what to read.
"""

import argparse
import gc
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

# Nothing may come from an earlier run, in this process or in those it starts.
os.environ["IM_DATASETS_STORE"] = "off"

Clock = Literal["cpu", "wall"]
CLOCKS: dict[Clock, tuple[Callable[[], float], str]] = {
    "cpu": (time.process_time, "CPU seconds of this process, all its threads"),
    "wall": (time.perf_counter, "wall seconds"),
}


@dataclass(frozen=True)
class Result:
    """One subject of a comparison.

    Attributes:
        subject: What ran.
        seconds: Its best round.
        items_per_second: Items of the input over ``seconds``.
        speedup: Seconds of the baseline over its own; above 1 is faster than the baseline.
        spread: Worst round over best round; far above 1 tells of a busy machine.
    """

    subject: str
    seconds: float
    items_per_second: float
    speedup: float
    spread: float


def arguments(description: str, *, rounds: int = 5) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="JSON or JSONL instruction dataset")
    parser.add_argument("--rows", type=int, metavar="N", help="only the first N rows")
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help="rounds per subject (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the results here too")
    return parser


def read_rows(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Rows of a JSON list or of JSON lines."""
    text = path.read_text(encoding="utf-8")
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    return rows[:limit]


def compare(
    subjects: Mapping[str, Callable[[], object]], *, items: int, rounds: int = 5, clock: Clock = "cpu"
) -> list[Result]:
    """Time subjects in turn; the first one is the baseline.

    Args:
        subjects: Name → a call that does all the work once; made ready beforehand, each with a warm-up round.
        items: How many items one call handles.
        rounds: Timed rounds per subject.
        clock: ``"cpu"`` for one-threaded work on a shared machine, ``"wall"`` for anything with threads.

    Returns:
        One result per subject, in order.
    """
    now = CLOCKS[clock][0]
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for timed_round in range(rounds + 1):
        for name, call in subjects.items():
            gc.collect()
            start = now()
            call()
            if timed_round:
                times[name].append(now() - start)
    baseline = min(next(iter(times.values())))
    return [
        Result(name, min(taken), items / min(taken), baseline / min(taken), max(taken) / min(taken))
        for name, taken in times.items()
    ]


def machine() -> dict[str, Any]:
    """Processor, cores and memory of this machine."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.system(),
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of the packages compared."""
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """A Markdown table, numbers to the right, ready to be pasted into the README of the benchmarks."""
    head = list(rows[0])
    cells = [[_cell(row[name]) for name in head] for row in rows]
    widths = [max(len(line[place]) for line in [head, *cells]) for place in range(len(head))]
    right = [isinstance(rows[0][name], int | float) for name in head]
    for line in [head, ["-" * (w - r) + ":" * r for w, r in zip(widths, right, strict=True)], *cells]:
        padded = [
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(line, widths, right, strict=True)
        ]
        print(f"| {' | '.join(padded)} |")


def report(
    name: str,
    results: Sequence[Result],
    *,
    data: str,
    covers: str,
    clock: Clock,
    packages: Sequence[str],
    out: Path | None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Print what was measured and write it as JSON.

    Args:
        name: Of the benchmark.
        results: From ``compare``.
        data: The input in words; no path.
        covers: What lies between starting and stopping the clock.
        clock: The clock of ``compare``.
        packages: Whose versions matter.
        out: A JSON file; None writes none.
        facts: Whatever else the run found, such as recall or the number of equal values.
    """
    record = {
        "benchmark": name,
        "data": data,
        "clock": f"{CLOCKS[clock][1]}, best round, subjects in turn; covers {covers}",
        "machine": machine(),
        "versions": versions(*packages),
        "facts": dict(facts or {}),
        "results": [asdict(result) for result in results],
    }
    for key in ("benchmark", "data", "clock", "machine", "versions", "facts"):
        print(f"{key}: {_words(record[key])}")
    print()
    print_table(record["results"])
    if out is not None:
        out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 1 else f"{value:.2f}"


def _words(value: object) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
