# /// script
# requires-python = ">=3.11"
# dependencies = ["im-datasets[large]"]
#
# [tool.hf-jobs]
# flavor = "cpu-upgrade"
# timeout = "6h"
# secrets = ["HF_TOKEN"]
# ///
"""Score a Hub dataset on a hosted machine, keep its best rows, and publish them with card and record.

hf jobs uv run examples/cluster/score_on_jobs.py OWNER/DATASET --to OWNER/BEST --top-k 2000 --license ID --language CODE
"""

import argparse
import os
import sys
from pathlib import Path

from im_datasets import ImDatasetsError, mine, push_selected


def main() -> None:
    """Score, select, publish."""
    options = _options()
    folder = options.folder / "mined"
    mined = mine(
        options.dataset,
        folder,
        rule=options.rule,
        config=options.config,
        split=options.split,
        revision=options.revision,
        limit=options.limit,
        top_k=options.top_k,
        fraction=options.fraction,
        license=options.license,
        language=options.language,
        workers=options.workers,
        log="-",
        progress=False,
    )
    pushed = push_selected(
        mined.selection,
        options.to,
        license=options.license,
        language=options.language,
        private=options.private or None,
        include_scores=options.include_scores,
        card=(folder / "README.md").read_text(encoding="utf-8"),
    )
    print(f"{len(mined.selection.kept):,} of {mined.record.rows:,} rows published: {pushed.url}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", help="id of a Hub dataset")
    parser.add_argument("--to", required=True, metavar="REPO", help="dataset repository to publish in")
    parser.add_argument("--rule", default="embedded", help="a shipped rule (%(default)s)")
    parser.add_argument("--config", help="config of the dataset")
    parser.add_argument("--split", help="split of the dataset")
    parser.add_argument("--revision", help="branch, tag or commit of the dataset")
    parser.add_argument("--limit", type=int, metavar="N", help="read the first N rows only")
    kept = parser.add_mutually_exclusive_group(required=True)
    kept.add_argument("--top-k", type=int, metavar="N", help="keep N rows")
    kept.add_argument("--fraction", type=float, help="keep this share of the scorable rows")
    parser.add_argument("--license", metavar="ID", help="licence of the rows; else that of the source's card")
    parser.add_argument("--language", action="append", metavar="CODE", help="language of the rows; repeatable")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--include-scores", action="store_true", help="publish the scores of all rows too")
    parser.add_argument("--workers", type=int, default=_workers(), metavar="N", help="processes (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to work")
    return parser.parse_args()


def _workers() -> int:
    """One process per GPU, else one per core."""
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


if __name__ == "__main__":
    try:
        main()
    except ImDatasetsError as error:
        sys.exit(f"score_on_jobs: error: {error}")
