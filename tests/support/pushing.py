"""Pushing a small selection to the Hub of the tests, and looking at what lies there."""

from dataclasses import replace

from huggingface_hub import DatasetCard
from report_sample import make_selection

from im_datasets import push_selected

REPO = "me/best"
GIVEN = {"license": "cc-by-4.0", "language": "en"}
FILES = [
    ".gitattributes",
    "README.md",
    "figures/indicators.png",
    "figures/score_distribution.png",
    "instructmining.json",
    "kept/train-00000-of-00001.parquet",
]


def push(selection, repo=REPO, **options):
    return push_selected(selection, repo, **GIVEN, **options)


def same(left, right):
    """NaN equals NaN here."""
    return repr(left.to_list()) == repr(right.to_list())


def commits(hub, branch="main", repo=REPO):
    return [commit.title for commit in hub.store.repos["dataset", repo].history(branch)]


def card_of(hub, revision="main"):
    return hub.store.read(REPO, "README.md", revision=revision).decode()


def front_matter(card):
    return DatasetCard(card).data.to_dict()


def make_other(selection):
    return replace(make_selection(keep=5), record=selection.record)
