"""The web page of `tarot ui`, built with Gradio: everything it loads comes from this machine."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from textwrap import shorten
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tarot.errors import TarotError, import_package

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import FastAPI, Request, Response
    from gradio import Blocks

    from tarot.edit.adapter import Adapter
    from tarot.evaluation.side_by_side import SideBySide

FONTS = ["system-ui", "sans-serif"]  # Gradio's own themes load theirs from Google
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""Content security policy: the browser loads nothing from other hosts, and sends nothing there."""

EXAMPLES = "Examples from the task; unchanged, the model gets them as tarot evaluate renders them"


def import_gradio() -> Any:
    """Return the package gradio, which takes seconds to import.

    Raises:
        TarotError: It is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read during the import
    return import_package("gradio", "tarot ui", "ui")


def build_page(
    side_by_side: "SideBySide",
    adapters: "Mapping[str, Adapter]",
    *,
    examples: Mapping[str, str] = MappingProxyType({}),
    strength: float = 1.0,
    title: str = "tarot",
) -> "Blocks":
    """Return the page: prompt, adapter and strength above, both texts below, beside each other.

    Args:
        side_by_side: writes the texts.
        adapters: the choices, by name; the first is chosen.
        examples: texts to click on, with the rendered prompt that the model gets if the text is not changed.
        strength: where the slider stands.
        title: heading of the page.

    Raises:
        TarotError: Gradio is not installed.
    """
    gr = import_gradio()

    def write(text: str, name: str, factor: float) -> Iterator[tuple[str, str]]:
        if not text.strip():
            yield "", ""
            return
        try:
            if text in examples:
                pairs = side_by_side.continue_prompt(examples[text], adapters[name], strength=factor)
            else:
                pairs = side_by_side.write(text, adapters[name], strength=factor)
            for pair in pairs:
                yield pair.base, pair.edited
        except TarotError as error:
            raise gr.Error(str(error)) from error

    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"# {title}")
        prompt = gr.Textbox(label="Prompt", lines=3, elem_id="prompt", info="Shift+Enter writes.")
        with gr.Row():
            choice = gr.Dropdown([*adapters], value=next(iter(adapters)), label="Adapter", elem_id="adapter")
            factor = gr.Slider(0, 1, strength, step=0.05, label="Strength", elem_id="strength")
        button = gr.Button("Write", variant="primary", elem_id="write")
        with gr.Row():
            labels = ("Base", "Edited")
            texts = [gr.Textbox(label=label, lines=8, interactive=False, elem_id=label.lower()) for label in labels]
        if examples:
            gr.Examples([[text] for text in examples], [prompt], label=EXAMPLES, example_labels=_label(list(examples)))
        gr.on(
            [button.click, prompt.submit, factor.change, choice.change],
            write,
            [prompt, choice, factor],
            texts,
            show_progress="hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )
    return page


def _label(texts: Sequence[str]) -> list[str]:
    """Return each text on one line, without the first lines that all of them share."""
    lines = [text.split("\n") for text in texts]
    shared = sum(1 for _ in takewhile(lambda each: len(set(each)) == 1, zip(*lines, strict=False)))
    return [shorten(" ".join(each[shared:]) or text, 100) for each, text in zip(lines, texts, strict=True)]


def make_app(page: "Blocks", hosts: Sequence[str]) -> "FastAPI":
    """Return the web application of a page, which answers only to these host names; `*` stands for any."""
    gr = import_gradio()
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def add_policy(request: "Request", call_next: "Callable[[Request], Awaitable[Response]]") -> "Response":
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    # Another site's script could otherwise reach this one under a name of its own (DNS rebinding).
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    theme = gr.themes.Default(font=FONTS, font_mono=["monospace"])
    mounted: FastAPI = gr.mount_gradio_app(app, page, path="/", theme=theme, footer_links=[], ssr_mode=False)
    return mounted
