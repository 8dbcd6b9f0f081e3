"""Whole-dataset steps before scoring: one row per assistant turn, one row per answer of a message tree.

Both only rearrange rows; reading a row is left to ``columns``.
"""

from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value
from datasets.exceptions import DatasetGenerationError

from im_datasets.common.errors import ColumnsError, SourceError
from im_datasets.data.arrow import media_columns, undecoded
from im_datasets.data.columns import SOURCE_ROW, TURN, Columns
from im_datasets.data.conversations import ROLES
from im_datasets.data.layouts import is_message_tree
from im_datasets.data.pairs import answer_places

THREAD_FEATURES = Features(
    {
        # Not Sequence, which would store the messages as one dict of lists.
        "messages": List({"role": Value("string"), "content": Value("string")}),
        "message_id": Value("string"),
        SOURCE_ROW: Value("int64"),
    }
)

CHECKED = 100
"""Rows that are looked at to see whether a mapping makes sense."""


def prepare(dataset: Dataset, columns: Columns | None = None, *, every_turn: bool = False) -> tuple[Dataset, Columns]:
    """Bring a dataset into rows that can be scored, and say how to read them.

    Args:
        dataset: Any layout.
        columns: Where instruction and response stand; None finds them by name, and reads message trees.
        every_turn: Score every assistant turn instead of the last one of each row.

    Returns:
        The dataset, unchanged where nothing has to be rearranged, and its columns.

    Raises:
        ColumnsError: Instruction and response cannot be told.
        SourceError: One of their columns holds bytes that are no text.
    """
    if columns is None and is_message_tree(dataset.column_names):
        return threads(dataset)
    columns = columns or Columns.detect(dataset.column_names)
    texts = read_texts(dataset, columns)
    _check_utf8(texts)
    columns.check_instruction(texts[:CHECKED])
    return expand_turns(dataset, columns) if every_turn else (dataset, columns)


def read_texts(dataset: Dataset, columns: Columns) -> Dataset:
    """The columns of instruction and response alone, to be read: no image or sound among their turns is opened.

    Raises:
        ColumnsError: One is missing, or holds images, sounds or the like instead of texts.
    """
    columns.require(dataset.column_names)
    names = list(dict.fromkeys(columns.mapping.values()))
    if media := media_columns(dataset.features, names):
        kind = str(dataset.features[media[0]])
        raise ColumnsError(
            f"column {media[0]!r} holds {kind}, not text; name columns of text, as in --columns "
            "instruction=question,response=answer or Columns(instruction='question', response='answer')"
        )
    return undecoded(dataset.select_columns(names))


def _check_utf8(texts: Dataset) -> None:
    """Refuse texts that only call themselves so: in Parquet and Arrow files nothing holds them to it."""
    for name in texts.column_names:
        try:
            texts.data.column(name).validate(full=True)
        except pa.ArrowInvalid as error:
            raise SourceError(f"column {name!r} holds what is no UTF-8 text ({error}); write it anew") from error


def expand_turns(dataset: Dataset, columns: Columns) -> tuple[Dataset, Columns]:
    """One row per assistant turn.

    Args:
        dataset: Rows of conversations, of any layout.
        columns: How to read them.

    Returns:
        The same columns and ``im_source_row`` (row of ``dataset``) and ``im_turn`` (which assistant turn is the
        response, from 0); and columns that read them so. A row without any assistant turn stays, as one row.

    Raises:
        ColumnsError: A column is missing, or the turns were expanded before.
    """
    if TURN in dataset.column_names:
        raise ColumnsError(f"the dataset has a column {TURN!r}: its turns are expanded already; use it as it is")
    # Of 8 bytes each: there may be many millions.
    rows, turns = array("q"), array("q")
    batches = read_texts(dataset, columns).iter(batch_size=1000)
    conversations = (conversation for batch in batches for conversation in columns.conversations(batch))
    for row, conversation in enumerate(conversations):
        count = max(1, len(answer_places(conversation)))
        rows.extend([row] * count)
        turns.extend(range(count))
    row_of, turn_of = np.asarray(rows), np.asarray(turns)
    expanded = dataset.select(row_of).add_column(SOURCE_ROW, row_of).add_column(TURN, turn_of)
    return expanded, replace(columns, turn=TURN)


def threads(dataset: Dataset) -> tuple[Dataset, Columns]:
    """One row per assistant message of a message tree, with its ancestors as the conversation before it.

    Args:
        dataset: One message per row: ``text``, ``role``, the id of its parent (null for a root) and its own id.

    Returns:
        Rows of ``messages``, ``message_id`` and ``im_source_row`` (row of the assistant message), and their
        columns. A parent that is not in the dataset ends the thread there.

    Raises:
        ColumnsError: No such columns, an id that comes twice, or messages that are their own ancestors.
    """
    try:
        rows = Dataset.from_generator(_thread_rows, gen_kwargs={"dataset": dataset}, features=THREAD_FEATURES)
    except DatasetGenerationError as error:
        # `datasets` wraps whatever a generator raises.
        if isinstance(error.__cause__, ColumnsError):
            raise error.__cause__ from None
        raise
    return rows, Columns(messages="messages")


def _thread_rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    dataset = undecoded(dataset)
    names = _tree_names(dataset)
    ids, parents, texts, roles = (list(dataset[name]) for name in names)
    places = {message: row for row, message in enumerate(ids)}
    if not any(map(_answers, roles)):
        raise ColumnsError(f"no message of the tree has the role assistant; roles: {sorted(set(map(str, roles)))}")
    if len(places) != len(ids):
        raise ColumnsError(f"column {names[0]!r} of the message tree has the same id twice; ids must be unique")
    for row, role in enumerate(roles):
        if _answers(role):
            path = _path(row, parents, places)
            messages = [{"role": str(roles[step]), "content": texts[step]} for step in path]
            yield {"messages": messages, "message_id": str(ids[row]), SOURCE_ROW: row}


def _answers(role: Any) -> bool:
    return ROLES.get(str(role).lower()) == "assistant"


def _path(row: int, parents: list[Any], places: dict[Any, int]) -> list[int]:
    """Rows from the root to this message."""
    path = [row]
    while parents[path[-1]] in places:
        path.append(places[parents[path[-1]]])
        # Longer than there are messages: it runs in a circle.
        if len(path) > len(parents):
            raise ColumnsError(f"the message in row {row} is its own ancestor; the tree is broken")
    return path[::-1]


def _tree_names(dataset: Dataset) -> tuple[str, str, str, str]:
    """Columns of id, parent, text and role; the id is the column that the parents point into."""
    lower = {name.lower(): name for name in dataset.column_names}
    if not is_message_tree(lower):
        raise ColumnsError(f"no message tree in {dataset.column_names}; it needs text, role, parent_id and an id")
    parent = next(name for key, name in lower.items() if key.startswith("parent") and key.endswith("id"))
    parents = {value for value in dataset[parent] if value is not None}
    candidates = [name for key, name in lower.items() if key.endswith("id") and name != parent]
    if not candidates:
        raise ColumnsError(f"no id column beside {parent!r} in {dataset.column_names}; name it message_id")
    shared = {name: len(parents.intersection(dataset[name])) for name in candidates}
    return max(candidates, key=lambda name: shared[name]), parent, lower["text"], lower["role"]
