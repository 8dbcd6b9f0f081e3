"""The Space of im_log_loss: type a pair, press the button, read the number."""

from pathlib import Path

import evaluate

from im_datasets.indicators.metric_page import build

EXAMPLE = ("What does a mango taste like?", "A ripe mango tastes sweet, with a hint of pine.")

page = build(evaluate.load(str(Path(__file__).with_name("im_log_loss.py")), keep_in_memory=True), EXAMPLE)

if __name__ == "__main__":
    page.launch()
