"""Run the commands that ``docs/publish-and-verify.md`` shows against a Hub on this machine and print what they say.

python tests/support/hub_server/transcript.py
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pages import Reader

from hub_server import HubServer

REPO, SHARD = "me/best", "kept/train-00000-of-00001.parquet"
MINE = "im-datasets mine examples/data/instructions.jsonl --top-k 50 --out mined --license cc0-1.0 --language en"


def flip_a_byte(hub: HubServer) -> None:
    """What somebody with access could do."""
    content = bytearray(hub.store.read(REPO, SHARD))
    content[100] ^= 1
    hub.store.put(REPO, {SHARD: bytes(content)})


EVENTS: dict[str, Callable[[HubServer], None]] = {"# somebody changes one byte of the kept rows": flip_a_byte}

STEPS = [
    "$ im-datasets push mined me/best --include-dropped",
    "$ im-datasets verify me/best --seed 1",
    "# somebody changes one byte of the kept rows",
    "$ im-datasets verify me/best --seed 1 --sample 0",
    "$ im-datasets push mined me/best --include-dropped",
    "$ im-datasets push mined me/best --include-dropped --overwrite",
    "$ im-datasets push mined me/best --include-dropped",
    "$ im-datasets push mined me/best --include-dropped --include-scores --create-pr",
    "$ im-datasets verify me/best --revision refs/pr/1 --seed 1 --sample 0",
]


def main() -> None:
    """Print the transcript."""
    with HubServer() as hub, TemporaryDirectory() as scratch:
        os.environ |= {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.login(),
            "HF_HOME": f"{scratch}/home",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "TQDM_DISABLE": "1",
        }
        with Reader(Path(scratch), hub, EVENTS) as reader:
            reader.shell(MINE)
            for step in STEPS:
                print(reader.answer(step), end="", flush=True)


if __name__ == "__main__":
    main()
