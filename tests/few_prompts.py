"""A plugin of pytest: searches retain every twentieth prompt.

A tokenizer of bytes makes a hundred tokens of each prompt, and searches read all.
"""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def few_retained_prompts() -> Iterator[None]:
    """Thin the bundled prompts."""
    from tarot.objectives import retained

    every = retained.bundled_prompts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retained, "bundled_prompts", lambda template: every(template)[::20])
        yield
