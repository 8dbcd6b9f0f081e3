"""Every layout gives the right pairs, every odd row its reason, and every ambiguity a question."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_datasets.common.errors import ColumnsError
from im_datasets.data.columns import INPUT_JOIN, Columns
from im_datasets.data.conversations import HALF_PAIR, Reason
from im_datasets.data.layouts import NAMES

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "data"


def pair(row: dict[str, Any], columns: Columns | None = None) -> tuple[str, str, str]:
    """Instruction, response and reason of one row."""
    pairs = (columns or Columns.detect(row)).pairs({name: [value] for name, value in row.items()})
    return pairs.instructions[0], pairs.responses[0], pairs.reasons[0]


def chat(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def share(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"from": role, "value": value} for role, value in turns]


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Q", "output": "A"},
        {"instruction": "Q", "input": "", "output": "A"},
        {"Instruction": "Q", "Response": "A"},
        {"prompt": "Q", "completion": "A"},
        {"question": "Q", "answer": "A"},
        {"query": "Q", "response": "A"},
        {"problem": "Q", "solution": "A", "level": 3},
        {"inputs": "Q", "targets": "A"},
        {"input": "Q", "output": "A"},
        {"instruction": "Q", "context": None, "response": "A", "category": "qa"},
        {"id": 1, "messages": chat(("user", "Q"), ("assistant", "A"))},
        {"id": "1", "conversations": share(("human", "Q"), ("gpt", "A"))},
        {"conversation": share(("user", "Q"), ("chatgpt", "A"))},
        {"messages": [{"role": "user", "value": "Q"}, {"from": "gpt", "content": "A"}]},
        {
            "messages": [
                {"role": "user", "content": "Q", "tool_calls": None},
                {"role": "assistant", "content": "A"},
            ]
        },
        {"messages": {"role": ["user", "assistant"], "content": ["Q", "A"]}},
        {"messages": json.dumps(chat(("user", "Q"), ("assistant", "A")))},
        {"messages": [json.dumps(message) for message in chat(("user", "Q"), ("assistant", "A"))]},
        {"messages": np.array(chat(("user", "Q"), ("assistant", "A")), dtype=object)},
        {"prompt": chat(("user", "Q")), "completion": chat(("assistant", "A"))},
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "chosen": chat(("assistant", "A")), "rejected": chat(("assistant", "B"))},
        {"prompt": "Q", "chosen": chat(("user", "Q"), ("assistant", "A")), "messages": [], "rejected": "B"},
        {"chosen": chat(("user", "Q"), ("assistant", "A")), "rejected": chat(("user", "Q"), ("assistant", "B"))},
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        {"chosen_messages": chat(("user", "Q"), ("assistant", "A")), "rejected_messages": []},
        {"conversations": share(("human", "Q")), "chosen": {"from": "gpt", "value": "A"}, "rejected": {}},
        {"instruction": "Q", "input": "", "output": "A", "history": []},
        {"instruction": "Q", "output": "A", "history": None},
        {"instruction": "Q", "output": "A", "system": ""},
        {"instruction": "Q", "instances": [{"input": "", "output": "A"}]},
        {"instruction": "Q", "instances": json.dumps([{"input": "N/A", "output": "A"}])},
        {"instruction": "Q", "instances": {"input": [""], "output": ["A"]}},
        {"messages": chat(("user", [{"type": "text", "text": "Q"}]), ("assistant", [{"type": "text", "value": "A"}]))},
        {"instruction": "Q", "output": ["A"]},
    ],
    ids=lambda row: f"{'+'.join(row)}-{type(next(iter(row.values()))).__name__}",
)
def test_pairs_of_each_layout_are_the_same_pair(row: dict[str, Any]) -> None:
    assert pair(row) == ("Q", "A", "")


def test_pairs_join_input_after_a_blank_line() -> None:
    assert INPUT_JOIN == "\n\n"
    assert pair({"instruction": "Add.", "input": "1 + 1", "output": "2"})[0] == "Add.\n\n1 + 1"
    assert pair({"instruction": "", "input": "1 + 1", "output": "2"})[0] == "1 + 1"
    assert pair({"question": "Q", "context": "C", "answer": "A"})[0] == "Q\n\nC"


@pytest.mark.parametrize(
    "marker", ["<noinput>", '"<noinput>"', "< No Input >.", "No input required.", "(noinput)", "N/A", "None", " "]
)
def test_pairs_leave_out_markers_of_no_input(marker: str) -> None:
    assert pair({"instruction": "Q", "input": marker, "output": "A"}) == ("Q", "A", "")


@pytest.mark.parametrize("text", ["Na", "No input was read by the program", "The boy <noinput> the ball", "nothing"])
def test_pairs_keep_inputs_that_only_resemble_a_marker(text: str) -> None:
    assert pair({"instruction": "Q", "input": text, "output": "A"})[0] == f"Q\n\n{text}"


def test_pairs_keep_texts_as_they_stand() -> None:
    assert pair({"instruction": " Q\n", "output": "\tA \n"}) == (" Q\n", "\tA \n", "")


def test_pairs_render_several_turns_with_their_speakers() -> None:
    messages = chat(("system", "S"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2"))
    assert pair({"messages": messages}) == ("System: S\n\nUser: Q1\n\nAssistant: A1\n\nUser: Q2", "A2", "")


def test_pairs_drop_turns_after_the_last_answer() -> None:
    assert pair({"messages": chat(("user", "Q"), ("assistant", "A"), ("user", "Thanks."))}) == ("Q", "A", "")


def test_pairs_render_tool_turns() -> None:
    conversation = share(("human", "Q"), ("function_call", "{}"), ("observation", "9"), ("gpt", "A"))
    assert pair({"conversations": conversation, "tools": "[]"})[0] == "User: Q\n\nTool call: {}\n\nTool: 9"
    called = [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]
    messages = [*chat(("user", "Q")), *called, *chat(("tool", "9"), ("assistant", "A"))]
    assert pair({"messages": messages}) == ('User: Q\n\nTool call: [{"id": "1"}]\n\nTool: 9', "A", "")


def test_pairs_put_history_and_system_first() -> None:
    row = {"instruction": "Q2", "output": "A2", "history": [["Q1", "A1"]], "system": "S"}
    assert pair(row)[0] == "System: S\n\nUser: Q1\n\nAssistant: A1\n\nUser: Q2"
    assert pair({**row, "history": json.dumps([["Q1", "A1"]])})[0] == pair(row)[0]
    assert pair({**row, "history": chat(("user", "Q1"), ("assistant", "A1"))})[0] == pair(row)[0]


def test_pairs_leave_reasoning_out_and_take_the_text() -> None:
    answer = [{"type": "reasoning", "value": "hm"}, {"type": "text", "value": "A"}]
    assert pair({"messages": chat(("user", "Q"), ("assistant", answer))}) == ("Q", "A", "")


def test_pairs_keep_json_that_is_the_answer() -> None:
    for answer in ('{"a": 1}', "[1, 2]", '{"role": "admin"}', '[{"role": "admin", "content": "x"}]', '{"role": '):
        assert pair({"instruction": "Q", "output": answer}) == ("Q", answer, "")


def test_pairs_take_the_turn_that_is_asked_for() -> None:
    messages = chat(("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2"))
    columns = Columns.detect(["messages", "im_turn"])
    assert columns.turn == "im_turn"
    assert pair({"messages": messages, "im_turn": 0}, columns) == ("Q1", "A1", "")
    assert pair({"messages": messages, "im_turn": 1}, columns)[1] == "A2"
    assert pair({"messages": messages, "im_turn": 2}, columns)[2] == Reason.NO_ASSISTANT_TURN


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "Q", "output": None}, Reason.MISSING_RESPONSE),
        ({"instruction": "Q", "output": float("nan")}, Reason.MISSING_RESPONSE),
        ({"instruction": "Q", "instances": []}, Reason.MISSING_RESPONSE),
        ({"instruction": "Q", "output": ""}, Reason.EMPTY_RESPONSE),
        ({"instruction": "Q", "output": "<nooutput>"}, Reason.EMPTY_RESPONSE),
        ({"instruction": "Q", "output": "<No Output>"}, Reason.EMPTY_RESPONSE),
        ({"instruction": "Q", "output": " \n"}, Reason.BLANK_RESPONSE),
        ({"instruction": "Q", "output": 7}, Reason.RESPONSE_NOT_TEXT),
        ({"instruction": "Q", "output": True}, Reason.RESPONSE_NOT_TEXT),
        ({"instruction": "Q", "output": {"a": 1}}, Reason.RESPONSE_NOT_TEXT),
        ({"instruction": "Q", "answers": {"text": ["A"], "answer_start": [0]}}, Reason.RESPONSE_NOT_TEXT),
        ({"instruction": "Q", "answers": ["Paris", "paris town"]}, Reason.RESPONSE_NOT_TEXT),
        ({"instruction": ["Q1", "Q2"], "output": "A"}, Reason.INSTRUCTION_NOT_TEXT),
        ({"messages": chat(("user", ["Q1", "Q2"]), ("assistant", "A"))}, Reason.INSTRUCTION_NOT_TEXT),
        ({"instruction": "Q", "output": "half \ud83d"}, Reason.BROKEN_TEXT),
        ({"instruction": f"Q{HALF_PAIR}", "output": "A"}, Reason.BROKEN_TEXT),
        ({"instruction": None, "output": "A"}, Reason.MISSING_INSTRUCTION),
        ({"instruction": " ", "input": "<noinput>", "output": "A"}, Reason.MISSING_INSTRUCTION),
        ({"instruction": 5, "output": "A"}, Reason.INSTRUCTION_NOT_TEXT),
        ({"instruction": "Q", "input": {"a": 1}, "output": "A"}, Reason.INSTRUCTION_NOT_TEXT),
        ({"instruction": "Describe it.", "input": "[Image of a cat]", "output": "A"}, Reason.PLACEHOLDER),
        ({"instruction": "<image>Who is it?", "output": "A"}, Reason.PLACEHOLDER),
        ({"instruction": "What is it?<audio>", "output": "A"}, Reason.PLACEHOLDER),
        ({"instruction": "Look.\n<video>\nWell?", "output": "A"}, Reason.PLACEHOLDER),
        ({"instruction": "Draw.", "output": "![a cat](cat.png)"}, Reason.PLACEHOLDER),
        ({"instruction": "Draw.", "output": "<image>"}, Reason.PLACEHOLDER),
        ({"instruction": "Who are you?", "output": "I am {{name}}."}, Reason.TEMPLATE),
        ({"instruction": "你是谁", "output": "我是{{name}}"}, Reason.TEMPLATE),
        ({"messages": chat(("user", "Q"))}, Reason.NO_ASSISTANT_TURN),
        ({"messages": []}, Reason.NO_ASSISTANT_TURN),
        ({"messages": None}, Reason.NO_ASSISTANT_TURN),
        ({"messages": "Only a prompt."}, Reason.NO_ASSISTANT_TURN),
        ({"messages": chat(("assistant", "A"))}, Reason.MISSING_INSTRUCTION),
        ({"messages": chat(("user", "Q"), ("assistant", None))}, Reason.MISSING_RESPONSE),
        ({"messages": chat(("user", "Q"), ("assistant", 7))}, Reason.RESPONSE_NOT_TEXT),
        ({"messages": chat(("user", [{"type": "image"}]), ("assistant", "A"))}, Reason.PLACEHOLDER),
        ({"messages": [{"role": "user", "content": "Q"}, {"content": "A"}]}, Reason.UNREADABLE),
        ({"messages": 5}, Reason.UNREADABLE),
        ({"messages": {"role": ["user"], "content": []}}, Reason.UNREADABLE),
        ({"messages": '[{"role": "user", '}, Reason.BROKEN_JSON),
        ({"conversations": share(("human", "Q"), ("function_call", "{}"))}, Reason.ONLY_TOOL_CALLS),
        ({"instruction": "Q", "output": "A", "history": [["Q"]]}, Reason.UNREADABLE),
        ({"instruction": "Q", "instances": 5}, Reason.UNREADABLE),
    ],
    ids=lambda value: str(value)[:60],
)
def test_pairs_give_the_reason_of_an_unscorable_row(row: dict[str, Any], reason: Reason) -> None:
    assert pair(row) == ("", "", str(reason))


@pytest.mark.parametrize(
    "answer",
    [
        "<li>{{ item.name }}</li>",
        "Use `{{ name }}` in the template.",
        "{% for x in y %}{{ x.name }}{% endfor %}",
        "int a[2][2] = {{1, 2}, {3, 4}};",
        r"\frac{{ab}}{c}",
        "Use the <video> tag, as in <video> controls.",
        '<img src="image.jpg">',
    ],
)
def test_pairs_keep_code_that_looks_like_a_template_or_placeholder(answer: str) -> None:
    assert pair({"instruction": "How does the <audio> tag work?", "output": answer})[1:] == (answer, "")


@pytest.mark.parametrize(
    ("names", "part", "fixes"),
    [
        (
            ["instruction", "input", "response", "output"],
            "'response' and 'output' could each be the response",
            ["instruction=instruction,input=input,response=output", "response='response'"],
        ),
        (["prompt", "completion", "messages"], "'completion' and 'messages'", ["messages=messages"]),
        (["prompt", "response", "chosen"], "'chosen' and 'response'", ["response=chosen"]),
        (["prompt", "question", "answer"], "'prompt' and 'question' could each be the instruction", ["question,"]),
        (
            ["instruction", "input", "context", "output"],
            "'input' and 'context' could each be the input",
            ["context"],
        ),
        (["messages", "conversations"], "'messages' and 'conversations'", ["messages=conversations"]),
        (["question", "Response", "response"], "'Response' and 'response'", ["response=Response"]),
        (
            ["en_instruction", "en_input", "en_output", "zh_instruction", "zh_input", "zh_output"],
            "'en_output' and 'zh_output'",
            ["instruction=zh_instruction,input=zh_input,response=zh_output"],
        ),
        (
            ["question", "answer_a", "answer_b"],
            "'answer_a' and 'answer_b'",
            ["instruction=question,response=answer_b"],
        ),
        (["prompt", "model_output"], "'model_output' may or may not be the response", ["response=model_output"]),
    ],
)
def test_detect_asks_where_names_allow_two_readings(names: list[str], part: str, fixes: list[str]) -> None:
    with pytest.raises(ColumnsError, match=re.escape(part)) as caught:
        Columns.detect(names)
    for fix in fixes:
        assert fix in str(caught.value)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["q", "a"], r"no response column in \['q', 'a'\].*columns=Columns\(instruction='q', response='a'\)"),
        (["id", "prompt"], "no response column .*--columns instruction=prompt,response=a"),
        (["question_id", "answer_id", "choices"], "no response column"),
        (["answer"], r"no instruction column in \['answer'\]"),
        (["instances"], "no instruction column"),
        ([], "no response column"),
        (["message_id", "parent_id", "text", "role"], "messages of a tree.*threads"),
        (["im_quality", "im_output"], "no response column"),
    ],
)
def test_detect_refuses_unknown_layouts(names: list[str], match: str) -> None:
    with pytest.raises(ColumnsError, match=match):
        Columns.detect(names)


def test_detect_answers_its_own_questions() -> None:
    with pytest.raises(ColumnsError) as caught:
        Columns.detect(["instruction", "input", "response", "output"])
    options = re.findall(r"--columns (\S+)", str(caught.value))
    assert [Columns.parse(option).response for option in options] == ["response", "output"]


def test_parse_reads_the_command_line_form() -> None:
    assert Columns.parse("instruction=q, response=a,input=c") == Columns("q", "a", "c")
    assert Columns.parse("messages=my chat").messages == "my chat"


@pytest.mark.parametrize("text", ["instruction", "instruction=", "asks=q,response=a", "response=a,response=b"])
def test_parse_refuses_anything_else(text: str) -> None:
    with pytest.raises(ColumnsError, match=r"cannot read .*write each of instruction, response"):
        Columns.parse(text)


def test_columns_without_a_response_are_refused() -> None:
    with pytest.raises(ColumnsError, match="does not say where the response stands"):
        Columns(instruction="q")


def test_pairs_refuse_a_missing_column() -> None:
    with pytest.raises(ColumnsError, match=r"no column \['a'\] in \['q'\]"):
        Columns("q", "a").pairs({"q": ["x"]})


def test_to_dict_says_what_was_taken() -> None:
    record = Columns.detect(["prompt", "chosen", "rejected"]).to_dict()
    assert record["layout"] == "preference"
    assert record["fields"] == {"instruction": "prompt", "response": "chosen"}
    assert record["notes"] == ["'chosen' is taken as the response"]
    assert json.loads(json.dumps(record)) == record
    assert Columns.detect(["conversations"]).to_dict()["notes"] == [
        "the last assistant turn is the response, everything before it the instruction"
    ]


def test_columns_are_plain_data() -> None:
    columns = Columns.detect(["instruction", "input", "output"])
    assert pickle.loads(pickle.dumps(columns)) == columns
    assert len({columns, Columns("instruction", "output", "input")}) == 1


@pytest.mark.parametrize(
    ("file", "layout", "unscorable"),
    [
        ("instructions.jsonl", "instruction and response", 6),
        ("chat.jsonl", "conversation", 6),
        ("sharegpt.json", "conversation", 2),
        ("preferences.jsonl", "preference", 1),
        ("evaluation.jsonl", "instruction and response", 0),
    ],
)
def test_pairs_of_the_example_data(file: str, layout: str, unscorable: int) -> None:
    text = (EXAMPLES / file).read_text(encoding="utf-8")
    rows = json.loads(text) if file.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    columns = Columns.detect(rows[0])
    pairs = columns.pairs({name: [row[name] for row in rows] for name in rows[0]})
    assert columns.layout == layout
    assert sum(map(bool, pairs.reasons)) == unscorable


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "from", "content", "value", "type", "text", "tool_calls", "input", "output", "x"]),
            inner | st.sampled_from(["user", "assistant", "gpt", "function_call", "image", "text"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)
values = json_values | json_values.map(json.dumps) | st.sampled_from(["<noinput>", "[", "{{x}}", "<image>"])
layouts = st.sampled_from(
    [
        ("instruction", "input", "output"),
        ("messages",),
        ("messages", "system"),
        ("conversations", "chosen", "rejected"),
        ("chosen", "rejected"),
        ("instruction", "instances"),
        ("instruction", "output", "history", "system"),
        ("messages", "im_turn"),
    ]
)


@pytest.mark.parametrize("kind", [[None], {"a": 1}, 5])
def test_a_part_of_content_whose_type_is_no_word_is_read_by_its_text(kind):
    batch = {"instruction": ["a"], "output": [[{"type": kind, "text": "b"}]]}
    pairs = Columns.detect(list(batch)).pairs(batch)
    assert (pairs.responses, pairs.reasons) == (["b"], [""])


@given(st.data(), layouts, st.integers(0, 6))
def test_pairs_survive_any_values_and_do_not_depend_on_the_batch(
    data: st.DataObject, names: tuple[str, ...], count: int
) -> None:
    batch = {name: data.draw(st.lists(values, min_size=count, max_size=count)) for name in names}
    columns = Columns.detect(names)
    pairs = columns.pairs(batch)
    assert len(pairs) == len(pairs.instructions) == len(pairs.responses) == count
    for instruction, response, reason in zip(pairs.instructions, pairs.responses, pairs.reasons, strict=True):
        assert (instruction, response) == ("", "") if reason else (instruction.strip() and response.strip())
        assert reason in {"", *map(str, Reason)}
    alone = [pair({name: batch[name][row] for name in names}, columns) for row in range(count)]
    assert alone == list(zip(pairs.instructions, pairs.responses, pairs.reasons, strict=True))


@given(st.text().filter(str.strip), st.text().filter(str.strip))
def test_pairs_of_plain_text_are_that_text_or_have_a_reason(instruction: str, response: str) -> None:
    found = pair({"instruction": instruction, "output": response})
    assert found == (instruction, response, "") or (found[:2] == ("", "") and found[2])


@given(st.lists(st.sampled_from([name for accepted in NAMES.values() for name in accepted] + ["x", "y"]), unique=True))
def test_detect_finds_columns_that_exist_or_asks(names: list[str]) -> None:
    try:
        columns = Columns.detect(names)
    except ColumnsError:
        return
    assert set(columns.mapping.values()) <= set(names)
    assert columns == Columns.detect(names[::-1])


def test_pairs_half_a_surrogate_pair_is_unscorable():
    columns = Columns(messages="messages")
    spelled = '[{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "\\ud83d"}]'
    assert columns.pairs({"messages": [spelled]}).reasons == ["broken text (half a surrogate pair)"]


def test_pairs_take_one_bare_string_and_all_text_parts_of_a_list() -> None:
    parts = [{"type": "text", "text": "One, "}, {"type": "text", "text": "two."}]
    assert pair({"instruction": "Q", "answers": ["Paris"]})[1:] == ("Paris", "")
    assert pair({"instruction": "Q", "output": parts})[1:] == ("One, two.", "")


def test_columns_refuse_one_column_for_two_fields() -> None:
    with pytest.raises(ColumnsError, match="names a column twice"):
        Columns.parse("instruction=x,response=x")


def test_check_instruction_asks_for_it_where_responses_hold_none() -> None:
    with pytest.raises(ColumnsError, match=r"'output' holds responses alone; name instruction= too"):
        Columns(response="output").check_instruction({"output": ["A", "B"]})
    talk = chat(("user", "Q"), ("assistant", "A"))
    Columns(response="chosen").check_instruction({"chosen": [talk, chat(("assistant", "A"))]})
    Columns(response="output").check_instruction({"output": []})
