"""The Space of im_knn: type a pair, press the button, read the number."""

from pathlib import Path

import evaluate

from im_datasets.indicators.metric_page import build

EXAMPLE = ("What does a mango taste like?", "A ripe mango tastes sweet, with a hint of pine.")
OTHERS = [
    ("What does a lemon taste like?", "Sour and fresh."),
    ("Name a fruit.", "An apple."),
    ("Count to three.", "One, two, three."),
    ("Which colour is the sky?", "Blue on a clear day, grey when it rains."),
    ("When does the train leave?", "At noon, from the second platform."),
    ("Write a line of a song.", "The river knows the way to the sea."),
    ("How do I boil an egg?", "Put it into boiling water for seven minutes."),
]

page = build(evaluate.load(str(Path(__file__).with_name("im_knn.py")), keep_in_memory=True), EXAMPLE, company=OTHERS)

if __name__ == "__main__":
    page.launch()
