"""Chromium over its debugging protocol: open a page, wait until a condition holds in it, take a picture."""

import asyncio
import base64
import shutil
import subprocess
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ("gpu", "background-networking", "component-update", "sync", "extensions")


class Chromium:
    """A page in headless Chromium; closed at the end of the context."""

    def __enter__(self) -> "Chromium":
        self._folder = TemporaryDirectory(ignore_cleanup_errors=True)
        options = ("--headless", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={self._folder.name}")
        quiet = [f"--disable-{name}" for name in QUIET]
        self._process = subprocess.Popen([str(CHROMIUM), *options, *quiet, "about:blank"], stderr=subprocess.DEVNULL)
        self._loop, self._ids = asyncio.new_event_loop(), count(1)
        self._loop.run_until_complete(self._connect())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    async def _connect(self) -> None:
        port = Path(self._folder.name, "DevToolsActivePort")
        while not (port.exists() and port.read_text().strip()):
            assert self._process.poll() is None, "Chromium did not start"
            await asyncio.sleep(0.05)
        self._session = aiohttp.ClientSession()
        address = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json/list"
        async with self._session.get(address) as response:
            (page,) = [each for each in await response.json() if each["type"] == "page"]
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    def send(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        return self._loop.run_until_complete(self._send(method, parameters))

    async def _send(self, method: str, parameters: dict[str, Any]) -> Any:
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while (answer := await self._socket.receive_json()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, address: str, width: int = 1280, height: int = 800) -> None:
        """Open a page."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is awaited."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Return when a JavaScript expression is true; fail if it never is."""
        check = f"const check = () => ({condition}) ? done(true) : --tries ? setTimeout(check, 50) : done(false)"
        assert self.evaluate(f"new Promise(done => {{ let tries = 2000; {check}; check(); }})"), condition

    def picture(self, file: Path, part: tuple[float, float, float, float] | None = None) -> None:
        """Write what the page shows as a PNG file, or a part of the page: left, top, width and height in pixels."""
        clip = {"clip": dict(zip(("x", "y", "width", "height", "scale"), (*part, 1), strict=True))} if part else {}
        picture = self.send("Page.captureScreenshot", captureBeyondViewport=bool(part), **clip)
        file.write_bytes(base64.b64decode(picture["data"]))
