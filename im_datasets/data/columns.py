"""Any raw layout → instruction and response.

Which columns to read is decided from their names alone, so that a batch of any size gives the same rows; what a
value looks like is met row by row in ``conversations``. Where names allow two readings, the user is asked.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from im_datasets.common.errors import ColumnsError
from im_datasets.data.conversations import (
    Reason,
    Turn,
    UnscorableRow,
    read_conversation,
    read_history,
    read_list,
    read_text_or_turns,
)
from im_datasets.data.layouts import NAMES, find_fields, is_message_tree
from im_datasets.data.pairs import Pairs, Spoken, is_media_reference, is_no_input, pair_at, question_at

INPUT_JOIN = "\n\n"
"""Between instruction and input: the blank line of the Alpaca template, without its headings."""

TURN = "im_turn"
"""Column of `expand_turns`: which assistant turn is the response, counted from 0."""

SOURCE_ROW = "im_source_row"
"""Column of `expand_turns` and `threads`: the row of the dataset that this row was made from."""


@dataclass(frozen=True)
class Columns:
    r"""Where instruction and response stand.

    A conversation gives its last assistant turn as the response and everything before it as the instruction: the
    bare text of a single user turn, else every turn as ``Role: text`` with a blank line between. Inputs that only
    say there is none (``<noinput>``, ``No input``, ``N/A``; case, quotes and brackets do not matter) are left out.

    Attributes:
        instruction: Column of the instruction, as text or messages.
        response: Column of the response, as text, a message or messages; messages that hold a whole conversation
            (``chosen`` often does) stand for the instruction too.
        input: Column of what the instruction is about; follows it after a blank line.
        messages: Column of a conversation.
        history: Column of earlier turns, as [question, answer] pairs or messages.
        system: Column of a system prompt; comes first where a conversation has none of its own.
        instances: Column of self-instruct instances, each with input and output; the first one is taken.
        turn: Column that says which assistant turn is the response, counted from 0; None takes the last.

    Raises:
        ColumnsError: No field says where the response stands, or two fields name one column.

    Example:
        >>> columns = Columns.detect(["instruction", "input", "output"])
        >>> columns.pairs({"instruction": ["Add."], "input": ["1 + 1"], "output": ["2"]}).instructions
        ['Add.\n\n1 + 1']
    """

    instruction: str | None = None
    response: str | None = None
    input: str | None = None
    messages: str | None = None
    history: str | None = None
    system: str | None = None
    instances: str | None = None
    turn: str | None = None

    def __post_init__(self) -> None:
        if not (self.response or self.messages or self.instances):
            raise ColumnsError(
                f"Columns({self.mapping}) does not say where the response stands; name response=, messages= or "
                "instances="
            )
        names = list(self.mapping.values())
        if len(set(names)) < len(names):
            raise ColumnsError(f"Columns({self.mapping}) names a column twice; name a column of its own for each")

    @classmethod
    def detect(cls, names: Iterable[str]) -> Self:
        """Find the columns by their names, in any case.

        Args:
            names: The dataset's column names; those that start with ``im_`` are this package's own.

        Raises:
            ColumnsError: The names are of no known layout, or two columns could be the same part; the message
                names them and shows how to say which.
        """
        names = list(names)
        own = [name for name in names if not name.startswith("im_")]
        if is_message_tree(own):
            raise ColumnsError(
                "the rows are single messages of a tree; make one row per answer first: "
                "dataset, columns = threads(dataset)"
            )
        columns = cls(**find_fields(own))
        # ``expand_turns`` wrote it: each row says which turn is its response.
        return replace(columns, turn=TURN) if TURN in names else columns

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``instruction=question,response=answer``, as the command line takes it.

        Raises:
            ColumnsError: Not of this form, or a part that does not exist or comes twice.
        """
        parts = [part.strip() for part in text.split(",") if part.strip()]
        accepted = [field.name for field in fields(cls)]
        mapping: dict[str, str] = {}
        for part in parts:
            field, _, name = (piece.strip() for piece in part.partition("="))
            if field not in accepted or not name or field in mapping:
                raise ColumnsError(
                    f"cannot read {part!r} in {text!r}; write each of {', '.join(accepted)} at most once, as in "
                    "instruction=question,response=answer"
                )
            mapping[field] = name
        return cls(**mapping)

    @property
    def mapping(self) -> dict[str, str]:
        """Field → column, of the fields that are set."""
        return {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name)}

    @property
    def layout(self) -> str:
        """The layout in words."""
        preference = self.response is not None and self.response.lower() in NAMES["chosen"]
        if self.messages:
            return "conversation with chosen answer" if preference else "conversation"
        if self.instances:
            return "self-instruct"
        if preference:
            return "preference"
        if self.history:
            return "instruction with history"
        return "instruction and response"

    @property
    def notes(self) -> list[str]:
        """What a reader of a record or card should know about this reading."""
        notes = {
            "messages": "the last assistant turn is the response, everything before it the instruction",
            "history": f"{self.history!r} comes before the instruction, turn by turn",
            "system": f"{self.system!r} is the system turn of the instruction",
            "input": f"{self.input!r} follows {self.instruction!r} after a blank line; markers such as <noinput> "
            "count as no input",
            "instances": "the first instance of each task is taken",
            "turn": "every assistant turn is a row of its own",
        }
        has_chosen = self.layout.endswith(("preference", "chosen answer"))
        chosen = [f"{self.response!r} is taken as the response"] if has_chosen else []
        # The last turn is then not the one that is taken.
        if self.turn or chosen:
            notes.pop("messages")
        return chosen + [notes[field] for field in self.mapping if field in notes]

    def to_dict(self) -> dict[str, Any]:
        """Layout, columns and notes as plain data for a record."""
        return {"layout": self.layout, "fields": self.mapping, "notes": self.notes}

    def require(self, names: Iterable[str]) -> None:
        """Check that the columns are there.

        Raises:
            ColumnsError: One is missing.
        """
        names = list(names)
        missing = [name for name in self.mapping.values() if name not in names]
        if missing:
            raise ColumnsError(f"no column {missing} in {names}; pass columns=Columns(...) with names of these")

    def pairs(self, batch: Mapping[str, Sequence[Any]]) -> Pairs:
        """Read the pairs of a batch, row by row.

        Args:
            batch: Columns of equal length n, as ``Dataset.map(batched=True)`` hands them over.

        Returns:
            Pairs of n rows; no value, however odd, is an error.

        Raises:
            ColumnsError: A column is missing.
        """
        return self._read(batch, pair_at)

    def questions(self, batch: Mapping[str, Sequence[Any]]) -> Pairs:
        """Read the instructions of a batch as ``pairs`` does, whatever the responses are.

        Args:
            batch: As for ``pairs``.

        Returns:
            Pairs of n rows without responses; of a conversation that nobody answers the first turn of the user.

        Raises:
            ColumnsError: A column is missing.
        """
        return self._read(batch, lambda turns, answer: (question_at(turns, answer), ""))

    def check_instruction(self, batch: Mapping[str, Sequence[Any]]) -> None:
        """Refuse a mapping of the response alone where the responses hold no conversation to take the instruction from.

        Args:
            batch: Some rows.

        Raises:
            ColumnsError: No row of them has an instruction.
        """
        if set(self.mapping) != {"response"}:
            return
        reasons = self.pairs(batch).reasons
        if reasons and all(reason == Reason.MISSING_INSTRUCTION for reason in reasons):
            raise ColumnsError(
                f"{self.response!r} holds responses alone; name instruction= too, as in --columns "
                f"instruction=q,response={self.response} or Columns(instruction='q', response={self.response!r})"
            )

    def conversations(self, batch: Mapping[str, Sequence[Any]]) -> list[list[Turn]]:
        """All turns of each row; no turns where the row cannot be read.

        Raises:
            ColumnsError: A column is missing.
        """
        conversations: list[list[Turn]] = []
        for row in self._rows(batch):
            try:
                conversations.append(_turns(row))
            except UnscorableRow:
                conversations.append([])
        return conversations

    def _rows(self, batch: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
        self.require(batch)
        mapping = self.mapping
        return [
            dict(zip(mapping, row, strict=True))
            for row in zip(*(batch[name] for name in mapping.values()), strict=True)
        ]

    def _read(self, batch: Mapping[str, Sequence[Any]], read: Callable[[list[Turn], int], tuple[Spoken, str]]) -> Pairs:
        pairs = Pairs([], [], [])
        for row in self._rows(batch):
            turn = row.get("turn")
            try:
                context, response = read(_turns(row), turn if isinstance(turn, int) else -1)
                reason = ""
            except UnscorableRow as problem:
                context, response, reason = (), "", str(problem.reason)
            pairs.contexts.append(context)
            pairs.responses.append(response)
            pairs.reasons.append(reason)
        return pairs


def _turns(row: dict[str, Any]) -> list[Turn]:
    """All turns of a row, whatever its layout."""
    if "instances" in row:
        row = {**row, **_first_instance(row["instances"])}
    turns = read_conversation(row["messages"]) if "messages" in row else []
    turns = (read_history(row["history"]) if "history" in row else []) + turns
    if "instruction" in row or "input" in row:
        turns = turns + _user_turn(row)
    if "response" in row:
        answer = read_text_or_turns(row["response"], "assistant")
        # A column of chosen answers often holds the whole conversation: its own question is the one it answers.
        turns = answer if any(turn.role == "user" for turn in answer) else turns + answer
    # A conversation's own system turn stands: that of the column would be a second one.
    if row.get("system") is None or any(turn.role == "system" for turn in turns):
        return turns
    return read_text_or_turns(row["system"], "system") + turns


def _user_turn(row: dict[str, Any]) -> list[Turn]:
    """The user's turn: instruction and input joined."""
    turns = read_text_or_turns(row.get("instruction"), "user")
    value = row.get("input")
    if value is None or (isinstance(value, str) and is_no_input(value)):
        return turns
    extras = read_text_or_turns(value, "user")
    # Several turns are a conversation, which cannot be joined to an instruction.
    extra = extras[0] if len(extras) == 1 else Turn("user", None, not_text=True)
    last = turns[-1] if turns else Turn("user", None)
    texts = [text for text in (last.text, extra.text) if text and text.strip()]
    media = last.media or extra.media or is_media_reference(extra.text or "")
    joined = Turn(last.role, INPUT_JOIN.join(texts), media, last.not_text or extra.not_text)
    return [*turns[:-1], joined]


def _first_instance(value: Any) -> dict[str, Any]:
    """Input and output of the first self-instruct instance; nothing where there is none."""
    instances = read_list(value)
    first = instances[0] if instances and isinstance(instances[0], Mapping) else {}
    return {"input": first.get("input"), "response": first.get("output")}
