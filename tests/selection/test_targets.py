"""Selection by targets: the order and its columns, the targets themselves left out, beside every other option."""

from dataclasses import dataclass

import numpy as np
import pytest
from datasets import Dataset
from tiny_models import save_causal

from im_datasets.common.errors import IndicatorError, SelectionError
from im_datasets.data.columns import Columns
from im_datasets.indicators import TargetSimilarity
from im_datasets.models.embedder import Embedder
from im_datasets.selection.request import SelectionRequest
from im_datasets.selection.select import select
from im_datasets.selection.targets import target_similarity

COLUMNS = Columns(instruction="q", response="a")
TARGETS = [("Where to?", "0"), ("Where from?", "90")]


@dataclass(frozen=True)
class Compass(Embedder):
    """A response is an angle in degrees: cosines are those of the angles between."""

    def embed(self, texts):
        angles = np.radians([float(text.split("\n\n")[-1]) for text in texts])
        return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)

    def describe(self):
        return {"id": "compass", "revision": None, "dtype": "float32", "device": "cpu"}


def rows(angles, instructions=None, losses=None, **columns):
    return Dataset.from_dict(
        {
            "q": instructions or [f"Which way, number {n}?" for n in range(len(angles))],
            "a": [str(angle) for angle in angles],
            "im_log_loss": losses or [0.0] * len(angles),
            **columns,
        }
    )


def by_targets(ds, targets=TARGETS, **settings):
    return select(ds, targets=targets, columns=COLUMNS, embedder=Compass(), **settings)


def test_each_target_takes_its_nearest_row_in_turn():
    # To 0°: 5, 10, 40, 80, 88; to 90°: 88, 80, 40, 10, 5.
    selection = by_targets(rows([40, 88, 10, 80, 5]), top_k=3)
    assert selection.kept["a"][:] == ["5", "88", "10"]
    assert selection.kept["im_rank"][:] == [1, 2, 3]
    assert selection.kept["im_target"][:] == [0, 1, 0]
    # The others by their nearest target: 80 is 10° from one, 40 is 40°.
    assert selection.dropped["a"][:] == ["80", "40"]
    assert (selection.dropped["im_rank"][:], selection.dropped["im_target"][:]) == ([4, 5], [-1, -1])
    assert selection.reasons == {"below the cut": 2}
    assert selection.cut is None


def test_scores_do_not_decide_but_say_what_is_scorable():
    angles, losses = [40, 88, 10, 80, 5], [1.0, 2.0, 3.0, 4.0, float("nan")]
    selection = by_targets(rows(angles, losses=losses), top_k=2)
    assert selection.kept["a"][:] == ["10", "88"]
    assert selection.dropped["im_rank"][:] == [3, 4, 0]


def test_ties_are_broken_by_row_and_fraction_counts():
    selection = by_targets(rows([45] * 6), fraction=0.5)
    assert selection.kept["im_row"][:] == [0, 1, 2]
    assert selection.dropped["im_row"][:] == [3, 4, 5]


def test_targets_and_their_near_copies_are_left_out_and_have_had_their_turn():
    copies = ["Where to?", "WHERE from", "Which way?", "Where to go?"]
    selection = by_targets(rows([0, 90, 3, 87], copies), top_k=2)
    assert selection.kept["q"][:] == ["Which way?", "Where to go?"]
    assert selection.reasons == {"repeats a target": 2}
    # They came up in the first round, the others in the second.
    assert (selection.kept["im_rank"][:], selection.kept["im_target"][:]) == ([3, 4], [0, 1])
    assert selection.dropped["im_target"][:] == [0, 1]


def test_targets_without_a_word_repeat_nothing():
    assert by_targets(rows([0, 90], ["?", "!"]), [("?", "0")], top_k=2).reasons == {}


def test_other_checks_hold_in_that_order():
    ds = rows([0, 1, 2, 3, 90], topic=["x", "x", "x", "y", "y"])
    selection = by_targets(ds, top_k=3, per_group=("topic", 1))
    assert selection.kept["a"][:] == ["0", "90"]
    assert selection.settings["shortfall"] == 1
    assert selection.reasons == {"over the quota": 3}
    alike = by_targets(ds, top_k=2, near_duplicates=0.99)
    assert alike.kept["a"][:] == ["0", "90"]
    contaminated = by_targets(ds, top_k=1, exclude_contaminated=["Which way, number 0?"])
    assert contaminated.kept["a"][:] == ["90"]
    assert contaminated.reasons == {"contaminated": 1, "below the cut": 3}


def test_rows_without_a_text_come_last():
    ds = rows([50, 10, 20], ["one", "", "two"])
    selection = by_targets(ds, top_k=3)
    assert selection.kept["im_row"][:] == [2, 0]
    assert selection.dropped["im_reason"][:] == ["could not be checked: missing or empty instruction"]
    assert selection.dropped["im_target"][:] == [-1]


def test_settings_tell_the_targets_by_their_digest():
    settings = by_targets(rows([1, 2]), top_k=1).settings
    similarity = TargetSimilarity(targets=TARGETS, embedder=Compass())
    assert settings["targets"] == {
        **similarity.targets.describe(), "kind": "sentence",
        "model": {"id": "compass", "revision": None, "dtype": "float32", "device": "cpu"},
    }  # fmt: skip
    assert select(rows([1, 2]), top_k=1).settings["targets"] is None


def test_an_earlier_selection_leaves_no_columns():
    first = by_targets(rows([1, 2, 3]), top_k=2)
    second = select(first.kept, top_k=1)
    assert "im_target" not in second.kept.column_names


def test_an_indicator_of_ones_own_is_taken_as_it_is(tmp_path):
    folder = str(save_causal(tmp_path, "gpt2"))
    ds = rows([3, 80, 12], ["a day", "some night", "a long day"])
    own = TargetSimilarity(targets=[("day", "4"), ("night", "70")], embedder=Embedder(folder, kind="causal"))
    selection = select(ds, top_k=2, targets=own, columns=COLUMNS)
    named = select(ds, top_k=2, targets=[("day", "4"), ("night", "70")], target_model=folder, columns=COLUMNS)
    assert selection.kept.to_dict() == named.kept.to_dict()
    assert selection.settings["targets"]["kind"] == "causal"
    cosines = own.cosines(ds["q"][:], ds["a"][:])
    assert selection.kept["im_row"][0] == int(cosines[:, 0].argmax())


def test_what_cannot_be_asked_is_refused_in_one_line():
    with pytest.raises(SelectionError, match="targets choose rows by nearness, a threshold by score; give top_k or"):
        SelectionRequest(threshold=0.1, targets=TARGETS)
    with pytest.raises(SelectionError, match="target_model='gpt2' without targets; pass targets, or leave it out"):
        SelectionRequest(top_k=1, target_model="gpt2")
    own = TargetSimilarity(targets=TARGETS, embedder=Compass())
    with pytest.raises(SelectionError, match="a TargetSimilarity with its own model; leave target_model out"):
        target_similarity(SelectionRequest(top_k=1, targets=own, target_model="gpt2"), Embedder())
    with pytest.raises(SelectionError, match="targets need an Embedder, not a str; pass one, or target_model"):
        target_similarity(SelectionRequest(top_k=1, targets=TARGETS), "embedded")
    with pytest.raises(IndicatorError, match="targets are an empty list; pass a file"):
        select(rows([1]), top_k=1, targets=[], columns=COLUMNS)
