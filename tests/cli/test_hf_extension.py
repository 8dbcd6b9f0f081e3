"""``hf im-datasets …`` works where the console script is installed as an extension of the ``hf`` command."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import im_datasets

ROOT = Path(__file__).parents[2]


def test_the_console_script_of_an_extension_is_declared():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["hf-im-datasets"] == scripts["im-datasets"] == "im_datasets.cli.main:main"


@pytest.mark.slow
def test_hf_runs_the_extension(tmp_path):
    """As ``hf extensions install`` lays it out: a folder with a manifest and the console script."""
    hf = Path(sys.executable).with_name("hf")
    if not hf.is_file():
        pytest.skip("the hf command is not installed beside this Python")
    folder = tmp_path / ".local/share/hf/extensions/hf-im-datasets"
    folder.mkdir(parents=True)
    script = folder / "hf-im-datasets"
    script.write_text(f"#!{sys.executable}\nfrom im_datasets.cli.main import main\nmain()\n")
    script.chmod(0o755)
    manifest = {
        "owner": "someone",
        "repo": "hf-im-datasets",
        "repo_id": "someone/hf-im-datasets",
        "short_name": "im-datasets",
        "executable_path": str(script),
        "type": "binary",
        "installed_at": "2026-01-02T03:04:05+00:00",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    assert shutil.which(str(script))
    done = subprocess.run(
        [hf, "im-datasets", "--version"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"im-datasets {im_datasets.__version__}" in done.stdout
