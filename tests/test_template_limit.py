"""Chat templates are limited in steps, time and constants."""

import resource
import sys

import pytest
from checkpoint import CHAT_TEMPLATE, byte_tokenizer

from tarot.errors import TarotError
from tarot.models.chat import ChatRenderer
from tarot.models.template_limit import check_constants, limited_template

MESSAGES = [{"role": "user", "content": "hello"}]


def render(template: str) -> str:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return ChatRenderer(tokenizer, {})(MESSAGES)


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for i in range(99999) %}{% set x = range(99999) | sum %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 10 ** 10 ** 9 }}",
        "{{ 'a' * 10000000000 }}",
        "{{ 'a' | center(1e99 | int) }}",
        "{{ ('a' * 1000000) * 1000 }}",
        "{% set x = namespace(y='a' * 999) %}{% for i in range(40) %}{% set x.y = x.y ~ x.y %}{% endfor %}",
        "{{ 'a'.ljust(1000 * 1000 * 1000) }}",
        "{{ raise_exception('no') }}",
        "{% for i in range(10 ** 12) %}{% endfor %}",
        "{{ messages.__class__.__mro__ }}",
        "{% if %}",
        "{% generation %}{{ 2 ** 9 }}{% endgeneration %}",
    ],
)
def test_a_template_that_raises_or_runs_too_long_is_refused(template: str) -> None:
    with pytest.raises(TarotError, match="template"):
        render(template)
    assert render(CHAT_TEMPLATE) == "<user>hello</s><assistant>"


def test_the_memory_limit_ends_with_the_rendering() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with limited_template(), limited_template():
        assert resource.getrlimit(resource.RLIMIT_AS) != before
        with pytest.raises(MemoryError):
            bytearray(1 << 32)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_an_interrupt_after_the_memory_limit_is_set_lifts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    set_limit, before = resource.setrlimit, resource.getrlimit(resource.RLIMIT_AS)

    def interrupted(kind: int, limits: tuple[int, int]) -> None:
        set_limit(kind, limits)
        if limits != before:
            raise KeyboardInterrupt

    monkeypatch.setattr(resource, "setrlimit", interrupted)
    with pytest.raises(KeyboardInterrupt), limited_template():
        pass
    assert resource.getrlimit(resource.RLIMIT_AS) == before and sys.gettrace() is None


def test_other_code_is_not_limited_and_the_trace_function_is_restored() -> None:
    before = sys.gettrace()
    with limited_template(most=10):
        assert sum(i for i in range(1000)) == 499_500
        assert sys.gettrace() is not before
    assert sys.gettrace() is before


@pytest.mark.parametrize(
    "template", [CHAT_TEMPLATE, "{{ loop.index0 % 2 * 100 }}", "{{ unfinished", "2 ** 9 1000000000"]
)
def test_small_constants_pass(template: str) -> None:
    check_constants(template)
