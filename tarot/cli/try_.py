"""`tarot try`: show base and edited output beside each other."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING, Annotated

from rich import box
from rich.live import Live
from rich.table import Table

from tarot.arguments import require_strength
from tarot.cli.console import out
from tarot.cli.models import load
from tarot.cli.options import (
    AdapterReference,
    ChatTemplate,
    Device,
    DeviceMap,
    Dtype,
    IncludePath,
    ModelReference,
    edit_option,
    prompt_option,
    single_name,
    task_option,
    tasks_option,
)
from tarot.cli.options import (
    limit as parse_limit,
)
from tarot.cli.progress import announce
from tarot.errors import TarotError

if TYPE_CHECKING:
    from tarot.evaluation.side_by_side import TextPair, TriedDocument

FEW_DOCUMENTS = 5
MAX_NEW_TOKENS = 40  # as in tarot.evaluation.side_by_side, without the import

Strength = Annotated[float, edit_option("--strength", metavar="NUMBER", help="Factor of the adapter's angles, 0 to 1.")]
MaxNewTokens = Annotated[
    int, prompt_option("--max-new-tokens", min=1, metavar="N", help="Most tokens to write after a prompt.")
]


def try_(
    model: ModelReference,
    adapter: AdapterReference,
    prompt: Annotated[
        str | None,
        prompt_option(
            "--prompt", metavar="TEXT", help="The prompt to answer.", show_default="each line of the standard input"
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        tasks_option(
            callback=lambda values: single_name(values) if values else None,
            metavar="NAME",
            help="Show the answers to the first documents that this lm-eval task evaluates.",
            show_default="none",
        ),
    ] = None,
    include_path: IncludePath = None,
    limit: Annotated[
        float | None,
        task_option(
            "--limit",
            parser=parse_limit,
            metavar="N|FRACTION",
            help="How many documents of the task: a number, or a fraction below 1.",
            show_default=str(FEW_DOCUMENTS),
        ),
    ] = None,
    strength: Strength = 1.0,
    apply_chat_template: ChatTemplate = True,
    max_new_tokens: MaxNewTokens = MAX_NEW_TOKENS,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
) -> None:
    """Show what the base and the edited model write, beside each other.

    To one prompt, to the documents of a task (with the log-probability of each answer), or to every line that you type.
    Ctrl-D ends it.
    """
    if prompt is not None and tasks:
        raise TarotError("Give --prompt or --tasks, not both.")
    if limit is not None and not tasks:
        raise TarotError("--limit counts the documents of a task; add --tasks.")
    if prompt is not None and not prompt.strip():
        raise TarotError("The prompt is empty.", hint="leave --prompt out to type prompts")
    require_strength(strength)
    announce("try")
    from tarot.edit.adapter import Adapter
    from tarot.evaluation.side_by_side import SideBySide, check_try_task

    edit = Adapter.from_pretrained(adapter)
    documents = FEW_DOCUMENTS if limit is None else limit
    for task in tasks or ():
        check_try_task(task, edit, include_path=include_path, limit=documents)
    loaded = load(model, device, dtype, device_map)
    edit.find_sites(loaded.model)  # raises if it does not fit
    side_by_side = SideBySide(loaded, apply_chat_template=apply_chat_template, max_new_tokens=max_new_tokens)
    edited = "edited" if strength == 1 else f"edited, strength {strength:g}"
    if prompt is not None:
        _print_texts(side_by_side.write(prompt, edit, strength=strength), edited)
    elif tasks:
        for document in side_by_side.try_task(
            tasks[0], edit, strength=strength, include_path=include_path, limit=documents
        ):
            _print_document(document, edited)
    else:
        for line in _typed_prompts():
            _print_texts(side_by_side.write(line, edit, strength=strength), edited)


def _typed_prompts() -> Iterator[str]:
    """Yield each line of the standard input that is not blank; Ctrl-D ends it, and at a terminal Ctrl-C."""
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        out.print("Type a prompt; Ctrl-D ends.")
    with suppress(EOFError, *([KeyboardInterrupt] if is_terminal else [])):
        while True:
            try:
                line = input("> " if is_terminal else "")
            except UnicodeDecodeError as error:
                raise TarotError(f"The standard input is not {error.encoding} text.") from error
            if line.strip():
                yield line
    if is_terminal:
        out.print()


def _print_texts(texts: "Iterator[TextPair]", edited: str) -> None:
    """Print two texts beside each other; a terminal shows them grow."""
    if not out.is_terminal:
        *_, pair = texts
        out.print(_columns(pair, edited))
        return
    with Live(console=out, auto_refresh=False) as live:
        for pair in texts:
            live.update(_columns(pair, edited), refresh=True)


def _columns(pair: "TextPair", edited: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True)
    for name in ("base", edited):
        table.add_column(name, ratio=1)
    table.add_row(pair.base, pair.edited)
    return table


def _print_document(document: "TriedDocument", edited: str) -> None:
    """Print a document: its prompt, the log-probability of each answer in nats, and what the models write."""
    out.print(f"\n{document.id}", style="bold")
    out.print(document.prompt)
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("log p(answer)", "base", edited):
        table.add_column(name)
    for answer in document.answers:
        right = "right: " if answer.is_right else ""
        table.add_row(f"{right}{answer.text}", _score(answer.base), _score(answer.edited))
    if document.texts:
        table.add_section()
        table.add_row("writes", document.texts.base, document.texts.edited)
    out.print(table)


def _score(value: float) -> str:
    from tarot.models.missing_numbers import NO_NUMBER

    return f"{value:.3f}" if isfinite(value) else NO_NUMBER
