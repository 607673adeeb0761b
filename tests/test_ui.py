"""`tarot ui` in Chromium: type, move the slider, and see the output change; nothing is loaded from elsewhere."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from cli_suite import INCLUDE, MODEL, run_in
from webdriver import CHROMEDRIVER, CHROMIUM, Browser, open_browser

from tarot.edit.adapter import Adapter
from tarot.evaluation.side_by_side import SideBySide, TextPair
from tarot.models.load import load_model

pytest_plugins = ["cli_suite"]

needs_gradio = pytest.mark.skipif(not find_spec("gradio"), reason="needs the extra ui")
needs_browser = pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs Debian's package chromium-driver")
UI = ("ui", *MODEL, "--adapter", "adapter", "--max-new-tokens", "6")
VALUES = "return [...document.querySelectorAll('#base textarea, #edited textarea')].map(box => box.value)"


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """The address of a running page with two adapters and examples."""
    adapter = Adapter.from_pretrained(home / "adapter")
    adapter.scaled(0.0).save_pretrained(home / "identity")
    command = [*UI, "--adapter", "identity", "--tasks", "own_choice", *INCLUDE, "--port", "0"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(home / "cache"), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tarot", *command], cwd=home, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    yield next(line.split()[0] for line in process.stdout if line.startswith("http"))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    process.stdout.close()


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.call("POST", "/url", url=address)
        browser.find("#prompt textarea")
        yield browser


def expected(home: Path, strength: float) -> TextPair:
    """What the page must show for `item 7`, with line ends as a text box has them."""
    loaded = load_model(str(home / "model"), device="cpu")
    side_by_side = SideBySide(loaded, max_new_tokens=6)
    *_, texts = side_by_side.write("item 7", Adapter.from_pretrained(home / "adapter"), strength=strength)
    return texts


def shown(browser: Browser, pair: TextPair) -> Any:
    texts = ["\n".join(text.replace("\r\n", "\n").split("\r")) for text in (pair.base, pair.edited)]
    return browser.wait(lambda: browser.run(VALUES) == texts)


@needs_gradio
@needs_browser
def test_typing_and_moving_the_slider_change_the_output(home: Path, browser: Browser) -> None:
    browser.type("#prompt textarea", "item 7")
    browser.click("#write")
    full, half = expected(home, 1.0), expected(home, 0.5)
    assert len({full.base, full.edited, half.edited}) == 3
    assert shown(browser, full)
    slide = "const s = document.querySelector('#strength input[type=range]'); s.value = arguments[0];"
    events = "for (const e of ['input', 'change', 'pointerup']) s.dispatchEvent(new Event(e, {bubbles: true}));"
    browser.run(slide + events, 0.5)
    assert shown(browser, half)


@needs_gradio
@needs_browser
def test_another_adapter_can_be_chosen(home: Path, browser: Browser) -> None:
    browser.click("#adapter input")
    browser.wait(lambda: browser.run("return document.querySelectorAll('[role=option]').length") == 2)
    browser.click("[role=option][aria-label=identity], [role=option][data-index='1']")
    base = expected(home, 1.0).base
    assert shown(browser, TextPair(base, base))


@needs_gradio
@needs_browser
def test_examples_come_from_the_task(home: Path, browser: Browser) -> None:
    text = browser.wait(lambda: browser.run("return document.body.innerText"))
    assert all(f"item {row} A:" in text for row in range(1000, 1005)) and "item 1005" not in text
    assert "Name what it says." not in text  # which all of them begin with


@needs_gradio
@needs_browser
def test_an_example_is_sent_as_evaluate_sends_it_until_it_is_changed(home: Path, browser: Browser) -> None:
    loaded = load_model(str(home / "model"), device="cpu")
    side_by_side, edit = SideBySide(loaded, max_new_tokens=6), Adapter.from_pretrained(home / "adapter")
    ((text, prompt),) = side_by_side.example_prompts("own_choice", home / "tasks", 1).items()
    *_, pair = side_by_side.continue_prompt(prompt, edit)
    *_, as_message = side_by_side.write(f"{text}!", edit)
    assert pair != as_message
    browser.run("location.reload()")
    browser.find("#prompt textarea")
    browser.wait(lambda: browser.run("return document.body.innerText.includes('item 1000')"))
    browser.run("[...document.querySelectorAll('td, button')].find(e => e.innerText.includes('item 1000')).click()")
    box = "return document.querySelector('#prompt textarea').value"
    browser.wait(lambda: browser.run(box) == text)
    browser.click("#write")
    assert shown(browser, pair)
    browser.type("#prompt textarea", "!")
    browser.click("#write")
    assert shown(browser, as_message)


@needs_gradio
@needs_browser
def test_nothing_is_loaded_from_elsewhere(address: str, browser: Browser) -> None:
    loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert {url.split("/")[2] for url in browser.run(loaded) if not url.startswith("data:")} == {address.split("/")[2]}
    log = browser.call("POST", "/se/log", type="browser")
    assert [entry["message"] for entry in log if entry["level"] == "SEVERE"] == []


@needs_gradio
def test_only_names_of_this_machine_are_answered(address: str) -> None:
    with urlopen(address, timeout=60) as response:
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    with pytest.raises(HTTPError, match="400"):
        urlopen(Request(address, headers={"Host": "elsewhere.example"}), timeout=60)


@needs_gradio
def test_a_port_that_is_taken_is_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run_in(home, *UI, "--port", str(taken.getsockname()[1])) == 2
    assert "--port" in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_gradio_is_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert run_in(home, *UI) == 2
    assert "-e '.[ui]'" in capsys.readouterr().err.splitlines()[-1]
