"""The script for hosted machines: its metadata are what `hf jobs` reads, and it publishes what it scored."""

import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from im_datasets import load_selection

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples/cluster/score_on_jobs.py"
GUIDE = (ROOT / "examples/cluster/README.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.slow


def environment(hub, home):
    return {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.login(),
        "HF_HOME": str(home),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "PYTHONPATH": str(ROOT),
    }


def lines_of_the_guide():
    return re.findall(r"^(hf jobs uv run .*?[^\\])$", GUIDE, flags=re.MULTILINE | re.DOTALL)


def test_metadata_name_the_package_and_no_secret():
    block = re.search(r"^# /// script\n((?:#.*\n)+?)# ///$", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    metadata = tomllib.loads("".join(line[2:] + "\n" for line in block[1].splitlines()))
    assert metadata["dependencies"] == ["im-datasets[large]"]
    assert metadata["requires-python"] == ">=3.11"
    assert metadata["tool"]["hf-jobs"]["secrets"] == ["HF_TOKEN"]


@pytest.mark.parametrize("line", lines_of_the_guide())
def test_documented_line_is_one_that_hf_jobs_takes(line, hub, tmp_path):
    hf = Path(sys.executable).with_name("hf")
    if not hf.is_file():
        pytest.skip("the hf command is not installed beside this Python")
    words = shlex.split(line.replace("\\\n", " "))
    assert words[:4] == ["hf", "jobs", "uv", "run"]
    command = [str(hf), *words[1:4], "--dry-run", *words[4:]]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(hub, tmp_path), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "score_on_jobs.py" in done.stdout
    assert "HF_TOKEN" in done.stdout
    assert hub.login() not in done.stdout


def run(monkeypatch, folder, *words):
    """The script as it is started, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words, "--to", "me/best", "--top-k", "10", "--workers", "1"])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_script_scores_a_hub_dataset_and_publishes_the_best(hub, tmp_path, monkeypatch, capsys):
    data = (ROOT / "examples/data/instructions.jsonl").read_bytes()
    card = b"---\nlicense: cc0-1.0\nlanguage: en\n---\n"
    hub.store.put("me/rows", {"train.jsonl": data, "README.md": card})
    run(monkeypatch, tmp_path, "me/rows", "--limit", "40")
    said = capsys.readouterr()
    assert "10 of 40 rows published" in said.out
    assert '"event": "end"' in said.err
    selection = load_selection("me/best")
    assert len(selection.kept) == 10
    assert selection.record.source["id"] == "me/rows"


def test_script_that_cannot_read_says_so_in_one_line(hub, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"^score_on_jobs: error: no file or folder me/none"):
        run(monkeypatch, tmp_path, "me/none")
