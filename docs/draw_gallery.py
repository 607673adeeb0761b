"""Draw the gallery: reports of real measurements, and pictures of them and of `tarot ui`.

    python docs/draw_gallery.py FOLDER

FOLDER is where the commands in `gallery.md` ran. The reports are written to `_static/reports`, the pictures beside
that folder. It needs Chromium and the extra `ui`.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from chromium import Chromium  # noqa: E402  # it is found by the line above

STATIC = DOCS / "_static"
REPORTS = STATIC / "reports"
WIDTHS = (1280, 800, 400)
BACKGROUND = (205, 205, 200)
TASK, MODEL, PORT = "synth_implicatives", "wheel:smollm2-135m", 8766
PROMPT = "Given a fact, answer the question with yes or no.\n\nFact: Ed didn't fail to pay. Q: Did Ed pay?\nA:"


def write_reports(folder: Path) -> None:
    """Write the reports of a comparison with its side effects, of a reward, and of a gate that failed."""
    shutil.rmtree(REPORTS, ignore_errors=True)
    report(folder, ("results.json", "--analysis", "effects"), "edit")
    report(folder, ("json.json",), "reward")
    shutil.copytree(folder / "gate-report", REPORTS / "gate")


def report(folder: Path, results: Sequence[str], name: str) -> None:
    """Run `tarot report`."""
    command = [sys.executable, "-m", "tarot", "report", *results, "--output-path", str((REPORTS / name).resolve())]
    subprocess.run(command, cwd=folder, check=True)


def draw(name: str, picture: str, *, top: str = "h1", height: int = 660, dark: bool = False) -> None:
    """Draw the part of a report that begins with an element.

    Args:
        name: folder of the report.
        picture: name of the picture.
        top: CSS selector of the first element to show.
        height: of the part, in pixels.
        dark: the dark theme.
    """
    with Chromium() as page:
        show(page, name, 1100, dark)
        y = page.evaluate(f"document.querySelector({top!r}).getBoundingClientRect().top + scrollY - 20")
        page.picture(STATIC / picture, (0, max(y, 0), 1100, height))
    compress(picture)


def draw_widths(name: str, picture: str, dark: bool) -> None:
    """Draw the first screen of a report in windows of three widths, side by side at half their size."""
    screens = []
    with Chromium() as page:
        for width in WIDTHS:
            show(page, name, width, dark)
            page.picture(STATIC / picture, (0, 0, width, 1100))
            with Image.open(STATIC / picture) as screen:
                screens.append(screen.convert("RGB").resize((width // 2, 550), Image.Resampling.LANCZOS))
    gap = 20
    whole = Image.new("RGB", (sum(each.width + gap for each in screens) + gap, 550 + 2 * gap), BACKGROUND)
    left = gap
    for screen in screens:
        whole.paste(screen, (left, gap))
        left += screen.width + gap
    whole.save(STATIC / picture)
    compress(picture)


def compress(picture: str) -> None:
    """Write a picture again with a palette of 128 colours, a third of its size."""
    with Image.open(STATIC / picture) as drawn:
        drawn.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(STATIC / picture, optimize=True)


def show(page: Chromium, name: str, width: int, dark: bool) -> None:
    """Open a report."""
    theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    page.send("Emulation.setEmulatedMedia", features=theme)
    page.open((REPORTS / name / "index.html").as_uri(), width, 1100)
    page.wait_for("document.readyState == 'complete' && document.querySelector('h1')")


@contextmanager
def serve_ui(folder: Path) -> Iterator[str]:
    """Run `tarot ui` with the edit of the gallery."""
    command = ["ui", "--model", MODEL, "--adapter", "my-edit", "--tasks", TASK, "--port", str(PORT)]
    process = subprocess.Popen([sys.executable, "-u", "-m", "tarot", *command], cwd=folder, stdout=subprocess.PIPE)
    assert process.stdout
    try:
        yield next(line.split()[0].decode() for line in process.stdout if line.startswith(b"http"))
    finally:
        process.terminate()
        process.wait()


def draw_ui(folder: Path, picture: str) -> None:
    """Draw the page of `tarot ui` after it has written."""
    with serve_ui(folder) as address, Chromium() as page:
        page.open(address, 760, 890)
        page.wait_for("document.querySelector('#prompt textarea') && document.querySelector('#write')")
        page.evaluate("document.querySelector('#prompt textarea').focus()")
        page.send("Input.insertText", text=PROMPT)
        page.evaluate("document.querySelector('#write').click()")
        page.wait_for("document.querySelector('#edited textarea').value.trim()")
        page.evaluate("new Promise(done => setTimeout(done, 5000))")  # the rest of both texts
        page.evaluate("document.activeElement.blur()")
        page.picture(STATIC / picture)
    compress(picture)


def main() -> None:
    """Write everything."""
    (argument,) = sys.argv[1:]
    folder = Path(argument)
    write_reports(folder)
    draw("edit", "report-answer.png")
    draw_widths("edit", "report-widths-light.png", dark=False)
    draw_widths("edit", "report-widths-dark.png", dark=True)
    draw("edit", "report-effects.png", top="#side-effects", height=840)
    draw("edit", "report-front.png", top="figure:has([href='trade-off.csv'])", height=420)
    draw("edit", "report-documents.png", top=".documents", height=660, dark=True)
    draw("reward", "report-reward.png", height=760)
    draw("reward", "report-texts.png", top="#rewards .documents", height=520)
    draw("gate", "report-gate.png", top="#gate", height=760)
    draw_ui(folder, "ui.png")


if __name__ == "__main__":
    main()
