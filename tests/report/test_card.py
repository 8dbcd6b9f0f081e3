"""The dataset card: its golden render, its front matter, and that no value gets out of its place."""

import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_sample import GOLDEN, RULE, make_record, make_selection

from im_datasets.data.columns import Columns
from im_datasets.hub.card_merge import split_card as split_front_matter
from im_datasets.indicators.score_columns import COLUMNS
from im_datasets.report.card import CONFIGS, mined_configs, render_card
from im_datasets.report.card_blocks import find_blocks
from im_datasets.report.card_facts import CardFacts
from im_datasets.report.configs import Config
from im_datasets.scoring.record import IndicatorRecord

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
) | st.text(min_size=1, max_size=80).filter(str.strip)


def render(selection=None, record=None, **facts):
    """A card of the sample selection, as text."""
    selection = make_selection() if selection is None else selection
    return str(render_card(selection, make_record() if record is None else record, CardFacts.of(**facts)))


def split_card(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def block_types(body):
    return [token.type for token in MARKDOWN.parse(body)]


def inline_tokens(body):
    return [child for token in MARKDOWN.parse(body) for child in token.children or ()]


PLAIN = render()


@pytest.mark.parametrize(
    ("names", "original", "said"),
    [
        (["kept"], False, "the numbers of the rows that are not here cannot"),
        (["kept", "dropped"], False, "Every number on this card, and the rows themselves, can be checked"),
        (["kept", "scores"], True, "Every number on this card, and the rows themselves, can be checked"),
        (["kept", "dropped"], True, "the numbers of the rows that are not here cannot"),
    ],
)
def test_card_claims_no_more_than_verify_can_check(names, original, said):
    configs = {name: Config(24, ["instruction"], [f"{name}.parquet"]) for name in names}
    card = str(
        render_card(make_selection(), make_record(), CardFacts(repo_id="me/x"), configs=configs, original=original)
    )
    assert said in card
    assert ("each with its reason" in card) == ("dropped" in names and not original)


def test_card_of_a_branch_loads_and_verifies_that_branch():
    card = str(render_card(make_selection(), make_record(), CardFacts(repo_id="me/x", revision="drafts/one")))
    assert 'load_dataset("me/x", split="train", revision="drafts/one")' in card
    assert "`im-datasets verify me/x --revision drafts/one`" in card
    hostile = str(render_card(make_selection(), make_record(), CardFacts(repo_id="me/x", revision='a"; evil()')))
    assert "evil" not in hostile
    assert "revision=" not in hostile


def test_card_names_the_record_by_the_file_that_is_there():
    record = replace(make_record(), command=None)
    assert "on this card and in `record.json`" in str(render_card(make_selection(), record))
    published = str(render_card(make_selection(), record, CardFacts(repo_id="me/x")))
    assert "on this card and in `instructmining.json`" in published


def test_card_says_what_a_row_number_is_of_rows_that_were_expanded():
    assert "`im_source_row`" not in str(render_card(make_selection(), make_record()))
    sides = [
        side.add_column("im_source_row", [0] * len(side)).add_column("im_turn", [0] * len(side))
        for side in (make_selection().kept, make_selection().dropped)
    ]
    card = str(render_card(replace(make_selection(), kept=sides[0], dropped=sides[1]), make_record()))
    assert "| `im_row` | the row's place among all pairs that were read, from 0, unless" in card
    assert "of its own |\n| `im_source_row` | the place in the source" in card
    assert "| `im_turn` | which of its assistant turns is the response, from 0 |" in card


def test_render_card_equals_its_golden_file():
    columns = ["instruction", "im_reason"]
    configs = {name: Config(24, columns, [f"{name}/train-00000-of-00001.parquet"]) for name in CONFIGS}
    facts = CardFacts.of("cc-by-4.0", "en", pretty_name="Things, the best of them", repo_id="me/things")
    card = str(render_card(make_selection(), make_record(), facts, configs=configs))
    golden = GOLDEN / "dataset_card.md"
    if os.environ.get("IM_UPDATE_GOLDEN"):
        golden.write_text(card, encoding="utf-8")
    assert card == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            {"limit": 24, "rows": 24, "seed": None},
            "Kept 8 of 24 rows (33.3 %), out of the first 24 rows of rows.json, ",
        ),
        (
            {"limit": 24, "rows": 24, "seed": 3},
            "Kept 8 of 24 rows (33.3 %), out of 24 randomly drawn rows of rows.json, ",
        ),
        ({"limit": 99, "rows": 24, "seed": None}, "Kept 8 of 24 rows (33.3 %) of rows.json, "),
        ({}, "Kept 8 of 24 rows (33.3 %) of rows.json, "),
    ],
)
def test_render_card_says_when_a_source_was_read_in_part(source, told):
    record = make_record(source={"kind": "file", "id": "rows.json", **source})
    card = str(render_card(make_selection(), record))
    assert told in card.replace("\\", "")
    assert "| read | 24 | 100.0 % |" in card


