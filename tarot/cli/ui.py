"""`tarot ui`: show base and edited output beside each other on a local web page."""

import socket
from contextlib import suppress
from typing import Annotated

from tarot.arguments import require_strength
from tarot.cli.console import out
from tarot.cli.models import load, load_adapters
from tarot.cli.options import (
    AdapterReferences,
    ChatTemplate,
    Device,
    DeviceMap,
    Dtype,
    IncludePath,
    ModelReference,
    hardware_option,
    single_name,
    tasks_option,
)
from tarot.cli.progress import announce
from tarot.cli.try_ import MAX_NEW_TOKENS, MaxNewTokens, Strength
from tarot.errors import TarotError

LOOPBACK = "127.0.0.1"
EXAMPLES = 5


def ui(
    model: ModelReference,
    adapter: AdapterReferences,
    tasks: Annotated[
        list[str] | None,
        tasks_option(
            callback=lambda values: single_name(values) if values else None,
            metavar="NAME",
            help="Offer the first documents that this lm-eval task evaluates as examples.",
            show_default="none",
        ),
    ] = None,
    include_path: IncludePath = None,
    strength: Strength = 1.0,
    apply_chat_template: ChatTemplate = True,
    max_new_tokens: MaxNewTokens = MAX_NEW_TOKENS,
    host: Annotated[
        str,
        hardware_option(
            "--host",
            metavar="ADDRESS",
            help="Address to listen on. Anyone who reaches another one than the default can use the model.",
        ),
    ] = LOOPBACK,
    port: Annotated[
        int, hardware_option("--port", min=0, max=65535, metavar="N", help="Port; 0 takes a free one.")
    ] = 7860,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
) -> None:
    """Show what the base and the edited model write, side by side, on a web page of this machine.

    The page has a prompt, a choice of adapters and a slider for the strength. It listens on the loopback address, and
    loads and sends nothing elsewhere. Ctrl-C ends it.
    """
    require_strength(strength)
    announce("ui")
    from tarot.cli.ui_page import build_page, import_gradio, make_app

    import_gradio()
    listening = _listen(host, port)
    with listening:
        edits = load_adapters(adapter)
        from tarot.evaluation.evaluate import check_tasks
        from tarot.evaluation.side_by_side import SideBySide

        check_tasks(tasks or [], include_path=include_path, limit=EXAMPLES)
        loaded = load(model, device, dtype, device_map)
        for edit in edits.values():
            edit.find_sites(loaded.model)  # raises if it does not fit
        side_by_side = SideBySide(loaded, apply_chat_template=apply_chat_template, max_new_tokens=max_new_tokens)
        examples = side_by_side.example_prompts(tasks[0], include_path, EXAMPLES) if tasks else {}
        import uvicorn

        page = build_page(side_by_side, edits, examples=examples, strength=strength, title=f"tarot: {model}")
        address = f"[{host}]" if ":" in host else host
        app = make_app(page, [LOOPBACK, "localhost", "[::1]"] if _is_loopback(listening) else ["*"])
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        out.print(f"http://{address}:{listening.getsockname()[1]} shows the page; Ctrl-C ends it", highlight=False)
        with suppress(KeyboardInterrupt):
            server.run([listening])


def _listen(host: str, port: int) -> socket.socket:
    """Open the port, before the model is loaded.

    Raises:
        TarotError: the port is taken, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        hint = "choose another --port or --host"
        raise TarotError(f"Cannot listen on {host}, port {port}: {error.strerror or error}", hint=hint) from error


def _is_loopback(listening: socket.socket) -> bool:
    from ipaddress import ip_address

    return ip_address(listening.getsockname()[0]).is_loopback
