"""Run the commands of the README's section "Publish and check" against a Hub on this machine and print what they say.

python tests/support/hub_server/transcript.py
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hub_server import HubServer

ROOT = Path(__file__).resolve().parents[3]
REPO, SHARD = "me/best", "kept/train-00000-of-00001.parquet"
RUN = "from im_datasets.cli.main import main; import sys; sys.argv[0] = 'im-datasets'; main()"


def flip_a_byte(hub: HubServer) -> None:
    """What somebody with access could do."""
    content = bytearray(hub.store.read(REPO, SHARD))
    content[100] ^= 1
    hub.store.put(REPO, {SHARD: bytes(content)})


STEPS: list[str | tuple[str, Callable[[HubServer], None]]] = [
    "im-datasets push mined me/best --include-dropped",
    "im-datasets verify me/best --seed 1",
    ("# somebody changes one byte of the kept rows", flip_a_byte),
    "im-datasets verify me/best --seed 1 --sample 0",
    "im-datasets push mined me/best --include-dropped",
    "im-datasets push mined me/best --include-dropped --overwrite",
    "im-datasets push mined me/best --include-dropped",
    "im-datasets push mined me/best --include-dropped --include-scores --create-pr",
    "im-datasets verify me/best --revision refs/pr/1 --seed 1 --sample 0",
]


def run(command: str, folder: Path) -> str:
    """What a command prints, both streams, with the exit status where it is not 0."""
    words = [sys.executable, "-c", RUN, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    status = f"(exit status {done.returncode})\n" if done.returncode else ""
    return done.stdout + done.stderr + status


def main() -> None:
    """Print the transcript."""
    with HubServer() as hub, TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ |= {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.login(),
            "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
        }
        data = ROOT / "examples" / "data" / "instructions.jsonl"
        run(f"im-datasets mine {data} --top-k 50 --out mined --license cc0-1.0 --language en --json", folder)
        for step in STEPS:
            if isinstance(step, tuple):
                text, act = step
                act(hub)
                print(text)
                continue
            print(f"$ {step}\n{run(step, folder).replace(hub.endpoint, '$HF_ENDPOINT')}", end="")


if __name__ == "__main__":
    main()
