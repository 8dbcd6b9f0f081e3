"""The Space of im_target_similarity: type a pair, press the button, read how near it is to three targets."""

from pathlib import Path

import evaluate

from im_datasets.indicators.metric_page import build

EXAMPLE = ("What does a mango taste like?", "A ripe mango tastes sweet, with a hint of pine.")
TARGETS = [
    ("What does a lemon taste like?", "Sour and fresh."),
    ("How do I boil an egg?", "Put it into boiling water for seven minutes."),
    ("Name a fruit.", "An apple."),
]
MODULE = str(Path(__file__).with_name("im_target_similarity.py"))

page = build(evaluate.load(MODULE, keep_in_memory=True, targets=TARGETS), EXAMPLE)

if __name__ == "__main__":
    page.launch()
