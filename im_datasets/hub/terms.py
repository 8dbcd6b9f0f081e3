"""What the cards of rows and source say of licence, languages and tasks; nothing is guessed."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from im_datasets.common.errors import ConflictError
from im_datasets.data.source import HUB_ID
from im_datasets.hub.card_merge import read_front_matter, split_card
from im_datasets.hub.client import try_again
from im_datasets.report.card import CARD
from im_datasets.report.card_facts import CardFacts, as_codes
from im_datasets.scoring.record import ScoringRecord

_TERMS = ("license", "license_name", "license_link", "pretty_name")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stated:
    """What one card states.

    Attributes:
        license: Licence id; None where there is none, or several.
        license_name: Name of a licence that the Hub calls ``other``.
        license_link: Where that licence stands.
        language: Language codes.
        task_categories: Tasks.
        pretty_name: Title.
    """

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: tuple[str, ...] = ()
    task_categories: tuple[str, ...] = ()
    pretty_name: str | None = None

    @classmethod
    def of(cls, card: str) -> Self:
        """Read a card; one whose front matter cannot be read states nothing."""
        try:
            data = read_front_matter(split_card(card.replace("\r\n", "\n"))[0])
        except ConflictError:
            return cls()
        return cls(
            license=_only(data.get("license")),
            license_name=_only(data.get("license_name")),
            license_link=_only(data.get("license_link")),
            language=as_codes(data.get("language")),
            task_categories=as_codes(data.get("task_categories")),
            pretty_name=_only(data.get("pretty_name")),
        )

    def terms(self) -> dict[str, str]:
        """Licence and title, where stated."""
        return {name: value for name in _TERMS if (value := getattr(self, name))}


def _only(value: Any) -> str | None:
    values = as_codes(value)
    return values[0] if len(values) == 1 else None


def source_states(record: ScoringRecord | None) -> Stated | None:
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

    def fetch() -> str:
        return hf_hub_download(source["id"], CARD, repo_type="dataset", revision=source.get("revision"))

    try:
        path = try_again(fetch, source["id"])
    except (EntryNotFoundError, HfHubHTTPError) as error:
        logger.warning("the card of the source %s cannot be read: %s", source["id"], type(error).__name__)
        return None
    return Stated.of(Path(path).read_text(encoding="utf-8", errors="replace"))


def fill_facts(given: CardFacts, nearest: list[Stated], source: Stated | None) -> CardFacts:
    """What the publisher gave, and for what was not given the first card that states it.

    Args:
        given: From the caller.
        nearest: Cards of the rows themselves.
        source: The source's card, asked last.
    """
    cards = [*nearest, source] if source else nearest
    # A licence that is given brings along its name and link where a card of the rows states the very same one.
    known = [c for c in nearest if c.license == given.license] if given.license else [c for c in cards if c.license]
    licensed: CardFacts | Stated = known[0] if known else given
    return CardFacts(
        license=licensed.license,
        license_name=given.license_name or licensed.license_name,
        # Another name than the card's has another text.
        license_link=given.license_link or (None if given.license_name else licensed.license_link),
        language=given.language or next((c.language for c in cards if c.language), ()),
        pretty_name=given.pretty_name or next((c.pretty_name for c in nearest if c.pretty_name), None),
        task_categories=given.task_categories or next((c.task_categories for c in cards if c.task_categories), ()),
        tags=given.tags,
        repo_id=given.repo_id,
        revision=given.revision,
        source_terms=(source.terms() or None) if source else None,
    )
