"""Escaping, numbers for people, and files that appear whole."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markdown_it import MarkdownIt

from im_datasets.common.errors import OutputError
from im_datasets.common.untrusted import shown
from im_datasets.report.templates import (
    code_block,
    escape_markdown,
    html_environment,
    markdown_environment,
    template_path,
)

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NASTY = st.text(
    st.sampled_from("ab1 \\`*_{}[]()#+-.!|~:@/<>&\"'=$^\n\r\t\x00\u2028\u202e é漢") | st.characters(), max_size=60
)


def shown_text(markdown: str) -> str:
    inline = [token for token in MARKDOWN.parse(markdown) if token.type == "inline"]
    return "".join(c.content for token in inline for c in token.children if c.type != "html_inline")


@given(NASTY)
def test_escape_markdown_shows_the_text_and_nothing_else(text):
    tokens = MARKDOWN.parse("- " + escape_markdown(text))
    children = [child for token in tokens for child in token.children or ()]
    kinds = {t.type for t in tokens} | {c.type for c in children if c.content != "<!-- -->"}
    assert kinds <= {
        "bullet_list_open", "list_item_open", "paragraph_open", "inline", "text", "text_special",
        "paragraph_close", "list_item_close", "bullet_list_close",
    }  # fmt: skip
    assert shown_text("- " + escape_markdown(text)) == shown(text)


@given(NASTY)
def test_escape_markdown_leaves_nothing_that_becomes_a_link_by_itself(text):
    escaped = escape_markdown("http://x.example " + text + " www.x.example me@x.example mailto:me")
    assert not re.search(r"://|www\.|[^>\s]@", escaped, re.IGNORECASE)


@given(NASTY, NASTY)
def test_escape_markdown_stays_in_its_cell(left, right):
    rows = MARKDOWN.parse(f"| a | b |\n|---|---|\n| {escape_markdown(left)} | {escape_markdown(right)} |\n")
    assert [t.type for t in rows].count("td_open") == 2
    assert not any(t.type == "html_block" for t in rows)


@given(NASTY)
def test_code_block_cannot_be_closed_from_inside(text):
    tokens = MARKDOWN.parse(code_block(text) + "\n\nafter")
    assert [t.type for t in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]


@pytest.mark.parametrize("environment", [html_environment, markdown_environment])
def test_environments_refuse_an_undefined_name(environment):
    with pytest.raises(UndefinedError, match="'nothing' is undefined"):
        environment().from_string("{{ nothing }}").render()


def test_markdown_environment_does_not_run_what_a_value_holds():
    assert markdown_environment().from_string("{{ x }}").render(x="{{7*7}}") == "{{7\\*7}}"


def test_template_path_tells_a_missing_file():
    with pytest.raises(OutputError, match=r"template no\.html is missing .* reinstall im-datasets"):
        template_path("no.html")
