"""The Space of im_reward: type a pair, press the button, read the number.

The Space's variable IM_MODEL names another model.
"""

import os
from pathlib import Path

import evaluate

from im_datasets.indicators.metric_page import build

EXAMPLE = ("What does a mango taste like?", "A ripe mango tastes sweet, with a hint of pine.")
MODEL = os.environ.get("IM_MODEL", "OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5")

page = build(evaluate.load(str(Path(__file__).with_name("im_reward.py")), keep_in_memory=True, model=MODEL), EXAMPLE)

if __name__ == "__main__":
    page.launch()
