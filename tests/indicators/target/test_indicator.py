"""Target similarity by hand, against a loop, and what a record tells of it."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slow_rds import slow_vector
from tiny_models import save_causal

from im_datasets.common.errors import IndicatorError
from im_datasets.indicators import TargetSimilarity
from im_datasets.models.embedder import Embedder

ANGLES = {"east": 0, "north": 90, "west": 180, "near east": 30, "south": 270}


@dataclass(frozen=True)
class Compass(Embedder):
    """A text's vector points where its response says."""

    def embed(self, texts):
        degrees = np.array([ANGLES.get(text.split("\n\n")[-1], np.nan) for text in texts], dtype=np.float64)
        return np.column_stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]).astype(np.float32)


def similarities(targets, responses, **settings):
    indicator = TargetSimilarity(targets=[("Where?", target) for target in targets], embedder=Compass(), **settings)
    return indicator({"instruction": ["Where?"] * len(responses), "output": responses})["im_target_similarity"]


def test_value_is_the_cosine_to_the_nearest_target():
    values = similarities(["east", "north"], ["east", "near east", "west", "south"])
    # 30° from east is the nearer one: cos 30° = 0.8660; west is 90° from north and 180° from east.
    assert values == pytest.approx([1, 3**0.5 / 2, 0, 0], abs=1e-6)
    assert similarities(["east"], ["west"]) == pytest.approx([-1])


def test_rows_that_cannot_be_scored_are_nan():
    values = similarities(["east"], ["east", "", None, "nowhere"])
    assert values[0] == 1
    assert np.isnan(values[1:]).all()


def test_a_target_without_a_vector_is_named():
    with pytest.raises(IndicatorError, match="embedded gives no finite vector for target 1; pass another dtype"):
        similarities(["east", "nowhere"], ["east"])


@given(st.lists(st.sampled_from(sorted(ANGLES)), min_size=1, max_size=4), st.lists(st.sampled_from(sorted(ANGLES))))
def test_values_are_those_of_a_loop(targets, responses):
    expected = [max(np.cos(np.radians(ANGLES[r] - ANGLES[t])) for t in targets) for r in responses]
    assert similarities(targets, responses) == pytest.approx(expected, abs=1e-6)


def test_rds_over_rows_is_the_slow_reading_of_the_paper(tmp_path):
    folder = str(save_causal(tmp_path, "llama", positions=128))
    talk = [
        {"role": "user", "content": "Say hello."},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Again."},
        {"role": "assistant", "content": "Hello again."},
    ]
    texts = [
        "User: Say hello.\n\nAssistant: Hi.\n\nUser: Again.\n\nHello again.",
        "Name a fruit.\n\nAn apple.",
        "Name a fruit.\n\nAn apple.",
        "Go on.\n\n" + "and on " * 300,
    ]
    roles = ("user", "assistant")
    asked = [[{"role": r, "content": c} for r, c in zip(roles, t.split("\n\n"), strict=True)] for t in texts[1:]]
    rows = {"messages": [talk, *asked]}
    pairs = [("Name a nut.", "A walnut."), ("Say hello.", "Hi there, and hello.")]
    indicator = TargetSimilarity(targets=pairs, embedder=Embedder(folder, kind="causal"))
    targets = np.array([slow_vector(folder, f"{q}\n\n{a}", 128) for q, a in pairs])
    expected = [max(float(slow_vector(folder, text, 128) @ target) for target in targets) for text in texts]
    assert indicator(rows)["im_target_similarity"] == pytest.approx(expected, abs=1e-5)


def test_settings_hold_a_digest_and_no_text():
    indicator = TargetSimilarity(targets=[("Name a secret fruit.", "A secret apple.")])
    text = json.dumps(indicator.settings())
    assert "secret" not in text
    assert indicator.settings()["targets"] == indicator.targets.describe()
    assert "secret" not in repr(indicator)


def test_other_targets_or_another_encoder_are_another_indicator():
    one = TargetSimilarity(targets=[("a", "b")])
    assert one == TargetSimilarity(targets=[{"instruction": "a", "output": "b"}])
    assert one != TargetSimilarity(targets=[("a", "c")])
    assert one != TargetSimilarity(targets=[("a", "b")], embedder=Embedder(kind="causal"))
