"""What a user asks for: on the command line, in the ini file, in a marker. Text in, checked values out.

Names of tasks, models, searches and spaces are checked where they are known, when a test needs them: that takes
libraries which a run without such a test must not import.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import pytest

from tarot.errors import TarotError, UnknownName
from tarot.evaluation.grid import CellRequest, parse_engine, parse_seeds, parse_shots

TOLERANCE = "tarot_tolerance"


def name(text: str) -> str:
    """Any text that is not blank."""
    if not text.strip():
        raise TarotError("a name", repr(text))
    return text.strip()


def whole(text: str) -> int:
    """A number from 1."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise TarotError("a whole number from 1", repr(text))
    return int(text)


def count(text: str) -> int:
    """A number from 0."""
    if not (text.isascii() and text.isdigit()):
        raise TarotError("a whole number from 0", repr(text))
    return int(text)


def number(text: str) -> float:
    """A number from 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (isfinite(value) and value >= 0):
        raise TarotError("a number from 0", repr(text))
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (isfinite(value) and 0 <= value <= 1):
        raise TarotError("a fraction from 0 to 1", repr(text), "for example 0.02")
    return value


def truth(text: str) -> bool:
    """Read `true` or `false`."""
    if text.strip().lower() not in ("true", "false"):
        raise TarotError("true or false", repr(text))
    return text.strip().lower() == "true"


@dataclass(frozen=True)
class Option:
    """`--tarot-NAME` and ini value `tarot_NAME`; `marker` is its keyword in `@pytest.mark.tarot`, if it has one.

    A `flag` takes no value on the command line, and true or false in the ini file.
    """

    parse: Callable[[str], Any]
    help: str
    default: Any = None
    repeat: bool = False
    path: bool = False
    marker: str = ""
    flag: bool = False


OPTIONS: Mapping[str, Option] = {
    "model": Option(
        name, "model reference, as `tarot models` lists them; repeat for several", (), repeat=True, marker="model"
    ),
    "task": Option(name, "lm-eval task; repeat for several", (), repeat=True, marker="task"),
    "shots": Option(
        parse_shots,
        "labelled examples in each prompt: 0,6 measures both; `mix` tunes on mixed prompts",
        (0,),
        marker="num_fewshot",
    ),
    "seeds": Option(parse_seeds, "0,1,2 measures three", (0,), marker="seed"),
    "samples": Option(whole, "labelled samples of the search", 20, marker="samples"),
    "budget": Option(whole, "evaluations of the search", 120, marker="budget"),
    "search": Option(name, "adam, bo, paper or random", "adam", marker="search"),
    "space": Option(
        name, "full, head-gradient, head, layer, random:R; the search's own if left out", "", marker="space"
    ),
    "limit": Option(whole, "evaluate only the first documents", None, marker="limit"),
    "include-path": Option(name, "folder of further lm-eval task files", None, path=True, marker="include_path"),
    "control": Option(
        name, "another search to measure beside, such as random; repeat for several", (), repeat=True, marker="control"
    ),
    "draws": Option(
        count, "average few-shot prompting over so many choices and orders of its shots; 0 for none", 5, marker="draws"
    ),
    "engine": Option(parse_engine, "where cells are measured: local, or ray for a cluster's machines", "local"),
    "address": Option(name, "of the Ray cluster, HOST:PORT; one is started on this machine if left out", None),
    "cpus": Option(whole, "with ray: threads of a cell", None),
    "gpus": Option(number, "with ray: GPUs of a cell, or a share such as 0.5", None),
    "memory": Option(name, "with ray: memory of a cell", "4GB"),
    "cache": Option(name, "folder of tuned adapters; pytest's own cache if left out", None, path=True),
    "baseline": Option(name, "fail where a cell is worse than in this file, or not measured", None, path=True),
    "allow-missing": Option(truth, "pass cells and documents of the baseline that were not measured", False, flag=True),
    "save-baseline": Option(name, "write the cells to this file, unless a test fails", None, path=True),
    "report": Option(name, "write an HTML report into this folder", None, path=True),
}


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("tarot", "rotated language models, measured")
    for key, option in OPTIONS.items():
        if option.flag:
            group.addoption(f"--tarot-{key}", action="store_const", const="true", default=None, help=option.help)
            parser.addini(_ini(key), f"--tarot-{key}", type="string", default=None)
            continue
        default = f" (default: {_text(option.default)})" if option.default not in (None, (), "") else ""
        metavar = "DIR" if option.path and "baseline" not in key else "FILE" if option.path else key.upper()
        # Parsed later, in one place with the ini values, so that both fail alike.
        group.addoption(
            f"--tarot-{key}",
            action="append" if option.repeat else "store",
            metavar=metavar,
            help=option.help + default,
        )
        kind: Literal["linelist", "string"] = "linelist" if option.repeat else "string"
        parser.addini(_ini(key), f"--tarot-{key}", type=kind, default=None)
    parser.addini(TOLERANCE, "how much a gain may fall before --tarot-baseline fails, a fraction", default="0.02")


def _ini(key: str) -> str:
    return f"tarot_{key.replace('-', '_')}"


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def parsed(config: pytest.Config) -> dict[str, Any]:
    """Every option's value, by its name in OPTIONS, and the tolerance.

    Raises:
        pytest.UsageError: a value that is not understood, quoted, with the option or ini value that holds it.
    """
    values = {}
    for key, option in OPTIONS.items():
        given, where, folder = config.getoption(f"--tarot-{key}"), f"--tarot-{key}", config.invocation_params.dir
        if given is None:
            given, where, folder = config.getini(_ini(key)), _ini(key), config.rootpath
        values[key] = (
            option.default if given in (None, [], "") and where == _ini(key) else _value(option, given, where, folder)
        )
    values[TOLERANCE] = _parse(fraction, config.getini(TOLERANCE), TOLERANCE)
    return values


def _value(option: Option, given: str | Sequence[str], where: str, folder: Path) -> Any:
    texts = [given] if isinstance(given, str) else given
    found = tuple(_parse(option.parse, text, where) for text in texts)
    if option.path:
        found = tuple(str(folder / Path(text).expanduser()) for text in found)
    return found if option.repeat else found[0]


def _parse(parse: Callable[[str], Any], text: str, where: str) -> Any:
    try:
        return parse(text)
    except TarotError as error:
        raise pytest.UsageError(f"{where}: {error}") from None


def settings(
    values: Mapping[str, Any], markers: Iterable[pytest.Mark], folder: Path, comparisons: bool
) -> list[CellRequest]:
    """Models x tasks x shots x seeds of the options, or of the markers where they say otherwise; the last one counts.

    Args:
        values: as `parsed` returns them.
        markers: `tarot` markers of a test, the nearest last.
        folder: what a marker's include_path starts from.
        cells: whether the test measures; one that only asks for a model gets one setting a model.

    Raises:
        TarotError: a keyword or value of a marker that is not understood.
    """
    chosen = {option.marker: values[key] for key, option in OPTIONS.items() if option.marker}
    for marker in markers:
        chosen |= _marked(marker, folder)
    rest = {key: value for key, value in chosen.items() if key not in ("model", "task", "num_fewshot", "seed")}
    if not comparisons:
        return [CellRequest(model, "") for model in dict.fromkeys(chosen["model"])]
    combined = product(chosen["model"], chosen["task"], chosen["num_fewshot"], chosen["seed"])
    return list(dict.fromkeys(CellRequest(*these, **rest) for these in combined))


def _marked(marker: pytest.Mark, folder: Path) -> dict[str, Any]:
    if marker.args:
        raise TarotError(
            "keywords in @pytest.mark.tarot", f"{marker.args[0]!r} without one", "for example task='synth_color'"
        )
    known = {option.marker: option for option in OPTIONS.values() if option.marker}
    found: dict[str, Any] = {}
    for key, value in marker.kwargs.items():
        if key not in known:
            raise UnknownName("keyword of @pytest.mark.tarot", key, known)
        option = known[key]
        if value is None:  # as if no option said anything
            found[key] = option.default
            continue
        several = isinstance(option.default, tuple)
        texts = [str(one) for one in value] if several and isinstance(value, list | tuple) else [str(value)]
        try:
            parts = [option.parse(text) for text in texts]
        except TarotError as error:
            raise TarotError(*_renamed(error, key)) from None
        if several:
            found[key] = tuple(one for part in parts for one in (part if isinstance(part, tuple) else (part,)))
        else:
            found[key] = str(folder / parts[0]) if option.path else parts[0]
    return found


def _renamed(error: TarotError, key: str) -> tuple[str, str]:
    expected, _, got = str(error).removeprefix("expected ").partition(", got ")
    return f"{expected} for {key} in @pytest.mark.tarot", got
