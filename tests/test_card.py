"""The dataset card: its golden render, its front matter, and that no value gets out of its place."""

import os

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_sample import GOLDEN, RULE, make_record, make_selection

from im_datasets import card as card_module
from im_datasets.card import missing_facts, render_card, write_card
from im_datasets.indicators.base import COLUMNS
from im_datasets.record import IndicatorRecord

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = st.sampled_from(
    [
        "---\nlicense: mit\n---",
        "a\n# heading\n\n- list",
        "<script>alert(1)</script>",
        "[x](javascript:alert(1)) ![y](http://evil.example/i.png)",
        "| a | b |\n|---|---|",
        "```\n```bash",
        "{{7*7}} {% raw %}",
        "'\"\\: !!python/object [1, {2",
        "\x00\x1b[31m\u2028\u202e\ufeff\x85",
        "http://evil.example www.evil.example me@evil.example",
        "*" * 500 + "name" * 500,
        "<!-- comment",
        "%TAG &anchor *alias @at `tick`",
    ]
) | st.text(min_size=1, max_size=80)


def split_card(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def block_types(body):
    return [token.type for token in MARKDOWN.parse(body)]


def inline_tokens(body):
    return [child for token in MARKDOWN.parse(body) for child in token.children or ()]


PLAIN = render_card(make_selection(), make_record())


def test_render_card_equals_its_golden_file():
    card = render_card(
        make_selection(), make_record(), license="cc-by-4.0", language="en", pretty_name="Things, the best of them"
    )
    golden = GOLDEN / "dataset_card.md"
    if os.environ.get("IM_UPDATE_GOLDEN"):
        golden.write_text(card, encoding="utf-8")
    assert card == golden.read_text(encoding="utf-8")


def test_render_card_asks_for_what_was_not_given_and_guesses_nothing():
    front, body = split_card(PLAIN)
    assert not {"license", "language", "pretty_name", "source_datasets", "task_categories"} & set(front)
    assert "To be added:** the licence of the rows was not given" in body
    assert "To be added:** the language of the rows was not given" in body


def test_render_card_states_what_was_given():
    card = render_card(make_selection(), make_record(), license="cc-by-4.0", language=["en", "de"], pretty_name="Best")
    front, body = split_card(card)
    assert (front["license"], front["language"], front["pretty_name"]) == ("cc-by-4.0", ["en", "de"], "Best")
    assert "To be added" not in body
    assert body.lstrip().startswith("# Best\n")


def test_missing_facts_name_the_option():
    assert missing_facts("mit", "en") == []
    assert "--license" in missing_facts(None, "en")[0]
    assert "--language" in missing_facts("mit", "")[0]


def test_render_card_names_a_hub_source_in_its_front_matter():
    record = make_record(source={"kind": "hub", "id": "someone/rows", "revision": "abc"})
    front, body = split_card(render_card(make_selection(), record))
    assert front["source_datasets"] == ["someone/rows"]
    assert "revision abc" in body


@pytest.mark.parametrize(
    ("kept", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (9999, "1K<n<10K"),
        (10**12 - 1, "100B<n<1T"),
        (10**13, "n>1T"),
    ],
)
def test_size_category_is_the_hubs(kept, category):
    assert card_module._size_category(kept) == category


def test_size_category_comes_from_the_kept_rows():
    scores = {"im_log_loss": np.arange(1001, dtype=float)}
    selection = make_selection(1001, 999, scores=scores, duplicates=0, texts=[("q", "a")] * 1001)
    assert split_card(render_card(selection, make_record()))[0]["size_categories"] == ["n<1K"]


def test_render_card_tells_every_count():
    selection = make_selection()
    _, body = split_card(PLAIN)
    assert "| **kept** | **8** | **33.3 %** |" in body
    for reason, number in selection.reasons.items():
        assert f"| dropped: {reason} | {number} |" in body
    assert "2 of 24 rows could not be scored" in body
    for caveat in RULE["caveats"]:
        assert f"- {caveat}\n" in body
    assert body.index(RULE["caveats"][0]) < body.index("## What was chosen")


def test_render_card_compares_each_indicator():
    selection = make_selection()
    row = next(line for line in PLAIN.splitlines() if line.startswith("| `im_quality` | a whole"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:4] == [
        COLUMNS["im_quality"].meaning,
        COLUMNS["im_quality"].unit,
        COLUMNS["im_quality"].direction,
    ]
    kept, dropped = np.array(selection.kept["im_quality"][:]), np.array(selection.dropped["im_quality"][:])
    expected = [kept.mean(), np.median(kept), np.nanmean(dropped), np.nanmedian(dropped)]
    assert [float(cell.replace("−", "-")) for cell in cells[4:8]] == pytest.approx(expected, abs=5e-4)


def test_render_card_repeats_the_command_as_a_shell_reads_it():
    assert "```bash\nim-datasets mine sample.json --top-k 8 --out 'my results'\n```" in PLAIN
    assert "started from Python" in render_card(make_selection(), make_record(command=None))


def test_a_shortfall_is_told():
    selection = make_selection()
    selection.settings["shortfall"] = 5
    assert "5 rows fewer than asked for" in render_card(selection, make_record())


@pytest.mark.parametrize(("rows", "keep", "unscorable"), [(5, 0, 0), (1, 1, 0), (3, 0, 3)])
def test_render_card_stands_tiny_selections(rows, keep, unscorable):
    selection = make_selection(rows, keep, unscorable=unscorable, duplicates=0)
    front, body = split_card(render_card(selection, make_record()))
    assert front["size_categories"] == ["n<1K"]
    assert f"| in the source | {rows} |" in body
    assert ("No row was kept." in body) == (keep == 0)


@given(HOSTILE)
@settings(deadline=None, max_examples=40)
def test_no_value_gets_out_of_its_place(text):
    rule = RULE | {
        "name": text,
        "title": text,
        "target": text,
        "aggregation": text,
        "terms": [{"column": text, "coefficient": 1.0, "low": None, "high": None}],
        "provenance": {text: text, "list": [text], "map": {text: text}},
        "caveats": [text, "second"],
    }
    record = make_record(
        rule=rule,
        source={"kind": "hub", "id": text, "files": [text]},
        columns={"layout": text, "fields": {"instruction": text}},
        indicators=[IndicatorRecord(text, text, [], {text: text}, {"id": text})] * 2,
        command=["im-datasets", text],
        versions={text: text, "x": text},
    )
    selection = make_selection(reason="below the cut")
    selection.reasons.clear()
    selection.reasons.update({text: 7})
    selection.settings[text] = text
    card = render_card(selection, record, license=text, language=text, pretty_name=text)
    calm = render_card(make_selection(), make_record(
        rule=rule | {"name": "a", "title": "a", "target": "a", "aggregation": "a", "caveats": ["a", "second"],
                     "terms": [{"column": "a", "coefficient": 1.0}],
                     "provenance": {"a": "a", "list": ["a"], "map": {"a": "a"}}},
        indicators=[IndicatorRecord("a", "a", [], {"a": "a"}, {"id": "a"})] * 2,
        versions={"a": "a", "x": "a"},
    ), license="a", language="a", pretty_name="a")  # fmt: skip
    front, body = split_card(card)
    calm_front, calm_body = split_card(calm)
    assert set(front) - set(calm_front) <= {"source_datasets"}
    assert set(calm_front) - set(front) <= {"license", "language", "pretty_name"}
    assert front["tags"] == calm_front["tags"]
    assert front["configs"] == calm_front["configs"]
    assert "\n" not in str(front.get("pretty_name", ""))
    reasons = {"tr_open", "tr_close", "td_open", "td_close", "inline"}
    kinds, calm_kinds = ([k for k in block_types(b) if k not in reasons] for b in (body, calm_body))
    assert kinds == calm_kinds
    for token in inline_tokens(body):
        assert token.type not in {"link_open", "html_inline"} or token.content == "<!-- -->"
    images = [t.attrs["src"] for t in inline_tokens(body) if t.type == "image"]
    assert images == ["figures/score_distribution.png", "figures/indicators.png"]


def test_write_card_writes_card_and_figures_and_the_configs_open(tmp_path):
    selection = make_selection()
    selection.kept.to_parquet(tmp_path / "kept.parquet")
    selection.dropped.to_parquet(tmp_path / "dropped.parquet")
    path = write_card(selection, make_record(), tmp_path, license="mit")
    assert path == tmp_path / "README.md"
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert names == [
        "README.md", "dropped.parquet", "figures/indicators.png", "figures/score_distribution.png", "kept.parquet",
    ]  # fmt: skip
    assert load_dataset(str(tmp_path), split="train").to_list() == selection.kept.to_list()
    assert len(load_dataset(str(tmp_path), "dropped", split="train")) == len(selection.dropped)


def test_write_card_tells_what_is_missing(tmp_path, caplog):
    with caplog.at_level("INFO", logger="im_datasets.card"):
        write_card(make_selection(), make_record(), tmp_path, license="mit")
    assert [record.getMessage() for record in caplog.records] == missing_facts("mit", None)
