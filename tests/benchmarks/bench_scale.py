"""Rows per second and memory as datasets grow, with one worker and two: a table, JSON, and a log-log plot.

Each run is a process of its own over a synthetic Parquet dataset (seeded pseudo-words, drawn by Zipf's law into
sentences of varied length), written in pieces and never held whole. Parts: ``cheap`` scores with Length and MTLD, then
keeps a tenth; ``embedded`` is ``mine --rule embedded`` as a user runs it, and ``static`` the same with
``--embedder static``. What was kept goes into the results as a digest, by which runs are compared.

Memory is what the run's processes hold that no file backs (``RssAnon``), sampled five times a second and summed over
workers: mapped files, which the kernel takes back when it needs room, do not count.
"""

import argparse
import hashlib
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import common

from im_datasets.scoring.shards import SHARD_ROWS

CHUNK = 10_000
SYLLABLES = re.findall(
    "[a-z]+", "ba ce di fo gu la me ni or pu ra se ti vo wu an el is om un ter gra ment ion ble con pre"
)


def main() -> None:
    """Run every size, part and number of workers in turn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 50_000], metavar="ROWS")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--engines", nargs="+", choices=["local", "ray"], default=["local"])
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=["cheap"])
    parser.add_argument("--kill-at", type=float, metavar="SHARE", help="SIGKILL there, then go on in another process")
    parser.add_argument("--words", type=int, default=60, metavar="N", help="median words of a response (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="keep the synthetic datasets here")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where runs write; must hold the largest twice")
    parser.add_argument("--out", type=Path, metavar="JSON")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run(json.loads(options.side))))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        results = measure(options, Path(scratch))
    report(options, results)


def measure(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """One result per part, size and number of workers."""
    results = []
    for part in options.parts:
        for rows in options.sizes:
            data = synthetic(options.data or scratch, rows, options.words, options.seed)
            for engine, workers in product(options.engines, options.workers):
                asked = {"part": part, "engine": engine, "workers": workers, "data": str(data)}
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    found = watched({**asked, "folder": folder}, rows, options.kill_at)
                results.append({"part": part, "rows": rows, "engine": engine, "workers": workers, **found})
                print(results[-1], file=sys.stderr)
    return results


def synthetic(folder: Path, rows: int, words: int, seed: int) -> Path:
    """A Parquet file of so many rows, made where it is missing.

    Args:
        folder: Where it lies.
        rows: How many.
        words: Median words of a response; an instruction has a fifth of that.
        seed: Of all that is drawn.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"synthetic-{rows}-{words}-{seed}.parquet"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    vocabulary = np.array(["".join(draw.choice(SYLLABLES, draw.integers(1, 4))) for _ in range(20_000)], dtype=object)
    schema = pa.schema({"instruction": pa.string(), "output": pa.string(), "id": pa.int64()})
    aside = path.with_suffix(".part")
    with pq.ParquetWriter(aside, schema) as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            table = {
                "instruction": texts(draw, vocabulary, count, max(3, words // 5)),
                "output": texts(draw, vocabulary, count, words),
                "id": list(range(start, start + count)),
            }
            writer.write_table(pa.table(table, schema=schema))
    aside.replace(path)
    return path


def texts(draw: Any, vocabulary: Any, count: int, median: int) -> list[str]:
    """Texts of lognormal length, each a few sentences."""
    lengths = (median * draw.lognormal(0.0, 0.6, count)).astype(int).clip(1, 20 * median)
    words = vocabulary[draw.zipf(1.3, int(lengths.sum())) % len(vocabulary)]
    found, start = [], 0
    for length in lengths.tolist():
        text = words[start : start + length].tolist()
        sentences = [" ".join(text[at : at + 12]).capitalize() for at in range(0, length, 12)]
        found.append(". ".join(sentences) + ".")
        start += length
    return found


def watched(asked: dict[str, Any], rows: int, kill_at: float | None = None) -> dict[str, Any]:
    """One run in a process of its own: its figures, and the memory of it and its workers.

    Args:
        asked: What it shall do.
        rows: Of its dataset.
        kill_at: Share of the shards at which it and its workers are killed, to be run again in the same folder.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    killed: dict[str, float] = {}
    peak = 0.0
    if kill_at is not None:
        _, peak, finished = attempt(asked, kill_at * rows / SHARD_ROWS)
        killed = {"killed_after_s": round(time.perf_counter() - start, 1), "finished_shards": finished}
    output, highest, _ = attempt(asked)
    told = json.loads(output.splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    loaded = told.pop("loaded_mib")
    return {
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(cpu, 1),
        "rows_per_s": round(rows / (killed.get("killed_after_s", 0.0) + told["scoring_s"]), 1),
        "rows_per_cpu_s": round(rows / cpu, 1),
        "peak_anon_mib": round(max(peak, highest)),
        "libraries_mib": loaded,
        **killed,
        **told,
    }


def attempt(asked: dict[str, Any], kill_after: float = math.inf) -> tuple[str, float, int]:
    """Run until the end, or until so many shards are finished.

    Returns:
        Standard output, the peak of memory in MiB and the number of finished shards at the end or the kill.
    """
    command = [sys.executable, __file__, "--side", json.dumps(asked)]
    peak, finished, killed = 0.0, 0, False
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        while process.poll() is None:
            peak = max(peak, anonymous_mib(process.pid))
            if not killed and len(shards(asked["folder"])) >= kill_after:
                os.killpg(process.pid, signal.SIGKILL)
                killed = True
            time.sleep(0.2)
        finished = len(shards(asked["folder"]))
        output = process.communicate()[0]
    if process.returncode != (-signal.SIGKILL if killed else 0) or killed != (kill_after < math.inf):
        raise SystemExit(f"a run ended with {process.returncode}: {asked}")
    return output, peak, finished


def shards(folder: str) -> list[Path]:
    """The finished shards of a run."""
    return list(Path(folder).rglob("shard-*.parquet"))


def anonymous_mib(pid: int) -> float:
    """Memory without a file behind it, of a process and all below it."""
    total = 0.0
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            total += int(line.split()[1]) / 1024
    return total + sum(anonymous_mib(int(child)) for child in children)


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """What a measured process does."""
    import im_datasets.pipeline  # noqa: F401 - what the libraries take by themselves

    loaded = round(anonymous_mib(os.getpid()))
    start = time.perf_counter()
    seconds, scoring, kept, resumed = PARTS[asked["part"]](asked)
    shares = {part: spent for part, spent in seconds.items() if spent >= 0.01 * sum(seconds.values())}
    return {
        "scoring_s": scoring,
        "inside_s": round(time.perf_counter() - start, 1),
        "loaded_mib": loaded,
        "kept": kept,
        "resumed_shards": resumed,
        "parts": shares,
    }


Told = tuple[dict[str, float], float, str, int]
"""Seconds by part of the run, seconds of scoring, a digest of the rows that were kept, and shards found finished."""


def cheap(asked: dict[str, Any]) -> Told:
    """Length and MTLD, then the tenth with the highest MTLD; both sides written."""
    from im_datasets import LinearRule, load_source, score, select
    from im_datasets.data.arrow import laid_out
    from im_datasets.indicators import MTLD, Length
    from im_datasets.rules.linear import Term
    from im_datasets.scoring.engines.choose import choose_engine

    rule = LinearRule("diverse", "high MTLD", 0.0, (Term("im_mtld", -0.01, high=200),))
    folder = Path(asked["folder"])
    dataset = load_source(asked["data"]).dataset
    start = time.perf_counter()
    scored = score(
        dataset,
        rule,
        indicators=[MTLD(), Length()],
        describe=False,
        engine=choose_engine(asked["engine"], asked["workers"]),
        folder=folder / "run",
        log=folder / "log.jsonl",
    )
    scoring = round(time.perf_counter() - start, 2)
    start = time.perf_counter()
    selection = select(scored.dataset, fraction=0.1)
    for rows, name in ((selection.kept, "kept.parquet"), (selection.dropped, "dropped.parquet")):
        with laid_out(rows, folder) as lying:
            lying.to_parquet(folder / name)
    seconds = {**scored.record.seconds, "select": round(time.perf_counter() - start, 3)}
    return seconds, scoring, digest(folder / "kept.parquet"), scored.record.throughput["resumed_shards"]


def embedded(asked: dict[str, Any], model: str = "embedded") -> Told:
    """The command a user runs."""
    from im_datasets import mine
    from im_datasets.indicators import Quality
    from im_datasets.models.embedder import Embedder
    from im_datasets.report.result_folder import KEPT
    from im_datasets.scoring.engines.choose import choose_engine

    out = Path(asked["folder"]) / "out"
    start = time.perf_counter()
    mined = mine(
        asked["data"],
        out,
        indicators=[Quality(embedder=Embedder(model=model))],
        fraction=0.1,
        engine=choose_engine(asked["engine"], asked["workers"]),
        cache=False,
    )
    seconds, resumed = mined.record.seconds, mined.record.throughput["resumed_shards"]
    return seconds, round(time.perf_counter() - start, 2), digest(out / KEPT), resumed


def digest(kept: Path) -> str:
    """Of the numbers of the rows that were kept, in their order."""
    import pyarrow.parquet as pq

    return hashlib.sha256(pq.read_table(kept, columns=["id"])["id"].to_numpy().tobytes()).hexdigest()[:16]


PARTS: dict[str, Callable[[dict[str, Any]], Told]] = {
    "cheap": cheap,
    "embedded": embedded,
    "static": partial(embedded, model="static"),
}


def report(options: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Print, write and draw what was measured."""
    record = {
        "benchmark": "rows per second and memory by number of rows",
        "data": f"synthetic, {options.words} words a response in the median, seed {options.seed}",
        "clock": "rows_per_s: scoring (embedded, static: the whole of mine), models and workers started within it; "
        "cpu_s: of all processes, start of Python included",
        "memory": "RssAnon summed over processes, sampled; libraries_mib: after import, before any work",
        "machine": common.machine(),
        "versions": common.versions("torch", "datasets", "pyarrow", "numpy", "faiss-cpu", "pynndescent"),
        "results": results,
    }
    for key in ("benchmark", "data", "clock", "memory", "machine", "versions"):
        print(f"{key}: {record[key]}")
    print()
    common.print_table([{name: v for name, v in result.items() if name != "parts"} for result in results])
    if options.out:
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if options.plot:
        draw(results, options.plot)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Speed and memory over rows, both axes logarithmic."""
    import matplotlib.pyplot as plt

    figure, (speed, memory) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    for kind in sorted({(r["part"], r["engine"], r["workers"]) for r in results}):
        part, engine, workers = kind
        mine = [r for r in results if (r["part"], r["engine"], r["workers"]) == kind]
        rows = [r["rows"] for r in mine]
        label = f"{part}, {engine}, {workers} worker{'s' if workers > 1 else ''}"
        speed.loglog(rows, [r["rows_per_s"] for r in mine], marker="o", label=label)
        memory.loglog(rows, [r["peak_anon_mib"] for r in mine], marker="o", label=label)
    speed.set(xlabel="rows", ylabel="rows per second")
    memory.set(xlabel="rows", ylabel="peak memory without a file behind it, MiB")
    for axes in (speed, memory):
        axes.grid(True, which="both", alpha=0.3)
    figure.legend(*speed.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