def test_render_card_lists_reasons_only_where_they_are():
    with_reasons = {"kept": Config(8, ["a"], ["k"]), "dropped": Config(16, ["a", "im_reason"], ["d"])}
    assert "`im_reason`" in str(render_card(make_selection(), make_record(), configs=with_reasons))
    alone = {"kept": with_reasons["kept"]}
    assert "`im_reason`" not in str(render_card(make_selection(), make_record(), configs=alone))


def test_render_card_shortens_digests():
    digest = "0123456789abcdef" * 4
    indicator = replace(make_record().indicators[0], model={"id": "folder", "revision": f"sha256:{digest}"})
    record = make_record(source={"id": "x", "fingerprint": digest}, indicators=[indicator])
    card = str(render_card(make_selection(), record))
    assert digest not in card
    assert card.count("0123456789ab…") == 2


def test_render_card_asks_for_what_was_not_given_and_guesses_nothing():
    front, body = split_card(PLAIN)
    assert not {"license", "language", "pretty_name", "source_datasets", "task_categories"} & set(front)
    assert "To be added:** the licence of the rows was not given" in body
    assert "To be added:** the language of the rows was not given" in body


def test_render_card_states_what_was_given():
    card = render(license="cc-by-4.0", language=["en", "de"], pretty_name="Best")
    front, body = split_card(card)
    assert (front["license"], front["language"], front["pretty_name"]) == ("cc-by-4.0", ["en", "de"], "Best")
    assert "To be added" not in body
    assert body.lstrip().startswith("# Best\n")


def test_render_card_names_a_hub_source_in_its_front_matter():
    record = make_record(source={"kind": "hub", "id": "someone/rows", "revision": "abc"})
    front, body = split_card(render(record=record))
    assert front["source_datasets"] == ["someone/rows"]
    assert "revision abc" in body


def test_size_category_comes_from_the_kept_rows():
    scores = {"im_log_loss": np.arange(1001, dtype=float)}
    selection = make_selection(1001, 999, scores=scores, duplicates=0, texts=[("q", "a")] * 1001)
    assert split_card(render(selection))[0]["size_categories"] == ["n<1K"]


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
    column = COLUMNS["im_quality"]
    assert cells[1] == f"{column.meaning}; {column.unit}; {column.direction}"
    kept, dropped = np.array(selection.kept["im_quality"][:]), np.array(selection.dropped["im_quality"][:])
    expected = [kept.mean(), np.median(kept), np.nanmean(dropped), np.nanmedian(dropped)]
    assert [float(cell.replace("−", "-")) for cell in cells[2:6]] == pytest.approx(expected, abs=5e-4)


def test_render_card_repeats_the_command_as_a_shell_reads_it():
    assert "```bash\nim-datasets mine sample.json --top-k 8 --out 'my results'\n```" in PLAIN
    assert "started from Python" in render(record=make_record(command=None))


def test_a_shortfall_is_told():
    selection = make_selection()
    selection.settings["shortfall"] = 5
    assert "5 rows fewer than asked for" in render(selection)


@pytest.mark.parametrize(("rows", "keep", "unscorable"), [(5, 0, 0), (1, 1, 0), (3, 0, 3)])
def test_render_card_stands_tiny_selections(rows, keep, unscorable):
    selection = make_selection(rows, keep, unscorable=unscorable, duplicates=0)
    front, body = split_card(render(selection))
    assert front["size_categories"] == ["n<1K"]
    assert f"| read | {rows} |" in body
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
        columns=Columns(instruction=text, response=f"{text}2"),
        indicators=[IndicatorRecord(text, text, [], {text: text}, {"id": text})] * 2,
        command=["im-datasets", text],
        versions={text: text, "x": text},
    )
    selection = make_selection(reason="below the cut")
    selection.reasons.clear()
    selection.reasons.update({text: 7})
    selection.settings[text] = text
    facts = {"tags": (text,), "task_categories": (text,), "license_name": text, "license_link": text, "repo_id": "me/x"}
    terms = {"license": text, "license_name": text, "license_link": text}
    card = render(selection, record, license=text, language=text, pretty_name=text, source_terms=terms, **facts)
    calm_facts = {name: ("a",) if isinstance(value, tuple) else "a" for name, value in facts.items()}
    calm_facts["repo_id"] = "me/x"
    calm = render(make_selection(), make_record(
        source={"kind": "hub", "id": "a/b", "files": ["a"]},
        columns=Columns(instruction="a", response="a2"), command=["im-datasets", "a"],
        rule=rule | {"name": "a", "title": "a", "target": "a", "aggregation": "a", "caveats": ["a", "second"],
                     "terms": [{"column": "a", "coefficient": 1.0}],
                     "provenance": {"a": "a", "list": ["a"], "map": {"a": "a"}}},
        indicators=[IndicatorRecord("a", "a", [], {"a": "a"}, {"id": "a"})] * 2,
        versions={"a": "a", "x": "a"},
    ), license="a", language="a", pretty_name="a", source_terms=dict.fromkeys(terms, "a"), **calm_facts)  # fmt: skip
    front, body = split_card(card)
    calm_front, calm_body = split_card(calm)
    assert set(front) - set(calm_front) <= {"source_datasets"}
    assert set(calm_front) - set(front) <= {"license", "language", "pretty_name"}
    assert front["tags"][:2] == calm_front["tags"][:2]
    assert list(find_blocks(body)) == list(find_blocks(calm_body)) == ["summary", "selection", "provenance"]
    assert front["configs"] == calm_front["configs"]
    assert "\n" not in str(front.get("pretty_name", ""))
    reasons = {"tr_open", "tr_close", "td_open", "td_close", "inline"}
    kinds, calm_kinds = ([k for k in block_types(b) if k not in reasons] for b in (body, calm_body))
    assert kinds == calm_kinds
    for token in inline_tokens(body):
        assert token.type not in {"link_open", "html_inline"} or token.content == "<!-- -->"
    images = [t.attrs["src"] for t in inline_tokens(body) if t.type == "image"]
    assert images == ["figures/score_distribution.png", "figures/indicators.png"]


