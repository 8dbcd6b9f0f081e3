import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Json, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from im_datasets.common.errors import ColumnsError, SelectionError
from im_datasets.data.columns import Columns
from im_datasets.selection import walk
from im_datasets.selection.request import SelectionRequest
from im_datasets.selection.select import Selection, select

NAN = math.nan
COLUMNS = Columns(instruction="q", response="a")


class LetterEmbedder:
    """Texts as unit vectors of their letter counts: texts with the same letters have cosine 1."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Any) -> Any:
        self.texts += texts
        counts = np.array([[t.count(letter) + 1e-3 for letter in "abcdefgh"] for t in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    def describe(self) -> dict[str, Any]:
        return {"id": "letters"}


def scored(log_loss: list[float], **columns: list[Any]) -> Dataset:
    return Dataset.from_dict({"im_log_loss": log_loss, **columns})


def texts(instructions: list[str], **columns: list[Any]) -> Dataset:
    """Rows in rank order: row 0 is the best."""
    n = len(instructions)
    return scored([float(i) for i in range(n)], q=instructions, a=["a"] * n, **columns)


def rows(side: Dataset) -> list[int]:
    return side["im_row"][:]


def why(selection: Selection) -> dict[int, str]:
    return dict(zip(selection.dropped["im_row"], selection.dropped["im_reason"], strict=True))


# sizes


def test_select_top_k_keeps_the_lowest_log_losses_best_first() -> None:
    selection = select(scored([0.5, 0.1, 0.4, 0.2]), top_k=2)
    assert selection.kept.to_dict() == {"im_log_loss": [0.1, 0.2], "im_row": [1, 3], "im_rank": [1, 2]}
    assert selection.dropped.to_dict() == {
        "im_log_loss": [0.4, 0.5],
        "im_row": [2, 0],
        "im_rank": [3, 4],
        "im_reason": ["below the cut"] * 2,
        "im_duplicate_of": [-1, -1],
    }
    assert (selection.cut, selection.reasons) == (0.2, {"below the cut": 2})


def test_select_breaks_ties_by_row() -> None:
    selection = select(scored([0.2, 0.1, 0.2, 0.1, 0.2]), top_k=3)
    assert rows(selection.kept) == [1, 3, 0]
    assert rows(selection.dropped) == [2, 4]


@pytest.mark.parametrize(
    ("fraction", "count", "kept"),
    # 0.29 of 100: 28.999999999999996 in floats, 29 in decimals. 0.001 of 5 rows: rounded up to one row.
    [(0.5, 5, 2), (1.0, 5, 5), (0.001, 5, 1), (0.29, 100, 29), (0.07, 100, 7), (1 / 3, 9, 2)],
)
def test_select_fraction_rounds_down_to_at_least_one(fraction: float, count: int, kept: int) -> None:
    assert len(select(scored([float(i) for i in range(count)]), fraction=fraction).kept) == kept


def test_select_fraction_counts_scorable_rows_only() -> None:
    # 0.5 of 4 scorable rows = 2; of all 6 rows it would be 3.
    assert rows(select(scored([0.1, NAN, 0.2, 0.3, NAN, 0.4]), fraction=0.5).kept) == [0, 2]


def test_select_threshold_keeps_what_is_at_or_below() -> None:
    selection = select(scored([0.3, 0.1, 0.2, NAN]), threshold=0.2)
    assert rows(selection.kept) == [1, 2]
    assert selection.settings["shortfall"] == 0


def test_select_threshold_may_keep_nothing() -> None:
    selection = select(scored([0.3, 0.1], q=["x", "y"]), threshold=0.05)
    assert (len(selection.kept), selection.cut, selection.reasons) == (0, None, {"below the cut": 2})
    assert selection.kept.column_names == ["im_log_loss", "q", "im_row", "im_rank"]


def test_select_accepts_whole_numbers_and_float32() -> None:
    ds = Dataset.from_dict({"im_log_loss": [3, 1, 2]})
    assert rows(select(ds, top_k=np.int64(1)).kept) == [1]  # type: ignore[arg-type]
    ds = ds.cast(Features({"im_log_loss": Value("float32")}))
    assert rows(select(ds, threshold=np.float32(2)).kept) == [1, 2]  # type: ignore[arg-type]


# unscorable rows


def test_select_drops_unscorable_rows_last_with_their_reasons() -> None:
    ds = scored(
        [NAN, 0.2, 0.1, NAN, 0.0, math.inf, -math.inf, None],  # type: ignore[list-item]
        im_unscorable=["", "", "", "empty response", "no instruction", "", "", None],
    )
    selection = select(ds, top_k=1)
    assert rows(selection.kept) == [2]
    assert selection.dropped["im_rank"][:] == [2, 0, 0, 0, 0, 0, 0]
    assert why(selection) == {
        1: "below the cut",
        0: "unscorable: an indicator gave no value",
        3: "unscorable: empty response",
        4: "unscorable: no instruction",
        5: "unscorable: the log loss is infinite",
        6: "unscorable: the log loss is infinite",
        7: "unscorable: an indicator gave no value",
    }
    assert rows(selection.dropped) == [1, 0, 3, 4, 5, 6, 7]
    assert list(selection.reasons.items()) == [
        ("unscorable: an indicator gave no value", 2),
        ("unscorable: the log loss is infinite", 2),
        ("below the cut", 1),
        ("unscorable: empty response", 1),
        ("unscorable: no instruction", 1),
    ]


# quotas


def test_select_per_group_keeps_the_best_of_each_value() -> None:
    ds = scored([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], kind=["a", "a", "b", "a", None, None])
    selection = select(ds, top_k=3, per_group=("kind", 1))
    assert rows(selection.kept) == [0, 2, 4]
    assert why(selection) == {1: "over the quota", 3: "over the quota", 5: "below the cut"}


@pytest.mark.parametrize(
    ("values", "feature", "kept"),
    [
        ([1.5, NAN, None, NAN, 1.5], Value("float64"), [0, 1]),
        ([True, False, True, None, None], Value("bool"), [0, 1, 3]),
        ([0, 1, 1, 0, -1], ClassLabel(names=["x", "y"]), [0, 1, 4]),
        ([None] * 5, Value("null"), [0]),
        (["", None, "", "é", "é"], Value("string"), [0, 1, 3]),
    ],
)
def test_select_per_group_takes_plain_values(values: list[Any], feature: Any, kept: list[int]) -> None:
    features = Features({"im_log_loss": Value("float64"), "kind": feature})
    ds = Dataset.from_dict({"im_log_loss": [0.0, 1, 2, 3, 4], "kind": values}, features=features)
    assert rows(select(ds, threshold=9, per_group=("kind", 1)).kept) == kept


def test_select_records_the_shortfall() -> None:
    selection = select(scored([0.1, 0.2, 0.3], kind=["a", "a", "a"]), top_k=3, per_group=("kind", 2))
    assert (len(selection.kept), selection.settings["shortfall"]) == (2, 1)
    assert selection.cut == 0.2


# near-duplicates


def test_select_prunes_near_duplicates_and_names_the_kept_row() -> None:
    ds = texts(["aab", "aba", "ccc", "baa", "cc", "ddd"])
    selection = select(ds, top_k=3, near_duplicates=0.99, columns=COLUMNS, embedder=LetterEmbedder())
    # Embedded with the response: aab, aba and baa become 3 a + 1 b. ccc and cc become 1 a + 3 c and 1 a + 2 c:
    # cosine (1 + 6) / (√10 · √5) = 0.98995, just below the threshold.
    assert rows(selection.kept) == [0, 2, 4]
    assert why(selection) == {1: "near-duplicate", 3: "near-duplicate", 5: "below the cut"}
    partners = dict(zip(selection.dropped["im_row"], selection.dropped["im_duplicate_of"], strict=True))
    assert partners == {1: 0, 3: 0, 5: -1}


def test_select_embeds_instruction_and_response() -> None:
    embedder = LetterEmbedder()
    select(texts(["ab", "cd"]), top_k=2, near_duplicates=0.9, columns=COLUMNS, embedder=embedder)
    assert embedder.texts == ["ab\n\na", "cd\n\na"]


def test_select_embeds_no_more_than_the_walk_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = LetterEmbedder()
    ds = texts(["ab", "ba", "cd", "ef"] * 100, kind=["x", "x", "y", "z"] * 100)
    wish: dict[str, Any] = {"near_duplicates": 0.9, "columns": COLUMNS, "embedder": embedder}
    assert rows(select(ds, top_k=3, **wish).kept) == [0, 2, 3]
    assert len(embedder.texts) == 64
    # All three groups are full after the first block: of the rows after it, none is embedded.
    embedder.texts.clear()
    monkeypatch.setattr(walk, "BLOCK", 16)
    assert rows(select(ds, threshold=1e9, per_group=("kind", 1), **wish).kept) == [0, 2, 3]
    assert len(embedder.texts) == 16


def test_select_uses_the_default_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("im_datasets.models.embedder.Embedder", LetterEmbedder)
    selection = select(texts(["ab", "ba"]), fraction=1.0, near_duplicates=1.0, columns=COLUMNS)
    assert why(selection) == {1: "near-duplicate"}
    assert selection.settings["embedder"] == {"id": "letters"}


# contamination

EVALUATION = ["Name three rivers that flow through the old city of Vienna.", "Write a poem."]


def test_select_drops_a_planted_evaluation_row() -> None:
    ds = texts(
        [
            "NAME three rivers -- that flow through the old city of Vienna!",
            "Name three rivers in Asia.",
            "write a poem",
            "Write a poem about rivers.",
        ]
    )
    selection = select(ds, top_k=1, exclude_contaminated=iter(EVALUATION), columns=COLUMNS)
    assert rows(selection.kept) == [1]
    assert why(selection) == {0: "contaminated", 2: "below the cut", 3: "below the cut"}
    selection = select(ds, threshold=9, exclude_contaminated=EVALUATION, columns=COLUMNS)
    assert why(selection) == {0: "contaminated", 2: "contaminated"}


def test_select_reads_texts_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    ds = texts([f"Write poem number {i}." for i in range(50)] + ["Write a poem!"])
    whole = select(ds, threshold=99, exclude_contaminated=EVALUATION, columns=COLUMNS)
    monkeypatch.setattr(walk, "BLOCK", 7)
    blocked = select(ds, threshold=99, exclude_contaminated=EVALUATION, columns=COLUMNS)
    assert why(whole) == why(blocked) == {50: "contaminated"}


def test_select_finds_the_columns_by_name() -> None:
    ds = texts(["Write a poem.", "b"]).rename_columns({"q": "instruction", "a": "output"})
    assert why(select(ds, fraction=1.0, exclude_contaminated=EVALUATION)) == {0: "contaminated"}


def test_select_drops_what_it_cannot_check() -> None:
    ds = texts(["a", "   ", "b", ""])
    selection = select(ds, threshold=9, exclude_contaminated=EVALUATION, columns=COLUMNS)
    assert rows(selection.kept) == [0, 2]
    assert selection.reasons == {"could not be checked: missing or empty instruction": 2}
    assert len(select(ds, threshold=9).kept) == 4


def test_select_gives_the_first_reason_that_holds() -> None:
    # Row 1 is contaminated, over the quota and a near-duplicate at once; row 2 contaminated and a duplicate.
    ds = texts(["bad", "Write a poem.", "write a poem", "dab"], kind=["x", "x", "y", "y"])
    selection = select(
        ds,
        top_k=4,
        per_group=("kind", 1),
        near_duplicates=0.1,
        exclude_contaminated=EVALUATION,
        columns=COLUMNS,
        embedder=LetterEmbedder(),
    )
    assert why(selection) == {1: "over the quota", 2: "contaminated", 3: "near-duplicate"}
    assert selection.settings["shortfall"] == 3


# what comes out


def test_select_records_what_was_asked_as_plain_data() -> None:
    selection = select(
        texts(["ab", "cd"]),
        top_k=1,
        per_group=("q", 5),
        near_duplicates=0.9,
        exclude_contaminated=EVALUATION,
        seed=7,
        columns=COLUMNS,
        embedder=LetterEmbedder(),
    )
    assert json.loads(json.dumps(selection.settings)) == selection.settings
    assert selection.settings == {
        "top_k": 1,
        "fraction": None,
        "threshold": None,
        "per_group": {"column": "q", "quota": 5},
        "near_duplicates": 0.9,
        "embedder": {"id": "letters"},
        "exclude_contaminated": 2,
        "evaluation_sha256": hashlib.sha256(json.dumps(EVALUATION).encode()).hexdigest(),
        "targets": None,
        "seed": 7,
        "shortfall": 0,
    }


@pytest.mark.parametrize("order", [range(3), [2, 0, 1]])
def test_select_leaves_source_columns_and_features_alone(order: Any) -> None:
    features = Features(
        {
            "messages": List({"role": Value("string"), "content": Value("string")}),
            "label": ClassLabel(names=["x", "y"]),
            "tools": List(Json()),
            "nothing": Value("null"),
            "im_log_loss": Value("float32"),
        }
    )
    turns = [[{"role": "user", "content": f"say {i}"}] for i in range(3)]
    values = {"messages": turns, "label": [0, 1, 0], "tools": [[{"a": 1}, "b"]] * 3, "nothing": [None] * 3}
    ds = Dataset.from_dict({**values, "im_log_loss": [2.0, 0, 1]}, features=features).select(order)
    before = ds.to_dict()
    selection = select(ds, top_k=2)
    assert ds.to_dict() == before
    assert ds.features == features
    assert selection.kept.features == {**features, "im_row": Value("int64"), "im_rank": Value("int64")}
    assert selection.kept["messages"][:] == [turns[1], turns[2]]
    assert selection.kept["tools"][:] == [[{"a": 1}, "b"]] * 2
    assert selection.dropped.features == {
        **selection.kept.features,
        "im_reason": Value("string"),
        "im_duplicate_of": Value("int64"),
    }


@pytest.mark.parametrize("change", ["shuffled", "filtered", "repeated", "formatted"])
def test_select_works_with_an_indices_mapping_and_a_format(change: str) -> None:
    ds = texts([f"q{i}" for i in range(40)])
    ds = {
        "shuffled": lambda: ds.shuffle(seed=3),
        "filtered": lambda: ds.filter(lambda row: row["im_log_loss"] % 3 == 1),
        "repeated": lambda: ds.select([5, 5, 1, 9, 1]),
        "formatted": lambda: ds.with_format("numpy", columns=["im_log_loss"]),
    }[change]()
    plain = ds.with_format(None)
    selection = select(ds, fraction=0.5)
    order = sorted(range(len(plain)), key=lambda row: (plain[row]["im_log_loss"], row))
    assert rows(selection.kept) == order[: len(ds) // 2]
    assert rows(selection.dropped) == order[len(ds) // 2 :]
    for side in (selection.kept, selection.dropped):
        assert [plain[row]["q"] for row in rows(side)] == side["q"][:]


def test_select_works_on_a_file(tmp_path: Path) -> None:
    ds = texts([f"q{i}" for i in range(20)]).shuffle(seed=1)
    ds.to_parquet(tmp_path / "scored.parquet")
    on_disk = Dataset.from_parquet(str(tmp_path / "scored.parquet"), cache_dir=str(tmp_path / "cache"))
    first, second = select(ds, top_k=5), select(on_disk, top_k=5)
    assert first.kept.to_dict() == second.kept.to_dict()
    assert second.kept.cache_files
    second.kept.to_parquet(tmp_path / "kept.parquet")
    assert Dataset.from_parquet(str(tmp_path / "kept.parquet"), cache_dir=str(tmp_path)).num_rows == 5


def test_select_from_an_earlier_selection_keeps_its_row_numbers() -> None:
    ds = texts(["ab", "cd", "ba", "dc", "ef"]).select([4, 3, 2, 1, 0])
    first = select(ds, top_k=4)
    assert rows(first.kept) == [4, 3, 2, 1]
    again = select(first.kept, fraction=1.0, near_duplicates=0.9, columns=COLUMNS, embedder=LetterEmbedder())
    assert rows(again.kept) == [4, 3]
    assert again.dropped["im_duplicate_of"][:] == [4, 3]
    assert select(first.dropped, top_k=1).kept.to_dict() == {
        "im_log_loss": [4.0], "q": ["ef"], "a": ["a"], "im_row": [0], "im_rank": [1]
    }  # fmt: skip


# properties

log_losses = st.lists(st.sampled_from([NAN, 0.0, 0.5, 1.0, 1.5, 2.0, -1.0]), min_size=1, max_size=30).filter(
    lambda values: not all(map(math.isnan, values))
)
words = st.sampled_from(["ab", "ba", "abc", "cd", "dcc", "efg", "Write a poem.", "h"])


@st.composite
def requests(draw: st.DrawFn) -> tuple[Dataset, dict[str, Any]]:
    values = draw(log_losses)
    n, scorable = len(values), sum(not math.isnan(v) for v in values)
    ds = scored(
        values,
        q=draw(st.lists(words, min_size=n, max_size=n)),
        a=["a"] * n,
        kind=draw(st.lists(st.sampled_from(["x", "y", None]), min_size=n, max_size=n)),
    )
    size = draw(
        st.one_of(
            st.integers(1, scorable).map(lambda k: {"top_k": k}),
            st.floats(0.01, 1).map(lambda f: {"fraction": f}),
            st.sampled_from([-2.0, 0.5, 1.0, 3.0]).map(lambda t: {"threshold": t}),
        )
    )
    checks = {
        "per_group": draw(st.none() | st.integers(1, 3).map(lambda quota: ("kind", quota))),
        "near_duplicates": draw(st.none() | st.sampled_from([0.5, 0.9, 1.0])),
        "exclude_contaminated": draw(st.none() | st.just(EVALUATION)),
    }
    return ds, {**size, **checks, "columns": COLUMNS, "embedder": LetterEmbedder()}


def both(selection: Selection) -> tuple[Any, ...]:
    return selection.kept.to_dict(), repr(selection.dropped.to_dict()), selection.settings, selection.reasons


@settings(max_examples=60, deadline=None)
@given(requests(), st.integers(1, 9))
def test_select_meets_its_promises(request_: tuple[Dataset, dict[str, Any]], block: int) -> None:
    ds, wish = request_
    selection = select(ds, **wish)
    kept, dropped = selection.kept, selection.dropped
    # Every row once, and reasons that add up.
    assert sorted(rows(kept) + rows(dropped)) == list(range(len(ds)))
    assert Counter(dropped["im_reason"][:]) == selection.reasons
    assert list(selection.reasons.values()) == sorted(selection.reasons.values(), reverse=True)
    # Best first, and nothing below the cut that is better than something kept.
    order = list(zip(kept["im_log_loss"], rows(kept), strict=True))
    assert order == sorted(order)
    assert selection.cut == (order[-1][0] if order else None)
    below = [
        (loss, row)
        for loss, row, reason in zip(dropped["im_log_loss"], rows(dropped), dropped["im_reason"], strict=True)
        if reason == "below the cut"
    ]
    assert not order or not below or order[-1] < min(below)
    # Ranks: 1..m over the scorable rows, 0 for the others.
    ranks = [rank for rank in [*kept["im_rank"], *dropped["im_rank"]] if rank]
    unscorable = sum(map(math.isnan, ds["im_log_loss"]))
    assert sorted(ranks) == list(range(1, len(ds) - unscorable + 1))
    # Sizes.
    if wish.get("top_k"):
        assert len(kept) + selection.settings["shortfall"] == wish["top_k"]
    if "threshold" in wish:
        assert all(loss <= wish["threshold"] for loss in kept["im_log_loss"])
    # Checks.
    if wish["per_group"]:
        assert max(Counter(kept["kind"][:]).values(), default=0) <= wish["per_group"][1]
    if wish["exclude_contaminated"]:
        assert "Write a poem." not in kept["q"][:]
    if wish["near_duplicates"]:
        vectors = LetterEmbedder().embed([f"{q}\n\na" for q in kept["q"]]) if len(kept) else np.zeros((0, 8))
        assert (vectors @ vectors.T - 2 * np.eye(len(kept))).max(initial=-1) < wish["near_duplicates"]
        by_row = dict(zip(rows(kept), kept["im_rank"], strict=True))
        for reason, twin, rank in zip(
            dropped["im_reason"], dropped["im_duplicate_of"], dropped["im_rank"], strict=True
        ):
            assert (twin >= 0) == (reason == "near-duplicate")
            assert twin < 0 or by_row[twin] < rank
    # The same again, whatever the blocks.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "BLOCK", block)
        assert both(select(ds, **wish)) == both(selection)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(2, 20))
def test_select_does_not_depend_on_row_order(data: st.DataObject, count: int) -> None:
    ds = scored(
        [float(i) for i in range(count)],
        q=data.draw(st.lists(words, min_size=count, max_size=count)),
        a=["a"] * count,
        kind=data.draw(st.lists(st.sampled_from("xy"), min_size=count, max_size=count)),
    )
    order = data.draw(st.permutations(range(count)))
    wish: dict[str, Any] = {
        "top_k": data.draw(st.integers(1, count)),
        "per_group": ("kind", 2),
        "near_duplicates": 0.9,
        "exclude_contaminated": EVALUATION,
        "columns": COLUMNS,
        "embedder": LetterEmbedder(),
    }
    first, second = select(ds, **wish), select(ds.select(order), **wish)
    assert first.kept["im_log_loss"][:] == second.kept["im_log_loss"][:]
    assert first.dropped["im_log_loss"][:] == second.dropped["im_log_loss"][:]
    assert first.dropped["im_reason"][:] == second.dropped["im_reason"][:]
    assert first.reasons == second.reasons


# errors


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({}, r"got no size; give exactly one of top_k, fraction, threshold"),
        ({"top_k": 1, "fraction": 0.5}, r"got top_k=1 and fraction=0.5; give exactly one of"),
        ({"top_k": 0}, r"top_k=0; it must be a whole number, 1 or more"),
        ({"top_k": -3}, r"top_k=-3; it must be"),
        ({"top_k": 1.5}, r"top_k=1.5; it must be a whole number"),
        ({"top_k": True}, r"top_k=True; it must be a whole number"),
        ({"fraction": 0}, r"fraction=0; it must be above 0 and at most 1"),
        ({"fraction": 1.01}, r"fraction=1.01; it must be above 0"),
        ({"fraction": NAN}, r"fraction=nan; it must be above 0"),
        ({"fraction": "0.5"}, r"fraction='0.5'; it must be above 0"),
        ({"threshold": math.inf}, r"threshold=inf; it must be a finite log loss"),
        ({"threshold": NAN}, r"threshold=nan; it must be a finite log loss"),
        ({"top_k": 1, "near_duplicates": 0.0}, r"near_duplicates=0.0; it must be above 0 and at most 1"),
        ({"top_k": 1, "near_duplicates": 1.1}, r"near_duplicates=1.1; it must be above 0"),
    ],
)
def test_request_and_select_refuse_numbers_out_of_range(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        SelectionRequest(**wish)
    with pytest.raises(SelectionError, match=message):
        select(scored([0.1, 0.2]), **wish)


@pytest.mark.parametrize(
    ("per_group", "message"),
    [
        (("kinds", 1), r"no column 'kinds' to group by in \['im_log_loss', 'kind', 'tags'\]"),
        (("kind", 0), r"a quota of 0 per 'kind'; it must be a whole number, 1 or more"),
        (("kind", 1.5), r"a quota of 1.5 per 'kind'"),
        (("tags", 1), r"column 'tags' holds List\(.*; group by a column of plain values"),
        ("kind", r"per_group='kind'; give a column and a quota: \('category', 100\)"),
        (("kind",), r"give a column and a quota"),
    ],
)
def test_select_refuses_a_quota_it_cannot_count(per_group: Any, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        select(scored([0.1], kind=["x"], tags=[["a"]]), top_k=1, per_group=per_group)


def test_select_refuses_more_rows_than_could_be_scored() -> None:
    with pytest.raises(SelectionError, match=r"top_k=3, but only 2 of 4 rows could be scored; ask for 2 or fewer"):
        select(scored([0.1, NAN, 0.2, NAN]), top_k=3)


def test_select_refuses_a_dataset_without_scores() -> None:
    with pytest.raises(SelectionError, match=r"no im_log_loss column in \['q'\]; map the dataset with InstructM"):
        select(Dataset.from_dict({"q": ["x"]}), top_k=1)


def test_select_refuses_scores_that_are_not_numbers() -> None:
    with pytest.raises(SelectionError, match=r"im_log_loss holds string, not numbers"):
        select(Dataset.from_dict({"im_log_loss": ["0.1"]}), top_k=1)


def test_select_refuses_a_stream() -> None:
    with pytest.raises(SelectionError, match=r"got an IterableDataset.*ds.to_parquet\('scored.parquet'\)"):
        select(scored([0.1]).to_iterable_dataset(), top_k=1)


def test_select_refuses_several_splits() -> None:
    with pytest.raises(SelectionError, match=r"got a DatasetDict; select takes one Dataset, such as ds\['train'\]"):
        select(DatasetDict({"train": scored([0.1])}), top_k=1)  # type: ignore[arg-type]


def test_select_refuses_an_empty_dataset() -> None:
    with pytest.raises(SelectionError, match=r"the dataset has no rows"):
        select(scored([]), top_k=1)


def test_select_refuses_a_dataset_without_scorable_rows() -> None:
    message = r"none of the 2 rows could be scored: an indicator gave no value \(1\), blank \(1\)"
    with pytest.raises(SelectionError, match=message):
        select(scored([NAN, NAN], im_unscorable=["", "blank"]), top_k=1)
    with pytest.raises(SelectionError, match=r"none of the 2 rows could be scored"):
        select(Dataset.from_dict({"im_log_loss": [None, None]}), top_k=1)


def test_select_refuses_columns_it_cannot_tell() -> None:
    with pytest.raises(ColumnsError, match="stuff"):
        select(scored([0.1], stuff=["x"]), top_k=1, exclude_contaminated=EVALUATION)


def test_select_refuses_columns_that_are_not_there() -> None:
    with pytest.raises(ColumnsError, match="answer"):
        select(texts(["x"]), top_k=1, near_duplicates=0.9, columns=Columns("q", "answer"), embedder=LetterEmbedder())


def test_select_refuses_row_numbers_that_are_none() -> None:
    with pytest.raises(SelectionError, match=r"a column im_row of string that is not a row number; rename it"):
        select(scored([0.1], im_row=["first"]), top_k=1)


def test_select_refuses_row_numbers_that_come_twice():
    with pytest.raises(SelectionError, match=r"im_row .* has a number twice.*remove_columns\('im_row'\)"):
        select(scored([0.1, 0.2, 0.3], im_row=[4, 2, 4]), top_k=1)
