"""Rows and names made to break what reads, shows or prints them; drawn by hypothesis, the same each time."""

from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

LISTENER = "http://127.0.0.1:9/spy"
"""Where a page that opens or fetches what a row names would ask; the tests put a port of their own in."""

FORGED = "Kept 9,999 of 9,999 rows by the rule 'forged'."
"""A line of the summary that no run prints."""

MARKUP = [
    "<script>window.__pwned = 1</script>",
    "</script><script>window.__pwned = 1</script>",
    "<script src=http://127.0.0.1:9/spy.js></script>",
    '"><img src=x onerror="window.__pwned = 1">',
    "'><svg/onload=window.__pwned=1>",
    "<svg><animate onbegin=window.__pwned=1 attributeName=x dur=1s></svg>",
    '<iframe srcdoc="<script>parent.__pwned=1</script>"></iframe>',
    "<iframe src=http://127.0.0.1:9/spy></iframe>",
    "<link rel=stylesheet href=http://127.0.0.1:9/spy.css>",
    '<meta http-equiv=refresh content="0;url=http://127.0.0.1:9/spy">',
    "<base href=http://127.0.0.1:9/spy>",
    '<a href="javascript:window.__pwned=1">x</a>',
    "<form action=http://127.0.0.1:9/spy><button>",
    "<body onload=window.__pwned=1><details open ontoggle=window.__pwned=1>",
    "<style>@import 'http://127.0.0.1:9/spy'; *{background:url(http://127.0.0.1:9/spy)}</style>",
    "<template><noscript><plaintext><textarea><title></title></textarea>",
    "</td></tr></table></details></span></section></main>",
    "<!-- ", "-->", "]]>", "<![CDATA[", "<?php", "<!doctype html>", "&lt;script&gt;", "&#60;img src=x&#62;", "&amp",
]  # fmt: skip
MARKDOWN = [
    "[x](javascript:window.__pwned=1)",
    "![x](http://127.0.0.1:9/spy.png)",
    "[x]: http://127.0.0.1:9/spy 'x'",
    "<http://127.0.0.1:9/spy>",
    "http://127.0.0.1:9/spy",
    "www.example.com",
    "mailto:me@example.com",
    "| a | b |\n|---|---|",
    "\n# heading\n",
    "```\n~~~",
    "`",
    "\n---\n",
    "---\nlicense: mit\nconfigs: []\n---",
    "\n    code",
    "$$x$$ \\(x\\)",
    "[^1]",
]
TEMPLATES = ["{{7*7}}", "{% raw %}", "{%endraw%}", "${7*7}", "#{7*7}", "{{ x.__class__ }}", "{# x #}", "%(x)s", "{0}"]
MARKERS = [
    "<!-- im-datasets:begin summary -->",
    "<!-- im-datasets:end summary -->",
    "\n<!-- im-datasets:begin selection -->\nforged\n<!-- im-datasets:end selection -->\n",
]
CONTROLS = [
    "\x00", "\x07", "\x08" * 8, "\r", "\r\n", "\n" * 3, "\t", "\x0b\x0c", "\x1b[31m", "\x1b[2J\x1b[1;1H",
    "\x1b]8;;http://127.0.0.1:9/spy\x1b\\x\x1b]8;;\x1b\\", "\x1b]0;title\x07", "\x7f", "\x85", "\x9b31m", "\x9d0;x\x9c",
    "\u2028", "\u2029", "\u202e", "\u2066\u2067", "\u200b", "\u200d", "\ufeff", "\u00ad", "\u2060", "\ufffe", "\uffff",
    "\U000e0041\U000e007f", "\ud800", "\udfff\ud800", "e" + "\u0301" * 300, "\u0301\u0316" * 50,
]  # fmt: skip
NUMBERS = ["9" * 400, "1e309", "-0", "NaN", "Infinity", "0x10", "١٢٣", "½", "1" + "0" * 900]
NESTED = ['{"a":' * 60 + "1" + "}" * 60, "[" * 900, '{"role":"system","content":null}', '[{"from":"gpt","value":{}}]']
LONG = [
    *("x" * 1500, "漢" * 600, "a-" * 700, "👩‍👩‍👧‍👦" * 60, "word " * 400),
    *("\n" * 900, "!" * 900, "<" * 900, "`" * 900),
]
PLAIN = ["", " ", "\u3000", "Name a fruit.", "An apple is a fruit that grows on trees.", "café", "你好", "שלום"]
LINES = [
    f"\n{FORGED}\n",
    f"\r{FORGED}",
    f"\u2028{FORGED}",
    f"\x85{FORGED}",
    "\n  dropped         1  forged",
    "\npassed       files       forged",
]
PIECES = [*MARKUP, *MARKDOWN, *TEMPLATES, *MARKERS, *CONTROLS, *NUMBERS, *NESTED, *LONG, *PLAIN, *LINES]

EXAMPLES, ROWS = 40, 250
"""How often rows are drawn, and how many each time."""

_AT_ONCE = 3
"""Pieces of a text at most."""


def hostile_rows() -> list[tuple[str, str]]:
    """Ten thousand pairs of texts: each piece alone, then drawn ones, and one of a megabyte at the end."""
    rows: list[tuple[str, str]] = [(f"{piece}?", f"{piece}.") for piece in PIECES]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.text(max_size=30), min_size=20, max_size=40))
    def collect(texts: list[str]) -> None:
        # Long ones stand once in the rows, and many times in the last: a page of ten thousand would take minutes.
        pool = [*(piece for piece in PIECES if len(piece) < 300), *texts, *[""] * 60]
        # Chosen by a seed of their own: were every choice drawn, it would take longer than all tests of the rows.
        chance = Random(len(rows))
        rows.extend(
            ("".join(chance.choices(pool, k=_AT_ONCE)), "".join(chance.choices(pool, k=_AT_ONCE))) for _ in range(ROWS)
        )

    collect()
    megabyte = "".join(PIECES) * (2**20 // len("".join(PIECES)) + 1)
    return [*rows, (megabyte, megabyte)]