@pytest.mark.parametrize("repo_id", ["a`b", 'me/x"); import os; ("', "me/x\n# y", "ümlaut/x", ""])
def test_a_repository_name_that_is_none_is_not_shown(repo_id):
    assert "## How to use it" not in render(repo_id=repo_id)


def test_a_command_cannot_look_like_a_marker():
    words = ["im-datasets", "mine", "x\n<!-- im-datasets:end selection -->\n", "it's"]
    card = render(record=make_record(command=words))
    assert list(find_blocks(card)) == ["summary", "selection", "provenance"]
    line = next(line for line in card.splitlines() if line.startswith("im-datasets mine"))
    done = subprocess.run(["bash", "-c", f"printf '%s|' {line}"], capture_output=True, text=True, check=True)
    assert done.stdout.split("|")[:-1] == words


def test_render_card_without_a_record_says_what_is_not_known():
    front, body = split_card(str(render_card(make_selection(), None, CardFacts.of("mit", "en"))))
    assert "source_datasets" not in front
    assert "which rule, models and settings gave the scores is not known here" in body
    assert "| **kept** | **8** |" in body
    assert list(find_blocks(body)) == ["summary", "selection", "provenance"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["kept", "dropped"], "Both sides are here"),
        (["kept", "scores"], "The kept rows are here, best first; the scores of all rows are here too."),
        (["scores"], "The texts are not here, only the scores of every row."),
    ],
)
def test_render_card_says_what_is_here(names, told):
    configs = {name: Config(1, [], [f"{name}.parquet"]) for name in names}
    card = render_card(make_selection(), make_record(), configs=configs)
    assert told in card.body
    assert [config["config_name"] for config in card.metadata["configs"]] == names
    assert card.metadata["configs"][0]["default"] is True


@given(st.lists(HOSTILE, min_size=1, max_size=4, unique=True))
@example(["0\x85"])
@example(["a\u2028b", "\u2029"])
@settings(max_examples=40)
def test_no_name_of_a_column_gets_out_of_the_front_matter(names):
    from datasets import DatasetInfo, Features, Value

    features = Features({name: Value("string") for name in names})
    infos = {"kept": DatasetInfo(features=features)}
    card = render_card(make_selection(), make_record(), CardFacts.of("mit", "en"), infos=infos)
    front, body = split_front_matter(str(card))
    front = yaml.safe_load(front)
    assert set(front) == set(card.metadata)
    assert [feature["name"] for feature in front["dataset_info"]["features"]] == names
    assert body == "\n" + card.body


def test_mined_configs_leave_out_a_side_that_load_dataset_could_not_open(tmp_path):
    selection = make_selection()
    nothing = selection.dropped.select([])
    assert list(mined_configs(replace(selection, dropped=nothing))) == ["kept"]
    # The dropped rows alone would be what load_dataset(folder) gives.
    assert list(mined_configs(replace(selection, kept=selection.kept.select([])))) == ["kept", "dropped"]


def test_description_of_several_shards_changes_with_each_of_them():
    configs = {"kept": Config(2, [], ["a.parquet", "b.parquet"])}
    told = [
        render_card(make_selection(), make_record(), configs=configs, digests={"a.parquet": a, "b.parquet": b})
        for a, b in (("1", "2"), ("1", "3"), ("2", "1"))
    ]
    assert len({card.metadata["configs"][0]["description"] for card in told}) == 3
