"""Licences and languages as the Hub knows them, so that a card can be checked without asking it."""

import re

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
