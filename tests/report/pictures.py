"""The pictures of README, of what `curricle serve` shows in a browser:

python -m tests.report.pictures codes http://127.0.0.1:8000/ "we brew craft beer" docs/_static/codes.png
python -m tests.report.pictures entities http://127.0.0.1:8001/ http://127.0.0.1:8002/ "The print preview in Kite is gone." docs/_static/entities.png
"""

import sys
import tempfile
from pathlib import Path

from tests.report.browser import Browser, Page


def asked(browser: Browser, url: str, text: str, width: int, height: int) -> Page:
    """A server's page that has answered a text."""
    page = browser.page(url, width=width, height=height)
    page.run(f"document.getElementById('ask-text').value = {text!r}")
    page.run("document.getElementById('ask-go').click()")
    page.wait("document.getElementById('ask-said').textContent.endsWith('ms')")
    return page


def codes(browser: Browser, url: str, text: str, target: str) -> None:
    """The codes of a text and where they stand among all."""
    page = asked(browser, url, text, 1240, 900)
    page.run("[...document.querySelectorAll('button')].find(one => one.textContent.trim() === 'whole disc').click()")
    page.picture(Path(target), whole=False)


def entities(browser: Browser, before: str, after: str, text: str, target: str) -> None:
    """What two models find in one text, one below the other."""
    page = asked(browser, before, text, 1060, 250)
    other = asked(browser, after, text, 1060, 250)
    first, second = (one.run("document.getElementById('marked').outerHTML") for one in (page, other))
    said = "<h3>before: trained on business news</h3>", "<h3>after: trained further on support tickets</h3>"
    page.run(f"document.body.innerHTML = {said[0] + first + said[1] + second!r}")
    page.run(
        "document.body.style.cssText = 'margin: 0; padding: 4px 28px; max-width: none'"
    )  # the page's policy refuses style sheets of others
    page.picture(Path(target), whole=False)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as profile:
        opened = Browser(Path(profile))
        {"codes": codes, "entities": entities}[sys.argv[1]](opened, *sys.argv[2:])
        opened.close()
