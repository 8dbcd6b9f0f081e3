"""Rows that look as if they held a secret, found by the usual formats of tokens and keys.

Only shapes are known here, so a hit is a reason to look and not a proof. What was found is never repeated.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from im_datasets.selection.select import ROW

_FORMATS = {
    "Hugging Face token": r"\b(?:hf_(?:oauth_)?[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,})",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})",
    "GitLab token": r"\bglpat-[\w-]{20,}",
    "OpenAI or Anthropic key": r"\bsk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{32,}",
    "AWS access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "Google API key": r"\bAIza[\w-]{35}",
    "Google access token": r"\bya29\.[\w-]{30,}",
    "Slack token": r"\bxox[abeoprs]-[\w-]{10,}",
    "Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{20,}",
    "npm token": r"\bnpm_[A-Za-z0-9]{36}",
    "PyPI token": r"\bpypi-AgEI[\w-]{50,}",
    "SendGrid key": r"\bSG\.[\w-]{22}\.[\w-]{43}",
    "DigitalOcean token": r"\bdo[opr]_v1_[a-f0-9]{64}",
    "private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s:/@]+:(?!\W*(?:password|pass|pwd|secret|token)\b)"
    r"[^\s:/@${}<>\[\]*]{3,}@[\w.-]+",
    "JSON web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
}
_KINDS = list(_FORMATS)
# One pass over each text; the number of the group that matches tells the kind.
_ANY = re.compile("|".join(f"({pattern})" for pattern in _FORMATS.values()))
_LISTED = 20


@dataclass(frozen=True)
class Finding:
    """Rows of one column that look as if they held one kind of secret.

    Attributes:
        kind: What it looks like.
        column: Where.
        rows: ``im_row`` of the rows where there is one, else their place, in their order.
    """

    kind: str
    column: str
    rows: list[int]

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.rows[:_LISTED]))
        more = f" and {len(self.rows) - _LISTED} more" if len(self.rows) > _LISTED else ""
        article = "an" if self.kind.startswith(("A", "E", "I", "O", "npm")) else "a"
        return f"column {self.column!r} holds what looks like {article} {self.kind} in row {listed}{more}"


def find_secrets(rows: Dataset) -> list[Finding]:
    """Look through every text of a dataset.

    Args:
        rows: Any features; nested texts are looked at too.

    Returns:
        One finding per kind and column, empty when nothing looks like a secret.

    Example:
        >>> rows = Dataset.from_dict({"q": ["a", "My key is AKIAABCDEFGHIJKLMNOP."]})
        >>> str(find_secrets(rows)[0])
        "column 'q' holds what looks like an AWS access key in row 1"
    """
    hits: dict[tuple[str, str], list[int]] = defaultdict(list)
    numbers = rows[ROW][:] if ROW in rows.column_names else range(len(rows))
    for column in rows.column_names:
        # A column without texts gives fewer values than there are rows: none.
        for number, text in zip(numbers, _texts(rows, column), strict=False):
            for kind in looks_like(text):
                hits[kind, column].append(int(number))
    return [Finding(kind, column, places) for (kind, column), places in hits.items()]


def looks_like(text: str) -> list[str]:
    """The kinds of secrets that a text looks as if it held, in the order of the alphabet.

    Example:
        >>> looks_like("git+https://me:s3cret@example.org/x")
        ['password in an address']
    """
    return sorted({_KINDS[match.lastindex - 1] for match in _ANY.finditer(text) if match.lastindex})


def _texts(rows: Dataset, column: str) -> Iterator[str]:
    """Every value of a column as text, in row order; empty where it holds none."""
    feature: Any = rows.features[column]
    # Features of several parts have no dtype; a text may lie in any of them.
    if getattr(feature, "dtype", None) not in {None, "string", "large_string", "json"} and not isinstance(
        feature, dict | list
    ):
        return
    for batch in rows.select_columns([column]).with_format("arrow").iter(batch_size=1000):
        for value in batch[column].to_pylist():
            yield value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
