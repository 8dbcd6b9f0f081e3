"""What the cards of rows and source say of licence, languages and tasks; nothing is guessed."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from im_datasets.common.errors import ConflictError
from im_datasets.data.hub_repository import CARD
from im_datasets.data.source import HUB_ID
from im_datasets.hub.card_merge import read_front_matter, split_card
from im_datasets.hub.client import try_again
from im_datasets.report.card_facts import CardFacts, as_codes
from im_datasets.scoring.record import ScoringRecord

_TERMS = ("license", "license_name", "license_link", "pretty_name")

logger = logging.getLogger(__name__)


def read_facts(card: str) -> CardFacts:
    """What a card states; nothing where its front matter cannot be read, and no licence where it names several."""
    try:
        data = read_front_matter(split_card(card.replace("\r\n", "\n"))[0])
    except ConflictError:
        return CardFacts()
    codes = {name: as_codes(data.get(name)) for name in (*_TERMS, "language", "task_categories")}
    single: dict[str, Any] = {name: codes[name][0] for name in _TERMS if len(codes[name]) == 1}
    return CardFacts(**single, language=codes["language"], task_categories=codes["task_categories"])


def source_facts(record: ScoringRecord | None) -> CardFacts | None:
    """What the card of a source on the Hub states, at the revision that was scored.

    Args:
        record: Where the rows came from.

    Returns:
        None where the source is not on the Hub, or its card is not to be had.
    """
    source = record.source if record else {}
    if source.get("kind") != "hub" or not HUB_ID.fullmatch(str(source.get("id"))):
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    repo_id, revision = source["id"], source.get("revision")
    try:
        path = try_again(lambda: hf_hub_download(repo_id, CARD, repo_type="dataset", revision=revision), repo_id)
    except (EntryNotFoundError, HfHubHTTPError) as error:
        logger.warning("the card of the source %s cannot be read: %s", repo_id, type(error).__name__)
        return None
    return read_facts(Path(path).read_text(encoding="utf-8", errors="replace"))


def fill_facts(facts: CardFacts, nearest: list[CardFacts], source: CardFacts | None) -> CardFacts:
    """What the publisher gave, and for what was not given the first card that states it.

    Args:
        facts: From the publisher.
        nearest: Of cards of the rows themselves.
        source: Of the source's card, asked last.
    """
    cards = [*nearest, source] if source else nearest
    # A licence that is given brings along its name and link where a card of the rows states the very same one.
    candidates = (
        [c for c in nearest if c.license == facts.license] if facts.license else [c for c in cards if c.license]
    )
    licensed = candidates[0] if candidates else facts
    terms = {name: value for name in _TERMS if source and (value := getattr(source, name))}
    return replace(
        facts,
        license=licensed.license,
        license_name=facts.license_name or licensed.license_name,
        # Another name than the card's has another text.
        license_link=facts.license_link or (None if facts.license_name else licensed.license_link),
        language=facts.language or next((c.language for c in cards if c.language), ()),
        # The title of the source is that of another dataset.
        pretty_name=facts.pretty_name or next((c.pretty_name for c in nearest if c.pretty_name), None),
        task_categories=facts.task_categories or next((c.task_categories for c in cards if c.task_categories), ()),
        source_terms=terms or None,
    )
