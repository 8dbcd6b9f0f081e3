"""Rows and files that look as if they held a secret, found by the usual formats of tokens and keys.

Only shapes are known here, so a hit is a reason to look and not a proof. What was found is never repeated. The time
grows with the text and no faster, whatever stands in it.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import Dataset

from im_datasets.selection.select import ROW


class _Format(NamedTuple):
    """A kind of secret: texts of which one stands in it, which are quick to look for, and its shape."""

    marks: tuple[str, ...]
    shape: re.Pattern[str]


def _format(marks: str, shape: str) -> _Format:
    return _Format(tuple(marks.split()), re.compile(shape))


# Prefixes, alphabets and lengths as the issuers' pages tell them, or else as the tokens that people show have them.
# What must be followed by something is bounded, or begins where nothing of its own kind stands before it: else a text
# of beginnings takes the square of its length.
_FORMATS = {
    "Hugging Face token": _format("hf_ api_org_", r"\b(?:hf_(?:oauth_)?[A-Za-z0-9]{30}|api_org_[A-Za-z0-9]{30})"),
    "GitHub token": _format(
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60})"
    ),
    "GitLab token": _format(
        "glpat- gldt- glrt- glptt- glft- glimt- glcbt- glagent- glsoat- gloas-",
        r"\bgl(?:pat|dt|rt|ptt|ft|imt|cbt|agent|soat|oas)-[\w-]{20}",
    ),
    "OpenAI or Anthropic key": _format("sk-", r"\bsk-(?=[\w-]{0,31}\d)[\w-]{32}"),
    "AWS access key": _format("AKIA ASIA", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    # 40 of base64, which other things are too: only after its name or within a line or two of its id.
    "AWS secret key": _format(
        "AKIA ASIA secret Secret SECRET",
        r"(?:\b(?:AKIA|ASIA)[A-Z0-9]{16}\b[\s\S]{1,80}?"
        r"|(?i:secret_?(?:access_?)?key)[\"'\s:=,>]{1,8})"
        r"(?<![A-Za-z0-9/+])(?![a-f0-9]{40}|[A-Z0-9]{40}|[a-z/]{40})[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
    ),
    "Azure storage key": _format(
        "ccount", r"(?i:account_?key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?[A-Za-z0-9+/]{86}==(?![A-Za-z0-9+/=])"
    ),
    "Azure access signature": _format("sig=", r"\bsv=20\d\d-\d\d-\d\d&[^\s\"'<>]{0,500}?(?<=&)sig=[A-Za-z0-9%+/]{42}"),
    "Google API key": _format("AIza", r"\bAIza[\w-]{35}"),
    "Google access token": _format("ya29.", r"\bya29\.[\w-]{30}"),
    "Google client secret": _format("GOCSPX-", r"\bGOCSPX-[\w-]{28}"),
    "Slack token": _format("xox", r"\bxox[abeoprs](?:\.xox[bp])?-[\w-]{10}"),
    "Slack app token": _format("xapp-", r"\bxapp-\d-[A-Z0-9]{8,16}-\d{8,16}-[a-f0-9]{32}"),
    "Slack webhook": _format(
        "hooks.slack.com",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/[TE][A-Z0-9]{7,15}/[A-Z0-9]{8,20}/(?!X{20})[A-Za-z0-9]{20}",
    ),
    "Discord bot token": _format(
        # A user's number in base64, of which every fourth letter is one of three; the time; a signature.
        ".",
        r"[MNO](?<![\w-].)[A-Za-z0-9]{3}(?:[MNO][A-Za-z0-9]{3}){5}(?:[MNO][A-Za-z0-9]{1,3})?\.[\w-]{6}\.[\w-]{27,40}(?![\w-])",
    ),
    "Discord webhook": _format("/webhooks/", r"\bdiscord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/\d{17,20}/[\w-]{60}"),
    "Telegram bot token": _format(
        ":", r"\d(?<![\w-].)\d{7,9}:(?=[\w-]{0,34}\d)(?=[\w-]{0,34}[A-Z])(?=[\w-]{0,34}[a-z])[\w-]{35}(?![\w-])"
    ),
    "Databricks token": _format("dapi", r"\bdapi[a-f0-9]{32}(?![a-f0-9])"),
    "Groq key": _format("gsk_", r"\bgsk_[A-Za-z0-9]{48}"),
    "xAI key": _format("xai-", r"\bxai-[A-Za-z0-9]{64}"),
    "NVIDIA key": _format("nvapi-", r"\bnvapi-[\w-]{60}"),
    "Perplexity key": _format("pplx-", r"\bpplx-[A-Za-z0-9]{40}"),
    "Replicate token": _format("r8_", r"\br8_[A-Za-z0-9]{37}"),
    "LangSmith key": _format("lsv2_", r"\blsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}"),
    "Stripe key": _format("k_live_", r"\b[rs]k_live_[A-Za-z0-9]{20}"),
    "Shopify token": _format("shp", r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    "npm token": _format("npm_", r"\bnpm_[A-Za-z0-9]{36}"),
    "PyPI token": _format("pypi-AgEI", r"\bpypi-AgEI[\w-]{50}"),
    "Docker token": _format("dckr_", r"\bdckr_(?:pat|oat)_[\w-]{27}"),
    "Vault token": _format("hvs. hvb.", r"\bhv[sb]\.[\w-]{24}"),
    "Grafana token": _format("glsa_", r"\bglsa_[A-Za-z0-9]{32}_[a-f0-9]{8}"),
    "Linear key": _format("lin_api_", r"\blin_api_[A-Za-z0-9]{40}"),
    "SendGrid key": _format("SG.", r"\bSG\.[\w-]{22}\.[\w-]{43}"),
    "DigitalOcean token": _format("_v1_", r"\bdo[opr]_v1_[a-f0-9]{64}"),
    "private key": _format("PRIVATE KEY", r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"),
    "password in an address": _format(
        "://",
        r"://(?<=[a-z0-9].{3})[^\s:/@]*:(?!\W{0,9}(?:password|pass|pwd|secret|token)\b)"
        r"[^\s:/@${}<>\[\]*]{3,}@[\w.-]",
    ),
    "JSON web token": _format("eyJ", r"eyJ(?<![\w-]...)[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10}"),
}
# As JSON and program texts write them, perhaps one in another: a line break before a token would else be a letter.
_ESCAPE = re.compile(r"\\+(?:u00([0-7][0-9a-fA-F])|(.))", re.DOTALL)
_LISTED = 20
_TOGETHER = 200
"""Rows that are looked through at once."""


@dataclass(frozen=True)
class Finding:
    """Rows of one column, or lines of one file, that look as if they held one kind of secret.

    Attributes:
        kind: What it looks like.
        column: The column, or the file.
        rows: ``im_row`` of the rows where there is one, else their place, in their order; lines of a file, from 1.
        is_file: Whether it is a file.
    """

    kind: str
    column: str
    rows: list[int]
    is_file: bool = False

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.rows[:_LISTED]))
        more = f" and {len(self.rows) - _LISTED} more" if len(self.rows) > _LISTED else ""
        article = "an" if self.kind.startswith(("A", "E", "I", "NV", "O", "npm", "x")) else "a"
        place, unit = ("file", "line") if self.is_file else ("column", "row")
        return f"{place} {self.column!r} holds what looks like {article} {self.kind} in {unit} {listed}{more}"


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
        pairs = zip(numbers, _texts(rows, column), strict=False)
        while some := list(islice(pairs, _TOGETHER)):
            # Nearly always there is none in all of them.
            if looks_like("\n".join(text for _, text in some)):
                for number, text in some:
                    for kind in looks_like(text):
                        hits[kind, column].append(int(number))
    return [Finding(kind, column, places) for (kind, column), places in hits.items()]


def find_secrets_in_files(files: Mapping[str, str]) -> list[Finding]:
    r"""Look through texts that go public beside the rows, such as card and manifest.

    Args:
        files: Name → text.

    Returns:
        One finding per kind and file.

    Example:
        >>> print(*find_secrets_in_files({"README.md": "See\nhttps://me:s3cret@example.org/x"}))
        file 'README.md' holds what looks like a password in an address in line 2
    """
    findings = []
    for name, text in files.items():
        for kind in looks_like(text):
            marks, shape = _FORMATS[kind]
            lines = text.splitlines()
            places = [place for place, line in enumerate(lines, 1) if shape.search(_unescaped(line))]
            # What goes over several lines begins at the first that has a mark.
            marked = (place for place, line in enumerate(lines, 1) if any(mark in line for mark in marks))
            findings.append(Finding(kind, name, places or [next(marked, 1)], is_file=True))
    return findings


def looks_like(text: str) -> list[str]:
    """The kinds of secrets that a text looks as if it held, in the order of the alphabet.

    Example:
        >>> looks_like("git+https://me:s3cret@example.org/x")
        ['password in an address']
    """
    plain = _unescaped(text)
    return sorted(
        kind
        for kind, (marks, shape) in _FORMATS.items()
        if any(mark in plain for mark in marks) and shape.search(plain)
    )


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else "\n" if escape[2] in "nrt" else escape[2]


def _texts(rows: Dataset, column: str) -> Iterator[str]:
    """Every value of a column as text, in row order; empty where it holds none."""
    # As Arrow holds them: no media is opened, and of one with its bytes inside only its path is looked at.
    table = rows.select_columns([column]).with_format("arrow")
    if not _may_hold_text(rows.features.arrow_schema.field(column).type):
        return
    for batch in table.iter(batch_size=100):
        for value in batch[column].to_pylist():
            yield value if isinstance(value, str) else "\n".join(_lines(value))


def _may_hold_text(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if pa.types.is_nested(kind):
        return any(_may_hold_text(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _lines(value: Any) -> Iterator[str]:
    """The texts of a nested value, those of a field after its name."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            lines = list(_lines(inner))
            yield f"{name}: {lines[0]}" if lines else str(name)
            yield from lines[1:]
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _lines(inner)
