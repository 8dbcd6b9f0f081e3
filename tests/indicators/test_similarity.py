"""Cosine between instruction and response, on a fake encoder with known vectors and on the embedded one."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from im_datasets.common.errors import ModelError
from im_datasets.indicators.score_columns import COLUMNS
from im_datasets.indicators.similarity import Similarity
from im_datasets.models.embedder import Embedder

# Unit vectors in a plane: 3-4-5 and 5-12-13 triangles.
PLANE = {"x": (1, 0), "y": (0, 1), "minus x": (-1, 0), "345": (0.6, 0.8), "51213": (5 / 13, 12 / 13)}


@dataclass(frozen=True)
class PlaneEmbedder:
    """Stands for an Embedder: every known text has a vector written above."""

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        return np.array([PLANE[text] for text in texts], dtype=np.float32)


def scored(*pairs: tuple[str, str]) -> list[float]:
    batch = {"instruction": [i for i, _ in pairs], "output": [r for _, r in pairs]}
    return Similarity(embedder=PlaneEmbedder())(batch)["im_similarity"]


def test_similarity_of_hand_worked_pairs():
    # cos(x, 345) = 1·0.6 + 0·0.8; cos(345, 51213) = 0.6·5/13 + 0.8·12/13 = (3 + 9.6) / 13 = 12.6/13.
    pairs = [("x", "345"), ("345", "51213"), ("x", "y"), ("x", "minus x"), ("y", "y")]
    assert scored(*pairs) == pytest.approx([0.6, 12.6 / 13, 0, -1, 1], abs=1e-7)


def test_similarity_is_symmetric_and_pairs_rows_with_rows():
    assert scored(("x", "345"), ("y", "345")) == scored(("345", "x"), ("345", "y"))


def test_similarity_is_clipped_to_its_range(monkeypatch):
    monkeypatch.setitem(PLANE, "long", (1.0000001, 0))
    monkeypatch.setitem(PLANE, "minus long", (-1.0000001, 0))
    assert scored(("long", "long"), ("long", "minus long")) == [1.0, -1.0]
    assert (COLUMNS["im_similarity"].low, COLUMNS["im_similarity"].high) == (-1, 1)


def test_similarity_of_an_unscorable_row_is_nan():
    values = scored(("x", "345"), ("x", ""), ("", "y"), ("x", "y"))
    assert np.isnan(values).tolist() == [False, True, True, False]


def test_similarity_of_a_vector_that_is_not_finite_is_nan(monkeypatch):
    monkeypatch.setitem(PLANE, "overflown", (np.nan, np.nan))
    assert np.isnan(scored(("x", "overflown"), ("x", "y"))).tolist() == [True, False]


def test_similarity_embeds_instructions_and_responses():
    assert Similarity().embeds(["a", "b"], ["c", "d"]) == ["a", "b", "c", "d"]


def test_similarity_of_real_texts_is_highest_for_an_echo_and_lower_off_topic():
    instruction = "Name three fruits that grow on trees."
    responses = [instruction, "Apples, pears and cherries grow on trees.", "The train leaves at noon."]
    echo, answer, off_topic = Similarity()({"instruction": [instruction] * 3, "output": responses})["im_similarity"]
    assert echo == pytest.approx(1, abs=1e-6)
    assert 1 > answer > 0.5 > off_topic


def test_similarity_values_do_not_depend_on_the_batch():
    instructions = [f"Count to {n} {'slowly ' * n}please." for n in range(9)]
    responses = [" ".join(map(str, range(n + 1))) for n in range(9)]
    whole = Similarity()({"instruction": instructions, "output": responses})["im_similarity"]
    rows = [Similarity()({"instruction": [i], "output": [r]}) for i, r in zip(instructions, responses, strict=True)]
    assert [row["im_similarity"][0] for row in rows] == whole


def test_similarity_with_a_model_that_is_not_there_is_one_clear_error(tmp_path):
    missing = Similarity(embedder=Embedder(model=str(tmp_path / "none")))
    with pytest.raises(ModelError, match="none is no folder here"):
        missing({"instruction": ["a"], "output": ["b"]})
