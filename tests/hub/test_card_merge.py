"""Merging leaves what people wrote as it is, to the byte, whatever they wrote."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from report_sample import make_record, make_selection

from im_datasets.common.errors import ConflictError
from im_datasets.hub.card_merge import merge_card, split_card
from im_datasets.report.card import Card, render_card
from im_datasets.report.card_blocks import block_digests, find_blocks
from im_datasets.report.card_facts import CardFacts
from im_datasets.report.card_metadata import as_yaml

FRESH = render_card(make_selection(), make_record(), CardFacts.of("mit", "en"))
OTHER = render_card(make_selection(keep=5), make_record(), CardFacts.of("mit", "en"))
DIGESTS = block_digests(FRESH.blocks)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OURS = {"license", "language", "tags", "size_categories", "configs", "pretty_name", "source_datasets", "dataset_info"}


def front_of(card):
    return yaml.safe_load(split_card(card)[0])


def test_merging_into_the_same_card_changes_nothing():
    card = str(FRESH)
    assert merge_card(card, FRESH, published=DIGESTS, configs=["kept", "dropped"]) == card


def test_merging_exchanges_the_generated_parts_and_nothing_else():
    card = str(FRESH).replace("# Selected", "Before.\n\n# Selected") + "After.\n"
    expected = str(OTHER).replace("# Selected", "Before.\n\n# Selected") + "After.\n"
    assert merge_card(card, OTHER, published=DIGESTS) == expected


def test_merging_into_an_empty_card_gives_the_fresh_one():
    assert merge_card("", FRESH) == str(FRESH)


def test_missing_parts_follow_the_one_before_them():
    body = "\n# Mine\n\n<!-- im-datasets:begin summary -->\nold\n<!-- im-datasets:end summary -->\n\nMiddle.\n"
    merged = merge_card(f"---\nlicense: mit\n---\n{body}", FRESH)
    order = ["# Mine", "begin summary", "begin selection", "begin provenance", "Middle."]
    assert [merged.index(text) for text in order] == sorted(merged.index(text) for text in order)
    assert find_blocks(merged) == FRESH.blocks


def test_comments_and_formatting_of_other_fields_stay():
    front = "# first\nmine: {a: 1}   # kept\nlicense: apache-2.0 # old\nquoted: 'it''s'\nlist:\n- x\n\n- y\n"
    merged = merge_card(f"---\n{front}---\n# T\n", FRESH)
    for line in ("# first\n", "mine: {a: 1}   # kept\n", "quoted: 'it''s'\nlist:\n- x\n\n- y\n"):
        assert line in merged
    assert front_of(merged)["license"] == "mit"


def test_line_ends_of_windows_stay():
    card = "---\r\nlicense: mit\r\n---\r\n# Mine\r\n\r\nText.\r\n"
    merged = merge_card(card, FRESH)
    assert "# Mine\r\n\r\nText.\r\n" in merged
    assert merged.replace("\r\n", "").count("\n") == 0
    assert find_blocks(merged.replace("\r\n", "\n")) == FRESH.blocks


@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=5))
@settings(max_examples=60)
def test_unknown_fields_keep_their_values(fields):
    fields = {name: value for name, value in fields.items() if name not in OURS}
    card = f"---\n{yaml.safe_dump(fields, allow_unicode=True)}---\n# Mine\n"
    before = yaml.safe_load(card.split("---\n")[1]) or {}
    after = front_of(merge_card(card, FRESH))
    assert {name: after.pop(name) for name in before} == before
    assert after == yaml.safe_load(as_yaml(FRESH.metadata))


@given(st.text(), st.text())
@settings(max_examples=60)
def test_text_around_the_parts_stays(before, after):
    before, after = (text.replace("\r", "").replace("<!-- im-datasets:", "") for text in (before, after))
    start, end = str(FRESH).split("<!-- im-datasets:begin summary -->")
    card = f"{start}{before}\n<!-- im-datasets:begin summary -->{end}{after}"
    merged = merge_card(card, OTHER, published=DIGESTS)
    assert f"{before}\n<!-- im-datasets:begin summary -->" in merged
    assert merged.endswith(f"<!-- im-datasets:end provenance -->\n{after}")


def test_lists_are_united_and_other_configs_stay():
    front = "tags: [mine, im-datasets]\nconfigs:\n- {config_name: full, data_files: full.parquet}\n"
    data = front_of(merge_card(f"---\n{front}---\n", FRESH))
    assert data["tags"] == ["mine", "im-datasets", "instruction-mining"]
    assert [config["config_name"] for config in data["configs"]] == ["kept", "dropped", "full"]


def test_other_dataset_infos_stay_in_either_form():
    from datasets import DatasetInfo, Features, Value

    infos = {"kept": DatasetInfo(features=Features({"a": Value("string")}))}
    fresh = render_card(make_selection(), make_record(), infos=infos)
    for there in ("dataset_info: {config_name: full, download_size: 7}", "dataset_info: [{config_name: full, x: 7}]"):
        told = front_of(merge_card(f"---\n{there}\n---\n", fresh))["dataset_info"]
        assert [info["config_name"] for info in told] == ["kept", "full"]


@pytest.mark.parametrize(
    ("card", "match"),
    [
        ("---\na: [1\n---\n", "is not YAML"),
        ("---\n- a\n---\n", "no mapping"),
        ("<!-- im-datasets:begin summary -->\n", "markers .* are damaged"),
        ("<!-- im-datasets:end summary -->\n<!-- im-datasets:begin summary -->\n", "markers .* are damaged"),
        (str(FRESH) + str(FRESH.body), "markers .* are damaged"),
        (str(FRESH).replace("| **kept** |", "| **Kept** |"), "selection was edited by hand"),
        ("---\nconfigs: [{config_name: a, default: true}]\n---\n", "names 'a' as the default config"),
        ("---\nconfigs: [{config_name: a, data_files: [{split: x, path: [b.csv]}]}]\n---\n", "reads b.csv"),
    ],
)
def test_merging_refuses_what_it_would_lose(card, match):
    with pytest.raises(ConflictError, match=match):
        merge_card(card, OTHER, published=DIGESTS)


def test_overwriting_is_possible_when_asked():
    card = str(FRESH).replace("| **kept** |", "| **Kept** |")
    assert merge_card(card, FRESH, published=DIGESTS, overwrite=True) == str(FRESH)


def test_another_licence_takes_the_terms_of_the_old_one_with_it():
    front = "license: other  # ours\nlicense_name: mine\nlicense_link: https://a.b\nextra: 1\n"
    data = front_of(merge_card(f"---\n{front}---\n", Card({"license": "mit"}, FRESH.body)))
    assert data == {"license": "mit", "extra": 1}


def test_a_card_without_a_licence_to_say_leaves_the_one_that_is_there():
    front = "license: other\nlicense_name: mine\n"
    data = front_of(merge_card(f"---\n{front}---\n", Card({"tags": ["a"]}, FRESH.body)))
    assert data == {"license": "other", "license_name": "mine", "tags": ["a"]}


@pytest.mark.parametrize(("there", "left"), [(["old", "hand"], ["hand"]), (["old"], None)])
def test_sources_of_an_earlier_push_go_and_those_of_a_hand_stay(there, left):
    card = f"---\nsource_datasets: {there}\nextra: 1\n---\n"
    merged = front_of(merge_card(card, Card({"tags": ["a"]}, FRESH.body), claimed={"source_datasets": ["old"]}))
    assert merged.get("source_datasets") == left
    assert merged["extra"] == 1
    moved = front_of(
        merge_card(card, Card({"source_datasets": ["new"]}, FRESH.body), claimed={"source_datasets": ["old"]})
    )
    assert moved["source_datasets"] == [*(left or []), "new"]
