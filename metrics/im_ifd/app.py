"""The Space of im_ifd: type a pair, press the button, read the number.

The Space's variable IM_MODEL names another model.
"""

import os
from pathlib import Path

import evaluate

from im_datasets.indicators.metric_page import build

EXAMPLE = ("What does a mango taste like?", "A ripe mango tastes sweet, with a hint of pine.")
MODEL = os.environ.get("IM_MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")

page = build(evaluate.load(str(Path(__file__).with_name("im_ifd.py")), keep_in_memory=True, model=MODEL), EXAMPLE)

if __name__ == "__main__":
    page.launch()
