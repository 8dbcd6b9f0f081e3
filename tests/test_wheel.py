"""The modules in an installed package: a wheel carries them, and they load with no checkout in reach."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest

from im_datasets.indicators.metric import module_names

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ["im_datasets", "metrics", "hub_cards", "pyproject.toml", "README.md", "LICENSE"]

BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
USE = """
import json
import evaluate, im_datasets
from im_datasets.indicators.metric import module_names, module_path
together = evaluate.combine([im_datasets.metric("mtld"), str(module_path("length"))])
result = together.compute(predictions=["To be, or not to be, said he."], references=["Say it."])
print(json.dumps([im_datasets.__file__, module_names(), result["im_mtld"], result["im_output_length"]]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel's content, as pip would leave it."""
    if find_spec("setuptools") is None:
        pytest.skip("setuptools is missing, which builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder)
    # -W ignore: the warnings of another project's build are not ours.
    command = [sys.executable, "-W", "ignore", "-c", BUILD, str(folder)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    with ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_wheel_carries_every_file_of_the_package(installed):
    package = ROOT / "im_datasets"
    files = {path.relative_to(package) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {str(file) for file in files if not (installed / "im_datasets" / file).is_file()} == set()


@pytest.mark.slow
def test_wheel_carries_every_file_of_every_module(installed):
    packed = {str(path.relative_to(installed / "im_datasets/metrics")) for path in installed.rglob("metrics/*/*")}
    files = ["README.md", "app.py", "requirements.txt"]
    assert packed == {f"{name}/{file}" for name in module_names() for file in [*files, f"{name}.py"]}


@pytest.mark.slow
def test_modules_load_from_the_wheel_without_a_checkout(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", USE]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    file, names, mtld, length = json.loads(done.stdout.splitlines()[-1])
    assert Path(file).parent == installed / "im_datasets"
    assert names == module_names()
    assert (mtld, length) == ([8.48], [11.0])
