"""The entry points of the command: `tarot` and `python -m tarot`."""

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from types import TracebackType

INTERRUPTED = 130  # 128 and the number of SIGINT


def script() -> NoReturn:
    """Run the command and exit.

    Ctrl-C ends it with one line and exit code 130, whenever and however often it comes: while libraries are imported,
    while the results of an interrupted search are saved, and while the interpreter shuts down.
    """
    report, report_ignored = sys.excepthook, sys.unraisablehook

    def end(kind: type[BaseException], error: BaseException, trace: "TracebackType | None") -> None:
        if not issubclass(kind, KeyboardInterrupt):
            report(kind, error, trace)
            return
        _say_interrupted()
        os._exit(INTERRUPTED)

    def pass_on(ignored: "sys.UnraisableHookArgs") -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            report_ignored(ignored)
            return
        import _thread
        import threading

        if threading.main_thread().is_alive():  # it came in a finalizer, which cannot raise it
            _thread.interrupt_main()

    sys.excepthook, sys.unraisablehook = end, pass_on
    sys.exit(main())


def main() -> Any:
    """Run the command and return its exit code: 130, after one line, if it is interrupted."""
    try:
        from tarot.cli.main import main as run  # takes a while, in which Ctrl-C may come

        return run()
    except KeyboardInterrupt:
        _say_interrupted()
        return INTERRUPTED


def _say_interrupted() -> None:
    print("interrupted", file=sys.stderr, flush=True)


if __name__ == "__main__":
    script()
