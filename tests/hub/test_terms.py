"""Licence, languages and tasks come from the nearest card that states them, and from nowhere else."""

import pytest
from report_sample import make_record

from im_datasets.hub.terms import fill_facts, read_facts, source_facts
from im_datasets.report.card_facts import CardFacts

MINE = CardFacts(license="mit", language=("de",), pretty_name="Mine")
SOURCE = CardFacts(license="other", license_name="own", license_link="https://example.org", task_categories=("x",))


@pytest.mark.parametrize(
    ("card", "stated"),
    [
        ("---\nlicense: mit\nlanguage: en\n---\n", CardFacts(license="mit", language=("en",))),
        ("---\r\nlicense: mit\r\nlanguage: [en, de]\r\n---\r\n", CardFacts(license="mit", language=("en", "de"))),
        ("---\nlicense: [mit]\n---\n", CardFacts(license="mit")),
        ("---\nlicense: [mit, apache-2.0]\n---\n", CardFacts()),
        ("---\nlicense: 7\nlanguage: {a: b}\n---\n", CardFacts()),
        ("---\nlicense: [\n---\n", CardFacts()),
        ("# No front matter\n", CardFacts()),
        ("", CardFacts()),
    ],
)
def test_read_facts_gives_what_a_card_states(card, stated):
    assert read_facts(card) == stated


def test_fill_facts_takes_what_was_given_first():
    facts = fill_facts(CardFacts.of("cc0-1.0", "fr", tags=("t",), repo_id="me/x"), [MINE], SOURCE)
    assert (facts.license, facts.language, facts.pretty_name) == ("cc0-1.0", ("fr",), "Mine")
    assert (facts.license_name, facts.license_link, facts.task_categories) == (None, None, ("x",))
    assert (facts.tags, facts.repo_id) == (("t",), "me/x")
    assert facts.source_terms == {"license": "other", "license_name": "own", "license_link": "https://example.org"}


def test_fill_facts_takes_a_licence_with_its_name_and_link():
    facts = fill_facts(CardFacts(), [CardFacts(language=("en",))], SOURCE)
    assert (facts.license, facts.license_name, facts.license_link) == ("other", "own", "https://example.org")
    assert facts.language == ("en",)


def test_fill_facts_guesses_nothing():
    assert fill_facts(CardFacts(), [], None) == CardFacts()


def test_fill_facts_does_not_take_the_title_of_the_source():
    assert fill_facts(CardFacts(), [], CardFacts(pretty_name="Theirs")).pretty_name is None


def test_source_facts_reads_the_card_at_the_revision_that_was_scored(hub):
    old = hub.store.put("someone/rows", {"README.md": b"---\nlicense: mit\n---\n"}).sha
    hub.store.put("someone/rows", {"README.md": b"---\nlicense: gpl-3.0\n---\n"})
    source = {"kind": "hub", "id": "someone/rows", "revision": old}
    assert source_facts(make_record(source=source)).license == "mit"


@pytest.mark.parametrize("name", ["someone/none", "not an id"])
def test_source_facts_nothing_without_a_card(hub, name):
    hub.store.create("dataset", "someone/bare")
    assert source_facts(make_record(source={"kind": "hub", "id": name})) is None
    assert source_facts(make_record(source={"kind": "hub", "id": "someone/bare"})) is None
    assert source_facts(make_record()) is None
    assert source_facts(None) is None
