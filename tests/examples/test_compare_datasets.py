"""The comparison of two datasets prints what the docs show, and what the indicators give without evaluate."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from datasets import load_dataset
from module_samples import ROOT

from im_datasets.indicators import Length, Quality
from im_datasets.indicators.metric import module_names


@pytest.fixture(scope="module")
def printed():
    command = [sys.executable, str(ROOT / "examples/compare_datasets.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_docs_show_what_the_example_prints(printed):
    block = re.search(r"```text\n(mean of .*?)```", (ROOT / "docs/evaluate-modules.md").read_text(), flags=re.DOTALL)
    assert block[1] == printed


@pytest.mark.slow
def test_example_prints_the_means_of_the_indicator_itself(printed):
    """The rows as they stand: inputs and earlier turns count, as they do for ``mine``."""
    for column, indicator in (("im_quality", Quality()), ("im_input_length", Length())):
        line = rf"^{column}\s+(\S+) \(\s*(\d+)\)\s+(\S+) \(\s*(\d+)\)$"
        shown = re.search(line, printed, flags=re.MULTILINE).groups()
        for file, mean, unscored in (("instructions", *shown[:2]), ("chat", *shown[2:])):
            rows = load_dataset("json", data_files=f"{ROOT}/examples/data/{file}.jsonl", split="train[:40]")
            values = indicator(rows[:])[column]
            assert int(np.isnan(values).sum()) == int(unscored)
            assert np.nanmean(values) == pytest.approx(float(mean), abs=0.006)


def test_docs_name_every_module():
    page = (ROOT / "docs/evaluate-modules.md").read_text()
    assert [name for name in module_names() if f"`{name}`" not in page] == []
