"""One scoring run by local workers and by as many Ray actors, with the values compared.

``python tests/benchmarks/bench_engines.py --data FILE --rows 20000 --shard-rows 2000``. Each side scores the
same rows from nothing, starts its workers and loads their models; that a Ray cluster starts is timed by itself, once.
"""

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from io import StringIO

from common import arguments, compare, read_rows, report
from datasets import Dataset

from im_datasets import score
from im_datasets.indicators import MTLD, Indicator, Length
from im_datasets.rules.linear import LinearRule, Term
from im_datasets.scoring import score as scoring
from im_datasets.scoring.engines.base import ShardEngine
from im_datasets.scoring.engines.local import LocalEngine
from im_datasets.scoring.engines.ray import RayEngine
from im_datasets.scoring.engines.ray_cluster import on_loopback
from im_datasets.scoring.score import Scored

CHEAP = LinearRule("cheap", "by words", 0.0, (Term("im_mtld", -0.01),))
PACKAGES = ("ray", "datasets", "torch", "transformers")


def main() -> None:
    """Time the engines and compare what they give."""
    parser = arguments(__doc__.partition("\n")[0], rounds=1)
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="workers and actors (%(default)s)")
    parser.add_argument("--shard-rows", type=int, metavar="N", help="rows of a shard, instead of the usual number")
    parser.add_argument(
        "--rule", choices=["cheap", "embedded"], default="cheap", help="lengths and MTLD, or all (%(default)s)"
    )
    options = parser.parse_args()
    scoring.SHARD_ROWS = options.shard_rows or scoring.SHARD_ROWS
    dataset = Dataset.from_list(read_rows(options.data, options.rows))
    indicators: list[Indicator] = [Length(), MTLD()] if options.rule == "cheap" else []
    rule = CHEAP if options.rule == "cheap" else "embedded"
    work = partial(score, dataset, rule, indicators=indicators, describe=options.rule == "embedded", progress=False)
    began = time.perf_counter()
    import ray

    with on_loopback():
        ray.init(
            "local",
            num_cpus=options.workers,
            include_dashboard=False,
            logging_level=logging.WARNING,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
    started = time.perf_counter() - began
    engines: dict[str, ShardEngine] = {
        f"local, {options.workers} workers": LocalEngine(options.workers),
        f"Ray, {options.workers} actors": RayEngine(options.workers),
    }
    found: dict[str, tuple[Scored, StringIO]] = {}
    results = compare(
        {name: kept(found, name, partial(work, engine=engine)) for name, engine in engines.items()},
        items=len(dataset),
        rounds=options.rounds,
        clock="wall",
    )
    ray.shutdown()
    tables = [scored.dataset.to_pandas() for scored, _ in found.values()]
    report(
        "engines",
        results,
        data=f"{options.data.name}, {len(dataset)} rows in shards of {scoring.SHARD_ROWS}, rule {options.rule}",
        covers="from a dataset to its scores: workers started, models loaded, shards written; no Ray cluster started",
        clock="wall",
        packages=PACKAGES,
        out=options.out,
        facts={
            "values are equal": all(table.equals(tables[0]) for table in tables),
            "seconds to start the cluster, Ray's import included": round(started, 1),
            **{f"{name}: {what}": value for name, (_, log) in found.items() for what, value in pace(log).items()},
        },
    )


def kept(found: dict[str, tuple[Scored, StringIO]], name: str, call: Callable[..., Scored]) -> Callable[[], None]:
    """The call, its result and log kept under a name."""

    def run() -> None:
        log = StringIO()
        found[name] = call(log=log), log

    return run


def pace(log: StringIO) -> dict[str, float]:
    """How long a run took to its first shard, and how fast it was from there to its last one, if that is another."""
    told = [event for line in log.getvalue().splitlines() if (event := json.loads(line))["event"] == "shard"]
    rows, seconds = (told[-1][what] - told[0][what] for what in ("rows_done", "seconds"))
    after = {"rows per second after it": round(rows / seconds, 1)} if seconds else {}
    return {"seconds to the first shard": told[0]["seconds"], **after}


if __name__ == "__main__":
    main()
