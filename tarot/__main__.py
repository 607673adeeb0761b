"""The entry points of the command: the script `tarot` and `python -m tarot`."""

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from types import TracebackType

INTERRUPTED = 130  # 128 and the number of SIGINT


def script() -> NoReturn:
    """Run the command and exit.

    Ctrl-C ends it with one line and exit code 130 at any time: while libraries are imported, while an interrupted
    search saves its results, and while the interpreter shuts down. A second Ctrl-C does the same.
    """
    report, report_ignored = sys.excepthook, sys.unraisablehook

    def exit_if_interrupted(kind: type[BaseException], error: BaseException, trace: "TracebackType | None") -> None:
        if not issubclass(kind, KeyboardInterrupt):
            report(kind, error, trace)
            return
        _print_interrupted()
        os._exit(INTERRUPTED)

    def interrupt_again(ignored: "sys.UnraisableHookArgs") -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            report_ignored(ignored)
            return
        import _thread
        import threading

        if threading.main_thread().is_alive():  # a finalizer was interrupted, which cannot raise
            _thread.interrupt_main()

    sys.excepthook, sys.unraisablehook = exit_if_interrupted, interrupt_again
    sys.exit(main())


def main() -> Any:
    """Run the command and return its exit code; after Ctrl-C print one line and return 130."""
    try:
        from tarot.cli.main import main as run  # inside, since Ctrl-C may come during the import

        return run()
    except KeyboardInterrupt:
        _print_interrupted()
        return INTERRUPTED


def _print_interrupted() -> None:
    print("interrupted", file=sys.stderr, flush=True)


if __name__ == "__main__":
    script()
