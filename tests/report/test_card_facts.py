"""Licences and languages as the Hub knows them, so that a card can be checked without asking it."""

from im_datasets.report.card_facts import missing_facts


def test_missing_facts_name_the_option():
    assert missing_facts("mit", "en") == []
    assert "--license" in missing_facts(None, "en")[0]
    assert "--language" in missing_facts("mit", "")[0]
