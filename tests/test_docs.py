"""The README does what it says: its two commands are the scripts CI runs, its Python runs, its map is true."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from im_datasets.indicators import KNNDistance
from im_datasets.indicators.score_columns import COLUMNS
from im_datasets.rules.linear import LinearRule
from im_datasets.scoring.score import descriptive_indicators

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_first_screen_holds_the_two_commands():
    screen = "\n".join(README.splitlines()[:40])
    assert "bash examples/quickstart.sh" in screen
    assert "bash tests/run.sh" in screen
    assert "bash tests/run.sh" in (ROOT / ".ci/run").read_text()


def test_constraints_pin_torch_and_every_direct_dependency():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / ".ci/constraints.txt").read_text(), flags=re.MULTILINE))
    pins = {name.lower().replace("_", "-"): pin for name, pin in pins.items()}
    wanted = re.findall(r'^    "([\w-]+)[>=<]', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert pins["torch"] == "2.13.0"
    assert len(wanted) > 10
    assert [name for name in wanted if name not in pins] == []


@pytest.mark.parametrize("code", blocks("python"))
def test_python_snippet_runs(code, tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_quickstart_command_is_the_readmes(tmp_path):
    lines = "\n".join(blocks("bash")).splitlines()
    line = next(line for line in lines if line.startswith("im-datasets mine"))
    assert line in (ROOT / "examples/quickstart.sh").read_text().replace('im-datasets" mine', "im-datasets mine")


def test_file_map_is_true():
    listed = set(re.findall(r"^  ([\w]+)(?:/|\.py) ", blocks("text")[0], flags=re.MULTILINE))
    small = {"__init__", "__main__", "py", "common"}
    assert (
        listed == {path.stem for path in (ROOT / "im_datasets").iterdir() if not path.name.startswith("__py")} - small
    )


def test_every_rule_and_computed_column_is_described():
    assert [name for name in LinearRule.names() if f"`{name}`" not in README] == []
    assert [name for name in COLUMNS if f"`{name}`" not in README] == []


def test_readme_says_which_texts_the_neighbour_distance_compares():
    line = next(line for line in README.splitlines() if line.startswith("| `im_knn_6`"))
    describing = next(indicator for indicator in descriptive_indicators() if isinstance(indicator, KNNDistance))
    assert f'text="{KNNDistance().text}"' in line
    assert f'`mine` describes rows with `text="{describing.text}"`' in line
