"""The page in Chromium: layout, colours, requests."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading

import pytest
from fabricated import CHROMIUM, COMPARISONS, EVIL, Page, render, reward_comparison

WIDTHS = (400, 800, 1280)
FRAME = f"""<!DOCTYPE html><link rel="icon" href="data:,">
<pre id="seen"></pre><script>
const widths = {list(WIDTHS)};
"""
FRAME += """
const sort = (table, column) => {
  if (!table) return [];
  const header = table.querySelectorAll("thead th")[column];
  header.querySelector("button").click();
  const value = row => Number(row.cells[column].textContent.replace("\\u2212", "-"));
  return [...table.querySelectorAll("tbody tr")].map(value);
};
const use = table => {
  if (!table) return {};
  const rows = () => [...table.querySelectorAll("tbody tr")].filter(row => !row.hidden), seen = {};
  const search = table.querySelector("input");
  table.querySelector("button[value=fixed]").click();
  seen.filtered = rows().map(row => row.dataset.outcome);
  table.querySelector("button[value='']").click();
  search.value = " 17 LONG";
  search.dispatchEvent(new Event("input"));
  seen.searched = rows().length;
  search.value = "";
  search.dispatchEvent(new Event("input"));
  for (let i = 0; i < 2; i++) table.querySelector("thead button").click();
  seen.sorted = rows().map(row => Number(row.cells[0].textContent));
  return seen;
};
const look = frame => {
  const page = frame.contentDocument, root = page.documentElement, style = getComputedStyle(page.body);
  const box = svg => { const {width, height} = svg.getBBox(); return [Math.round(width), Math.round(height)]; };
  return {
    scroll: root.scrollWidth, client: root.clientWidth, colors: [style.color, style.backgroundColor],
    pictures: [...page.querySelectorAll("svg")].map(svg => [...box(svg), svg.querySelectorAll("path, use").length]),
    lines: [...new Set([...page.querySelectorAll("svg *")].map(e => getComputedStyle(e).stroke))],
    fetched: frame.contentWindow.performance.getEntriesByType("resource").length,
    text: page.body.textContent, scripts: page.scripts.length,
    tools: [...page.querySelectorAll(".tools")].map(tools => tools.hidden),
    commands: page.querySelectorAll(".command").length, copies: page.querySelectorAll(".command button").length,
    unprinted: [...page.styleSheets].flatMap(sheet => [...sheet.cssRules])
      .filter(rule => rule.media?.mediaText === "print").flatMap(rule => [...rule.cssRules])
      .filter(rule => rule.style.display === "none").map(rule => rule.selectorText),
    ...use(page.querySelector(".documents")),
    changes: sort(page.querySelector("#rewards .documents"), 6),
  };
};
const seen = [];
const next = () => {
  const frame = document.createElement("iframe"), width = widths[seen.length];
  frame.style = `width:${width}px;height:900px;border:0`;
  frame.src = `index.html?${width}`;
  frame.onload = () => {
    seen.push(look(frame));
    if (seen.length < widths.length) next();
    else document.getElementById("seen").textContent = JSON.stringify(seen);
  };
  document.body.append(frame);
};
next();
</script>"""


class Browser:
    """Chromium on a folder that is served from this machine."""

    def __init__(self, folder):
        self.folder, self.requests = folder, []

    def look(self, dark=False):
        """Return what is seen at each of WIDTHS, and what the browser complains of."""
        (self.folder / "frame.html").write_text(FRAME)
        browser = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, format, *values):
                browser.requests.append(self.path)

        handler = functools.partial(Handler, directory=str(self.folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever).start()
            try:
                return self._run(f"http://127.0.0.1:{server.server_port}/frame.html", dark)
            finally:
                server.shutdown()

    def _run(self, address, dark):
        quiet = ("gpu", "quic", "background-networking", "component-update", "sync", "extensions")
        run = subprocess.run(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--no-first-run",
                "--hide-scrollbars",
                *(f"--disable-{feature}" for feature in quiet),
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={self.folder / 'profile'}",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                "--enable-logging=stderr",
                "--window-size=1400,1000",
                "--dump-dom",
                address,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        shutil.rmtree(self.folder / "profile", ignore_errors=True)
        seen = json.loads(Page(run.stdout).texts_of("pre")[0])
        return seen, [line for line in run.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's package chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_page(tmp_path, dark):
    (tmp_path / "index.html").write_text(render(COMPARISONS, rewards=[reward_comparison()]), encoding="utf-8")
    browser = Browser(tmp_path)
    views, complaints = browser.look(dark)
    assert complaints == []
    assert browser.requests == ["/frame.html", *(f"/index.html?{width}" for width in WIDTHS)]
    for width, seen in zip(WIDTHS, views, strict=True):
        check(seen, width, dark)


def check(seen, width, dark):
    """Check what is seen of the page at one width."""
    assert seen["fetched"] == 0
    assert seen["client"] == width and seen["scroll"] <= width
    assert seen["scripts"] == 1 and EVIL in seen["text"]
    assert (
        seen["tools"] == [False] * (len(COMPARISONS) + 1) and seen["copies"] == seen["commands"] > 0
    )  # the script ran
    assert seen["unprinted"] == ["nav, .tools, .command button"]
    assert seen["filtered"] and set(seen["filtered"]) == {"fixed"}
    assert seen["searched"] == 1
    assert seen["sorted"] == sorted(seen["sorted"], reverse=True) and seen["sorted"][0] == 39
    assert len(seen["changes"]) == 12 and seen["changes"] == sorted(seen["changes"]) and seen["changes"][0] < 0
    assert len(seen["pictures"]) == 1 + 2 * len(COMPARISONS) + 1
    assert all(wide > 100 and high > 80 and marks > 5 for wide, high, marks in seen["pictures"])
    ink, paper = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in seen["colors"])
    assert ink > paper + 400 if dark else paper > ink + 400
    assert ("rgb(107, 180, 240)" if dark else "rgb(10, 99, 165)") in seen["lines"]  # --gain


@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's package chromium")
def test_the_check_can_fail(tmp_path):
    (tmp_path / "index.html").write_text(
        '<body><div style="width:900px">wide</div><img src="missing.png"><script>console.error("oh")</script>'
    )
    browser = Browser(tmp_path)
    (seen, *_), complaints = browser.look()
    assert seen["scroll"] > seen["client"]
    assert seen["scripts"] == 1 and seen["fetched"] == 1 and "/missing.png" in browser.requests
    assert len(complaints) == len(WIDTHS) and all("oh" in complaint for complaint in complaints)
