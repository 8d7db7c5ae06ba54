"""Looks at the built documentation in Chromium, on a phone and on a desk: `make browse`.

A page fails that is wider than its window or has a table that is, that has a broken link, anchor or image, or
an error in the console.
"""

import argparse
import functools
import http
import http.server
import shutil
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent / "build" / "docs"
WINDOWS = {"phone": (390, 844), "desk": (1280, 900)}  # width and height, in CSS pixels
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
]

# What scrolls sideways, the page or the theme's box for all of its content, and what sticks out of the
# window. Code may: it scrolls in boxes of its own. So do tables, but there a column would be missed. The
# tables of the race may, because their first column stays in place.
OVERFLOW = """() => {
    const width = document.documentElement.clientWidth
    const boxed = e => !e.matches('article') &&
        (getComputedStyle(e).overflowX != 'visible' || boxed(e.parentElement))
    const sticking = [...document.querySelectorAll('article *')]
        .filter(e => e.getBoundingClientRect().right > width && !boxed(e.parentElement))
    const boxes = document.querySelectorAll('.content, .table-wrapper:not(#the-tables *)')
    const scrolling = [document.documentElement, ...boxes]
        .filter(e => e.scrollWidth > e.clientWidth)
    return [...scrolling, ...sticking].map(e => `${e.tagName} ${e.textContent.trim().slice(0, 40)}`)
}"""
IMAGES = "() => [...document.images].filter(e => !e.naturalWidth).map(e => e.src)"
LINKS = "() => [...document.links].map(e => e.href)"
ANCHORS = "() => [...document.querySelectorAll('[id]')].map(e => e.id)"


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # which browsers ask for by themselves
            self.send_response(http.HTTPStatus.NO_CONTENT)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


def visit(page: Page, url: str) -> list[str]:
    """Open a page; what is wrong with it."""
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"{error}"))
    page.goto(url, wait_until="load")
    faults += [f"wider than the window: {element}" for element in page.evaluate(OVERFLOW)[:3]]
    faults += [f"no image: {image}" for image in page.evaluate(IMAGES)]
    return faults


def broken(links: dict[str, list[str]], anchors: dict[str, set[str]], page: Page) -> list[str]:
    """The links between pages, by page, that lead nowhere."""
    faults = []
    for url, found in links.items():
        for link in found:
            target, anchor = urldefrag(link)
            known = target in anchors or page.request.get(target).ok
            if not known or (anchor and target in anchors and unquote(anchor) not in anchors[target]):
                faults.append(f"{url}: broken link {link}")
    return faults


def look(browser: Browser, base: str, paths: list[str], screenshots: Path | None) -> list[str]:
    """Visit every page in every window; what is wrong with them."""
    faults, links, anchors = [], {}, {}
    for window, (width, height) in WINDOWS.items():
        for path in paths:
            page = browser.new_page(viewport={"width": width, "height": height})
            url = f"{base}/{path}"
            faults += [f"{path} on the {window}: {fault}" for fault in visit(page, url)]
            links[url] = [link for link in page.evaluate(LINKS) if link.startswith(base)]
            anchors[url] = set(page.evaluate(ANCHORS))
            if screenshots:
                name = path.removesuffix(".html").replace("/", "-")
                page.screenshot(path=screenshots / f"{name}-{window}.png", full_page=True)
            page.close()
    page = browser.new_page()
    return faults + broken(links, anchors, page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="keep a picture of every page")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        parser.error("chromium must be on the PATH, as `apt-get install chromium` brings it")
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    paths = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.html"))
    if not paths:
        parser.error(f"there must be pages in {ROOT}, which `make docs` makes")
    handler = functools.partial(Silent, directory=ROOT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=chromium, args=OPTIONS)
        faults = look(browser, f"http://127.0.0.1:{server.server_port}", paths, arguments.screenshots)
        browser.close()
        server.shutdown()
    print("\n".join(faults) or f"{len(paths)} pages in {len(WINDOWS)} windows: nothing wrong")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
