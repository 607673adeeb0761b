"""Chat templates: a prompt contains the text of every message, or the template is refused."""

from typing import Any

import pytest
from checkpoint import byte_model, byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from tarot.errors import TarotError
from tarot.models.chat import SYSTEM_MOVED, ChatRenderer
from tarot.models.lm_eval_model import TarotLM

LOOP = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
STRIPPED = LOOP.replace("m['content']", "m['content'] | trim")
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
# As in Mistral's and Llama 2's templates.
SYSTEM_LAST = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set turns = messages %}{% endif %}{% for m in turns %}{% if m['role'] == 'user' %}[INST] "
    "{% if loop.last and system is defined %}{{ system }}\n\n{% endif %}{{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] | trim }}</s>{% endif %}{% endfor %}"
)
# As in Qwen3's: text before the end of a thought is left out.
THINKING = LOOP.replace("m['content']", "(m['content'].split('</think>') | last).lstrip('\\n')")
KEEPING = {"loop": LOOP, "stripped": STRIPPED, "system last": SYSTEM_LAST, "thinking": THINKING}
WITHOUT_SYSTEM = {
    "raises": NO_SYSTEM + LOOP,
    "alternates": ALTERNATING + STRIPPED,
    "drops": "{% for m in messages if m['role'] != 'system' %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}",
    "only names it": LOOP.replace("m['content']", "m['content'] if m['role'] != 'system' else 'a system text'"),
}
LOSING = {
    "parts": "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}",
    "the last turn alone": "<user>{{ messages[-1]['content'] }}",
    "the first turns alone": "{% for m in messages[:2] %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}",
    "no answers": "{% for m in messages if m['role'] != 'assistant' %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}",
    "backwards": LOOP.replace("in messages", "in messages | reverse"),
    "cut off": LOOP.replace("m['content']", "m['content'][:12]"),
    "small letters": LOOP.replace("m['content']", "m['content'] | lower"),
    "escaped": LOOP.replace("m['content']", "m['content'] | e"),
    "joined words": LOOP.replace("m['content']", "m['content'] | replace(' ', '')"),
    "in one line": LOOP.replace("m['content']", "m['content'] | replace('\n', ' ')"),
    "as JSON": LOOP.replace("m['content']", "m['content'] | tojson"),
    "nothing": "<user>",
    "raises": "{{ raise_exception('tools are required') }}",
    "undefined": "{{ tools.first.second }}",
    "divides": "{{ 1 // 0 }}",
    "adds": "{{ messages + 1 }}",
    "not allowed": "{{ messages.append.__globals__ }}",
    "too long": "{% for i in range(10 ** 9) %}{% endfor %}",
    "no template": "{% for %}",
}
MESSAGES = [
    {"role": "system", "content": "Name one colour.\n\n"},
    {"role": "user", "content": "Question: is <Ed> red & blue?\nAnswer:"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": 'Question: is Al redder than "Ed"?\nAnswer:'},
]


def renderer(template: str) -> ChatRenderer:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return ChatRenderer(tokenizer, {})


letters = st.text("aA1: \n", max_size=12)


@pytest.mark.parametrize("name", KEEPING | WITHOUT_SYSTEM)
@given(contents=st.lists(letters, min_size=4, max_size=4))
def test_every_text_is_in_the_prompt(name: str, contents: list[str]) -> None:
    render = renderer((KEEPING | WITHOUT_SYSTEM)[name])
    messages = [message | {"content": content} for message, content in zip(MESSAGES, contents, strict=True)]
    for chosen in (messages, messages[1:], messages[:2]):
        text = render(chosen)
        for message in chosen:
            assert message["content"].strip() in text


@pytest.mark.parametrize("name", KEEPING)
def test_a_template_that_keeps_all_messages_is_used_as_it_is(name: str) -> None:
    render = renderer(KEEPING[name])
    assert render(MESSAGES) == render.tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    assert not render.system_moved


@pytest.mark.parametrize("name", WITHOUT_SYSTEM)
def test_a_system_text_moves_into_the_first_user_message(name: str, caplog: pytest.LogCaptureFixture) -> None:
    render = renderer(WITHOUT_SYSTEM[name])
    render(MESSAGES[1:])
    assert not render.system_moved
    for _ in range(2):
        assert "<user>Name one colour.\n\nQuestion: is <Ed> red & blue?\nAnswer:" in render(MESSAGES)
    assert render.system_moved and len(caplog.records) == 1
    assert "Name one colour.\n\nQuestion" in render([MESSAGES[0] | {"content": "Name one colour."}, *MESSAGES[1:]])


@pytest.mark.parametrize("name", LOSING)
@pytest.mark.parametrize("begin", [0, 1])
def test_a_template_that_loses_text_is_refused(name: str, begin: int) -> None:
    with pytest.raises(TarotError, match="template") as error:
        renderer(LOSING[name])(MESSAGES[begin:])
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_lost_one_letter_answer_is_noticed() -> None:
    assert "A" in "".join(message["content"] for message in MESSAGES if message["role"] == "user")
    with pytest.raises(TarotError, match="the assistant message 'A'"):  # the message's own text, not the probe's
        renderer(LOSING["no answers"])(MESSAGES)


def test_a_begun_answer_is_continued() -> None:
    begun = [*MESSAGES, {"role": "assistant", "content": "The answer is"}]
    assert renderer(LOOP)(begun, add_generation_prompt=False).endswith("<assistant>The answer is")
    with pytest.raises(TarotError, match="final message"):
        renderer(LOSING["no answers"])([MESSAGES[1], begun[-1]], add_generation_prompt=False)


def test_the_lm_eval_model_uses_the_renderer() -> None:
    tokenizer: Any = byte_tokenizer()
    tokenizer.chat_template = WITHOUT_SYSTEM["raises"]
    lm = TarotLM(byte_model(layers=1), tokenizer=tokenizer)
    assert "description" not in lm.get_model_info()
    assert "<user>Name one colour." in lm.apply_chat_template(MESSAGES)
    assert lm.get_model_info()["description"] == SYSTEM_MOVED
