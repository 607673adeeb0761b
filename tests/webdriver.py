"""Drive Chromium by the WebDriver protocol of chromedriver: open a page, find elements, type, click.

PYTEST_DONT_REWRITE
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, by the WebDriver standard
QUIET = ("gpu", "quic", "background-networking", "component-update", "sync", "extensions", "dev-shm-usage")


class Browser:
    """A window of Chromium that reaches only this machine."""

    def __init__(self, address: str) -> None:
        self._address = address

    def call(self, method: str, path: str, **values: Any) -> Any:
        """Send one command of the protocol and return its value."""
        body = json.dumps(values).encode() if method == "POST" else None
        request = Request(self._address + path, body, {"Content-Type": "application/json"}, method=method)
        with urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def run(self, script: str, *values: Any) -> Any:
        """Return what a script returns."""
        return self.call("POST", "/execute/sync", script=script, args=list(values))

    def find(self, selector: str) -> str:
        """Return the id of the first element that matches, once there is one."""
        self.wait(lambda: self.run("return document.querySelector(arguments[0]) !== null", selector))
        return str(self.call("POST", "/element", using="css selector", value=selector)[ELEMENT])

    def type(self, selector: str, text: str) -> None:
        """Type into an element."""
        self.call("POST", f"/element/{self.find(selector)}/value", text=text)

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.call("POST", f"/element/{self.find(selector)}/click")

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        """Return the condition's value once it is true.

        Raises:
            TimeoutError: It stays false.
        """
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > end:
                raise TimeoutError(self.run("return document.body.innerText"))
            time.sleep(0.02)  # leaves the processor to the page
        return value


@contextmanager
def open_browser(profile: Path, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """Start a window with an empty profile."""
    process = subprocess.Popen([str(CHROMEDRIVER), "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        line = next(line for line in process.stdout if "started successfully on port" in line)
        address = f"http://127.0.0.1:{line.split()[-1].rstrip('.')}"
        arguments = [
            "--headless",
            "--no-sandbox",
            "--no-first-run",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            *(f"--disable-{feature}" for feature in QUIET),
        ]
        options = {"binary": CHROMIUM, "args": arguments}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        session = Browser(address).call("POST", "/session", capabilities=wanted)["sessionId"]
        browser = Browser(f"{address}/session/{session}")
        try:
            yield browser
        finally:
            browser.call("DELETE", "")
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()
