"""The site is built without a warning, opens from its folder without a network, and has no dead end."""

import re
import subprocess
import sys
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.printed import ROOT
from tests.report.browser import Browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    options = re.search(r"python -m (sphinx .*) --doctree-dir", (ROOT / "Makefile").read_text())
    command = [sys.executable, "-m", *options[1].split(), "--doctree-dir", str(folder / "trees"), "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class _Ends(HTMLParser):
    """Where a page leads to, what it fetches, and the names in it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names |= {value for name in ("id", "name") if (value := given.get(name))}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif given.get("src") or (tag == "link" and given.get("href")):
            self.fetched.append(given.get("src") or given["href"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, _Ends]:
    found = {}
    for path in sorted(site.rglob("*.html")):
        found[path] = _Ends()
        found[path].feed(path.read_text(encoding="utf-8"))
    return found


def test_every_link_and_file_of_a_page_is_there(site: Path, pages: dict[Path, _Ends]):
    wrong = []
    for page, ends in pages.items():
        for address in (*ends.links, *ends.fetched):
            parts = urlsplit(address)
            if parts.scheme or address == "#":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.is_file():
                wrong.append(f"{page.relative_to(site)} → {address}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].names:
                wrong.append(f"{page.relative_to(site)} → {address}: no such place")
    assert len(pages) > 25 and wrong == []


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, _Ends]):
    away = [
        (page.name, one)
        for page, ends in pages.items()
        for one in ends.fetched
        if urlsplit(one).scheme not in ("", "data")
    ]
    styles = [
        path for path in site.rglob("*.css") if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text())
    ]
    assert away == [] and styles == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.mark.parametrize(
    "name", ["index", "concepts", "tutorials/coding-office", "reference/commands", "reference/configuration"]
)
@pytest.mark.parametrize("width", [1400, 400])
def test_a_page_opens_in_a_browser_offline(name: str, width: int, site: Path, browser: Browser):
    with closing(browser.page((site / f"{name}.html").as_uri(), width=width, dark=width == 400)) as page:
        assert page.errors == [] and [one for one in page.asked if not one.startswith(("file:", "data:"))] == []
        assert page.run("document.documentElement.scrollWidth") <= width, "something sticks out"


def test_the_search_finds_pages_offline(site: Path, browser: Browser):
    with closing(browser.page(f"{(site / 'search.html').as_uri()}?q=promoted")) as page:
        page.wait("document.querySelectorAll('#search-results li a').length > 3")
        assert page.errors == []
