"""Prompts: the templates, what is refused, and what a chat template may not do unseen."""

import pytest
from tiny_models import CHAT_TEMPLATE, byte_level_tokenizer

from im_datasets.common.errors import IndicatorError, ModelError
from im_datasets.models.prompts import check_template, prompt_writer

USER = (("user", "Name a fruit."),)
TOOLS = (*USER, ("tool call", '{"find": "fruit"}'), ("tool", "apple"))


def chat(template: str | dict[str, str], *turns: tuple[str, str]) -> str | None:
    tokenizer = byte_level_tokenizer(chat_template=template)
    return prompt_writer("chat", tokenizer)(turns)


def test_prompt_writer_alpaca_is_the_published_text_without_input():
    assert prompt_writer("alpaca", byte_level_tokenizer())(USER) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nName a fruit.\n\n### Response:"
    )


def test_prompt_writer_none_is_the_chat_template_where_there_is_one():
    with_one, without = byte_level_tokenizer(chat_template=CHAT_TEMPLATE), byte_level_tokenizer()
    assert prompt_writer(None, with_one)(USER) == prompt_writer("chat", with_one)(USER)
    assert prompt_writer(None, without)(USER) == prompt_writer("alpaca", without)(USER)


def test_prompt_writer_keeps_braces_of_template_and_instruction():
    write = prompt_writer("{{0}} {instruction} {x}", byte_level_tokenizer())
    assert write((("user", "f{instruction}g {y}"),)) == "{{0}} f{instruction}g {y} {x}"


def test_prompt_writer_is_none_where_the_chat_template_refuses():
    assert chat(CHAT_TEMPLATE, *USER, ("narrator", "Night falls.")) is None


def test_prompt_writer_is_none_where_the_chat_template_drops_a_speaker():
    drops = "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% endif %}{% endfor %}"
    assert chat(drops, *USER) == "[Name a fruit.]"
    assert chat(drops, ("system", "Be short."), *USER) is None


def test_prompt_writer_gives_a_tool_call_to_the_assistant():
    plain = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"
    assert chat(plain, *TOOLS) == 'user=Name a fruit.;assistant={"find": "fruit"};tool=apple;'


def test_prompt_writer_writes_one_day_for_ever():
    dated = "{{ strftime_now('%Y-%m-%d') }} {% for m in messages %}{{ m.content }}{% endfor %}"
    assert chat(dated, *USER) == "2024-07-26 Name a fruit."


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('no') }}", "{{ nothing.here }}", "always the same", {"tool_use": CHAT_TEMPLATE}],
)
def test_prompt_writer_with_a_chat_template_that_writes_no_user_turn_is_an_error(template):
    with pytest.raises(ModelError, match="does not write a user turn; pass template='alpaca'"):
        chat(template)


def test_prompt_writer_without_chat_template_is_an_error():
    with pytest.raises(ModelError, match="has no chat template"):
        prompt_writer("chat", byte_level_tokenizer())


def test_check_template_takes_names_texts_and_none():
    for template in ("alpaca", "chat", "plain", "Q: {instruction}", None):
        check_template(template)
    with pytest.raises(IndicatorError, match=r"'ALPACA' is neither 'alpaca', 'chat', 'plain' nor a text"):
        check_template("ALPACA")
