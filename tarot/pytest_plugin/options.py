"""The options `--tarot-NAME` and ini values `tarot_NAME`: text in, checked values out.

Names of tasks, models, searches and spaces are checked when a test needs them, because a run without such a test must
not import the libraries that know them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import pytest

from tarot.arguments import parse_whole_number
from tarot.edit.layers import parse_layers
from tarot.errors import TarotError
from tarot.evaluation.baselines.registry import BASELINES
from tarot.evaluation.grid.grid import parse_engine, parse_max_kl, parse_seeds, parse_shots
from tarot.evaluation.limit import parse_limit
from tarot.search.names import ANSWER_SEARCHES

TOLERANCE = "tarot_tolerance"


def parse_name(text: str) -> str:
    """Return the text without surrounding spaces; it must not be blank."""
    if not text.strip():
        raise TarotError("a name", repr(text))
    return text.strip()


def parse_names(text: str) -> tuple[str, ...]:
    """Return the names that commas separate."""
    return tuple(map(parse_name, text.split(",")))


def parse_baseline(text: str) -> str:
    """Return the name of a baseline."""
    if (name := parse_name(text)).endswith(".json"):
        raise TarotError("a method to beat", repr(name), "the file of a reference run is --tarot-reference")
    _ = BASELINES[name]  # raises UnknownName
    return name


def parse_positive(text: str) -> int:
    """Return a whole number from 1."""
    return parse_whole_number(text, least=1)


def parse_fraction(text: str) -> float:
    """Return a number from 0 to 1."""
    if not 0 <= (value := _number(text)) <= 1:
        raise TarotError("a fraction from 0 to 1", repr(text), "for example 0.02")
    return value


def parse_flag(text: str) -> bool:
    """Return whether the text is `true`; the only other text is `false`."""
    if text.strip().lower() not in ("true", "false"):
        raise TarotError("true or false", repr(text))
    return text.strip().lower() == "true"


def _number(text: str) -> float:
    """Return a finite number, or -1 for anything else."""
    try:
        value = float(text)
    except ValueError:
        return -1.0
    return value if isfinite(value) else -1.0


@dataclass(frozen=True)
class Option:
    """One option `--tarot-NAME`, ini value `tarot_NAME` and perhaps keyword of `@pytest.mark.tarot`.

    Attributes:
        parse: Turns text into a value; raises TarotError.
        help: What the option does.
        default: Value without the option; a tuple if there may be several.
        field: Field of `CellRequest` that the option sets; "" for none.
        marker: Keywords of the marker that set the same field.
        aliases: Older names of the option.
        repeat: Whether the option may be repeated.
        path: Whether the value is a path: relative to the current folder, in an ini file to pytest's root.
        flag: Whether the option has no value on the command line, and `true` or `false` in the ini file.
    """

    parse: Callable[[str], Any]
    help: str
    default: Any = None
    field: str = ""
    marker: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    repeat: bool = False
    path: bool = False
    flag: bool = False


OPTIONS: Mapping[str, Option] = {
    "model": Option(
        parse_name,
        "model: hub id, folder, PATH.gguf or wheel:NAME; may be repeated",
        (),
        field="model",
        marker=("model",),
        repeat=True,
    ),
    "tasks": Option(
        parse_name,
        "lm-eval task; may be repeated",
        (),
        field="task",
        marker=("task",),
        aliases=("task",),
        repeat=True,
    ),
    "num-fewshot": Option(
        parse_shots,
        "shots in each prompt: 0,6 measures both; mix draws 0, 2, 4 or 6 for each sample",
        (0,),
        field="num_fewshot",
        marker=("num_fewshot",),
        aliases=("shots",),
    ),
    "seeds": Option(parse_seeds, "random seeds: 0,1,2 measures three", (0,), field="seed", marker=("seed",)),
    "num-samples": Option(
        parse_positive,
        "labelled samples of the search",
        20,
        field="samples",
        marker=("num_samples", "samples"),
        aliases=("samples",),
    ),
    "budget": Option(parse_positive, "evaluations of the search", 120, field="budget", marker=("budget",)),
    "search": Option(
        parse_name,
        f"how to search: {', '.join(ANSWER_SEARCHES)}; may be repeated",
        ("adam",),
        field="search",
        marker=("search",),
        repeat=True,
    ),
    "space": Option(
        parse_name,
        "full or head (default: the search's own)",
        "",
        field="space",
        marker=("space",),
    ),
    "max-kl": Option(
        parse_max_kl,
        "largest change of the model elsewhere, KL(base || edited) in nats a token; none sets no limit "
        "(default: 0.02 for adam, else none)",
        "auto",
        field="max_kl",
        marker=("max_kl",),
    ),
    "retain": Option(
        parse_names,
        "more tasks or prompts on which the model should not change: task names, or files (.jsonl, .txt) from the "
        "current folder, separated by commas",
        (),
        field="retain",
        marker=("retain",),
    ),
    "layers": Option(
        parse_layers,
        "layers to edit: a fraction from the first (0.5) or the last (-0.5), or a list (4-11 or 0,3,5)",
        1.0,
        field="layers",
        marker=("layers",),
    ),
    "limit": Option(
        parse_limit,
        "evaluate only the first documents: a number, or a fraction below 1",
        None,
        field="limit",
        marker=("limit",),
    ),
    "include-path": Option(
        parse_name,
        "folder of further lm-eval task files",
        None,
        field="include_path",
        marker=("include_path",),
        path=True,
    ),
    "draws": Option(
        parse_whole_number,
        "average few-shot prompting over N random draws of shots; 0 uses the first samples only",
        0,
        field="draws",
        marker=("draws",),
    ),
    "baseline": Option(
        parse_baseline,
        f"method to beat, as a further arm; may be repeated: {', '.join(BASELINES)}",
        (),
        field="baselines",
        marker=("baseline",),
        repeat=True,
    ),
    "engine": Option(parse_engine, "where cells are measured: local, or ray for a cluster", "local"),
    "address": Option(parse_name, "Ray cluster, HOST:PORT (default: start one on this machine)", None),
    "cpus": Option(parse_positive, "with ray: threads per cell", None),
    "memory": Option(parse_name, "with ray: memory per cell", "4GB"),
    "work": Option(
        parse_name, "folder of tuned adapters (default: in pytest's cache)", None, aliases=("cache",), path=True
    ),
    "reference": Option(
        parse_name, "reference run: fail if a cell is worse than in this file, or not measured", None, path=True
    ),
    "allow-missing": Option(
        parse_flag, "pass cells, documents and arms of the reference run that were not measured", False, flag=True
    ),
    "save-reference": Option(parse_name, "write the cells as a reference run, unless a test fails", None, path=True),
    "report": Option(parse_name, "write an HTML report into this folder", None, path=True),
}

MARKER_KEYWORDS: Mapping[str, Option] = {keyword: option for option in OPTIONS.values() for keyword in option.marker}


def add_options(parser: pytest.Parser) -> None:
    """Add all options and ini values; their values stay text until `parse_options`."""
    group = parser.getgroup("tarot", "edited language models, measured")
    for key, option in OPTIONS.items():
        names = [f"--tarot-{name}" for name in (key, *option.aliases)]
        ini_aliases = [_ini_name(alias) for alias in option.aliases]
        if option.flag:
            group.addoption(*names, action="store_const", const="true", default=None, help=option.help)
            parser.addini(_ini_name(key), names[0], type="string", default=None, aliases=ini_aliases)
            continue
        default = f" (default: {_default_text(option.default)})" if option.default not in (None, (), "", "auto") else ""
        metavar = "DIR" if option.path and "reference" not in key else "FILE" if option.path else key.upper()
        group.addoption(
            *names, action="append" if option.repeat else "store", metavar=metavar, help=option.help + default
        )
        kind: Literal["linelist", "string"] = "linelist" if option.repeat else "string"
        parser.addini(_ini_name(key), names[0], type=kind, default=None, aliases=ini_aliases)
    parser.addini(TOLERANCE, "how much a gain may fall before --tarot-reference fails, a fraction", default="0.02")


def _ini_name(key: str) -> str:
    return f"tarot_{key.replace('-', '_')}"


def _default_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def parse_options(config: pytest.Config) -> dict[str, Any]:
    """Return the value of every option, by its name in `OPTIONS`, and of the tolerance.

    The command line takes precedence over the ini file.

    Raises:
        pytest.UsageError: A value is malformed; the message quotes it and names the option or ini value.
    """
    values = {}
    for key, option in OPTIONS.items():
        text, source, folder = config.getoption(f"--tarot-{key}"), f"--tarot-{key}", config.invocation_params.dir
        if text is None:
            text, source, folder = config.getini(_ini_name(key)), _ini_name(key), config.rootpath
            if text in (None, [], ""):
                values[key] = option.default
                continue
        values[key] = _parse_values(option, text, source, folder)
    values[TOLERANCE] = _parse(parse_fraction, config.getini(TOLERANCE), TOLERANCE)
    return values


def _parse_values(option: Option, text: str | Sequence[str], source: str, folder: Path) -> Any:
    texts = [text] if isinstance(text, str) else text
    values = tuple(_parse(option.parse, text, source) for text in texts)
    if option.path:
        values = tuple(str(folder / Path(value).expanduser()) for value in values)
    return values if option.repeat else values[0]


def _parse(parse: Callable[[str], Any], text: str, source: str) -> Any:
    try:
        return parse(text)
    except TarotError as error:
        raise pytest.UsageError(f"{source}: {error}") from None
