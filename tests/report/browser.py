"""Debian's Chromium, for pages of runs; python -m tests.report.browser RUNS takes the screenshots of docs/pictures."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 860}
PATIENCE = 300_000  # milliseconds, on a machine that does other things too


@contextmanager
def chromium() -> Iterator["Browser"]:
    """The browser, headless."""
    from playwright.sync_api import sync_playwright

    options = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]  # Chromium wants the latter of root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options, timeout=PATIENCE)
        yield browser
        browser.close()


def opened(browser: "Browser", path: Path, view: dict[str, int] = DESK, dark: bool = False, place: str = "") -> "Page":
    """A page of a file; what its console and its scripts complain of is in page.complaints, and what it asks for in
    page.requests."""
    page = browser.new_page(viewport=view, color_scheme="dark" if dark else "light")
    page.set_default_timeout(PATIENCE)
    page.complaints, page.requests = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(f"{path.as_uri()}{place}")
    return page


def main() -> None:
    """Take them, of the first runs of a gallery."""
    runs, folder = Path(sys.argv[1]).absolute(), Path((*sys.argv, "docs/pictures")[2])
    folder.mkdir(parents=True, exist_ok=True)
    index = runs / "index.html"
    report = next(path for path in sorted(runs.rglob("report.html")))
    shots = {
        "report": (report, DESK, False, ""),
        "gallery": (index, DESK, False, ""),
        "compare": (index, DESK, False, "#runs=0,1,2"),
        "report_dark": (report, DESK, True, ""),
        "gallery_phone": (index, PHONE, True, ""),
    }
    with chromium() as browser:
        for name, (path, view, dark, place) in shots.items():
            page = opened(browser, path, view, dark, place)
            page.wait_for_timeout(1000)
            page.screenshot(path=folder / f"{name}.png")
            page.close()


if __name__ == "__main__":
    main()
