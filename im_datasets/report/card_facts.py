"""Licences and languages as the Hub knows them, so that a card can be checked without asking it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from im_datasets.common.errors import HubError

LICENCES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
    other
    """.split()  # noqa: SIM905 - a list would be one line each
)
"""From the Hub's documentation of repository licences."""


def check_licence(licence: str) -> None:
    """Refuse a licence that the Hub would not know.

    Args:
        licence: As the front matter names it.

    Raises:
        HubError: It is not in ``LICENCES``.

    Example:
        >>> check_licence("cc-by-4.0")
    """
    if licence not in LICENCES:
        raise HubError(
            f"the Hub knows no licence {licence!r}; pass one of its identifiers, such as cc-by-4.0, apache-2.0 or mit, "
            "'other' for a licence that it does not list, or 'unknown' (license=, --license)"
        )


def check_language(code: str) -> None:
    """Refuse a language that the Hub would not know.

    Args:
        code: As the front matter names it.

    Raises:
        HubError: Not a code of two or three letters (ISO 639), ``code`` or ``multilingual``.

    Example:
        >>> check_language("en")
    """
    if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", code):
        raise HubError(
            f"the Hub knows no language {code!r}; pass its code of two or three small letters, such as en or deu, "
            "'und' where it is not known, or 'multilingual' or 'code' (language=, --language)"
        )


@dataclass(frozen=True)
class CardFacts:
    """What nobody but the publisher or the source can know.

    Attributes:
        license: Licence id of the rows, as the Hub names it; left out and asked for when None.
        language: Language codes of the rows; left out and asked for when empty.
        pretty_name: Title of the dataset; None names the source.
        license_name: Name of a licence that the Hub calls ``other``.
        license_link: Where that licence stands.
        task_categories: The Hub's names of the tasks that the rows are for.
        tags: Beside those that this package sets.
        repo_id: Where the dataset lies on the Hub; None leaves out how to load and verify it.
        revision: The branch that it lies on; None is the default one.
        source_terms: What the source's own card says of ``license``, ``license_name``, ``license_link`` and
            ``pretty_name``; None where there is no such card.
    """

    license: str | None = None
    language: tuple[str, ...] = ()
    pretty_name: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    task_categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    repo_id: str | None = None
    revision: str | None = None
    source_terms: Mapping[str, str] | None = None

    @classmethod
    def of(cls, license: str | None = None, language: str | Sequence[str] | None = None, **more: Any) -> Self:
        """Facts with one language or several."""
        return cls(license or None, as_codes(language), **more)


NO_FACTS = CardFacts()


def as_codes(value: object) -> tuple[str, ...]:
    """One text or several, or none, as a tuple of those that say something."""
    values = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
    return tuple(text for text in values if isinstance(text, str) and text)


def missing_facts(license: str | None, language: str | Sequence[str] | None) -> list[str]:
    """What nobody but the publisher can know, and how to add it.

    Args:
        license: Licence id of the rows, or None.
        language: Language code or codes of the rows, or None.

    Returns:
        One sentence per missing fact.
    """
    hints = []
    if not license:
        hints.append(
            "the licence of the rows was not given; pass license= (--license), for example cc-by-4.0, "
            "as the source's terms allow"
        )
    if not language:
        hints.append("the language of the rows was not given; pass language= (--language), for example en")
    return hints


def check_facts(license: str | None, language: str | Sequence[str] | None) -> None:
    """Check what a card shall say before anything is computed.

    Raises:
        HubError: The Hub knows no such licence or language.
    """
    if license:
        check_licence(license)
    for code in as_codes(language):
        check_language(code)
