"""Column names → which of them hold instruction and response.

Knows names only, never values. Where the names allow two readings it asks, and shows how to answer.
"""

from collections.abc import Iterable

from im_datasets.common.errors import ColumnsError

NAMES: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction", "instructions", "prompt", "question", "query", "problem"),
    "input": ("input", "inputs", "context"),
    "response": (
        "output",
        "outputs",
        "response",
        "responses",
        "completion",
        "answer",
        "answers",
        "target",
        "targets",
        "solution",
        "assistant",
    ),
    "instances": ("instances",),
    "chosen": ("chosen", "chosen_messages", "chosen_response"),
    "messages": ("messages", "conversations", "conversation", "dialogue", "dialog", "chat"),
    "history": ("history",),
    "system": ("system", "system_prompt"),
}
"""What a column may be called, in lower case, for each part of a pair."""

LONE_INSTRUCTION = ("input", "inputs", "context", "user", "human")
"""What the instruction may be called where nothing has one of its usual names."""

# What a column such as answer_id or output_tokens tells of a response, and is none.
_ATTRIBUTES = ("id", "ids", "format", "type", "length", "len", "tokens", "count", "score")

Candidates = dict[str, list[str]]
"""Part of a pair → the columns that may be it, by their names."""


def find_fields(names: Iterable[str]) -> dict[str, str]:
    """Field of `Columns` → column, for a dataset of these columns.

    Raises:
        ColumnsError: No known layout, or more than one reading.
    """
    names = list(names)
    candidates = {part: [name for name in names if _key(name) in accepted] for part, accepted in NAMES.items()}
    if not candidates["instruction"]:
        candidates["instruction"] = [name for name in names if _key(name) in LONE_INSTRUCTION]
        # Such a column is not the input of another one then.
        candidates["input"] = []
    answers = candidates["chosen"] + candidates["response"] + candidates["instances"]
    # Beside chosen answers a conversation is what they answer.
    answers += [] if candidates["chosen"] else candidates["messages"]
    if not answers:
        raise ColumnsError(_no_response(names, candidates))
    if len(answers) > 1:
        raise ColumnsError(_question("response", answers, [_fix(answer, candidates) for answer in answers]))
    return _fields(answers[0], candidates, names)


def is_message_tree(names: Iterable[str]) -> bool:
    """True for the columns of one message per row, as Open-Assistant exports them: text, role, parent."""
    keys = {_key(name) for name in names}
    return {"text", "role"} <= keys and any(key.startswith("parent") and key.endswith("id") for key in keys)


def _key(name: str) -> str:
    return name.strip().lower()


def _fields(answer: str, candidates: Candidates, names: list[str]) -> dict[str, str]:
    """The fields, once the column of the answer is settled."""
    rest = _context(answer, candidates)
    for part, columns in rest.items():
        if len(columns) > 1:
            settled = {other: few[0] for other, few in rest.items() if len(few) == 1 and other != part}
            fixes = [{**settled, part: name, _field_of(answer): answer} for name in columns]
            raise ColumnsError(_question(part, columns, fixes))
    fields = {part: columns[0] for part, columns in rest.items()}
    alone = answer in candidates["chosen"] + candidates["messages"]
    if not alone and "instruction" not in fields:
        raise ColumnsError(f"no instruction column in {names}. {_how({'instruction': 'q', _field_of(answer): answer})}")
    return {**fields, _field_of(answer): answer}


def _context(answer: str, candidates: Candidates) -> Candidates:
    """Candidates for what stands around the answer, without empty ones."""
    if answer in candidates["messages"]:
        parts = ["system"]
    elif answer in candidates["chosen"] and not candidates["instruction"]:
        parts = ["messages", "system"]
    elif answer in candidates["instances"]:
        parts = ["instruction", "system"]
    else:
        parts = ["instruction", "input", "history", "system"]
    return {part: candidates[part] for part in parts if candidates[part]}


def _field_of(answer: str) -> str:
    """The field of `Columns` that a column of this name fills."""
    key = _key(answer)
    return next((part for part in ("messages", "instances") if key in NAMES[part]), "response")


def _fix(answer: str, candidates: Candidates) -> dict[str, str]:
    return {**{part: names[0] for part, names in _context(answer, candidates).items()}, _field_of(answer): answer}


def _question(part: str, columns: list[str], fixes: list[dict[str, str]]) -> str:
    listed = " and ".join(repr(name) for name in columns)
    doubt = "could each be" if len(columns) > 1 else "may or may not be"
    return f"{listed} {doubt} the {part}; say which column is. {' Or: '.join(_how(fix) for fix in fixes)}"


def _how(fields: dict[str, str]) -> str:
    """The same choice for the command line and for Python."""
    option = ",".join(f"{field}={name}" for field, name in fields.items())
    call = ", ".join(f"{field}={name!r}" for field, name in fields.items())
    # A shell would part the option at the blank.
    quoted = f"'{option}'" if " " in option else option
    return f"Pass --columns {quoted} or columns=Columns({call})."


def _no_response(names: list[str], candidates: Candidates) -> str:
    variants = [name for name in names if _affix(name, "response") is not None]
    if not variants:
        question = candidates["instruction"][0] if candidates["instruction"] else "q"
        fix = _how({"instruction": question, "response": "a"})
        accepted = [name for part in ("response", "instances", "chosen", "messages") for name in NAMES[part]]
        return f"no response column in {names}; known names: {', '.join(accepted)}. {fix}"
    fixes = [_variant_fix(variant, names, candidates) for variant in variants]
    return _question("response", variants, fixes)


def _affix(name: str, part: str) -> str | None:
    """What ``en_output`` or ``output_en`` has beside a usual name ("en"); None where it has no such name."""
    first, _, rest = _key(name).partition("_")
    start, _, last = _key(name).rpartition("_")
    if start and last in NAMES[part]:
        return start
    return rest if rest and first in NAMES[part] and rest.split("_")[-1] not in _ATTRIBUTES else None


def _variant_fix(variant: str, names: list[str], candidates: Candidates) -> dict[str, str]:
    """The fields that share the variant's affix, else those of the usual names."""
    affix = _affix(variant, "response")
    fields: dict[str, str] = {}
    for part in ("instruction", "input"):
        same = [name for name in names if _affix(name, part) == affix] or candidates[part]
        fields |= {part: same[0]} if same else {}
    return {"instruction": "q", **fields, "response": variant}
