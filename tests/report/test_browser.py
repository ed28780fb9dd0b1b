"""Reports in a real browser: they open in silence, fetch nothing, and what can be moved moves. Skips where there is no Chromium."""

import pytest

from curricle.report.build import write_reports
from tests.report import made_up
from tests.report.browser import Browser
from tests.report.made_up import RUN


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Family → the address of its run's report."""
    found = {}
    for family in ("codes", "ner"):
        folder = tmp_path_factory.mktemp(family)
        getattr(made_up, family)(folder)
        write_reports(str(folder), RUN)
        found[family] = (folder / RUN / "report.html").as_uri()
    return found


@pytest.mark.parametrize("family", ["codes", "ner"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_a_report_opens_in_silence_fetches_nothing_and_fits(browser, places, family, width, dark):
    page = browser.page(places[family], width=width, dark=dark)
    assert page.errors == [] and page.asked == [places[family]]
    assert page.run("document.title") == f"{RUN} · Curricle", "no text of anybody ran as a script"
    assert page.run("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(18, 23, 30)" if dark else "rgb(255, 255, 255)")
    named = "[...document.querySelectorAll('button,select,input,canvas')].filter(e => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).length"
    assert page.run(named) == 0, "each control has a name"
    page.close()


def test_the_disc_zooms_finds_and_goes_back_in_time(browser, places):
    page = browser.page(places["codes"])
    zoom = "+document.getElementById('disc-canvas').dataset.zoom"
    assert page.run(zoom) == 1
    page.run("document.getElementById('disc-canvas').scrollIntoView({block: 'center'})")
    box = page.run(
        "(b => [b.x + b.width / 2, b.y + b.height / 2])(document.getElementById('disc-canvas').getBoundingClientRect())"
    )
    drawn = "document.getElementById('disc-canvas').toDataURL().length"
    whole = page.run(drawn)
    page.mouse("mouseWheel", *box, deltaX=0, deltaY=-400)
    page.wait(f"{zoom} > 1.3")
    assert page.run(drawn) != whole
    page.run("document.getElementById('disc-canvas').focus()")
    page.key("0", "Digit0", 48, "0")
    page.wait(f"{zoom} === 1")
    page.key("+", "Equal", 187, "+")
    page.wait(f"{zoom} > 1")
    page.run("document.getElementById('disc-home').click()")
    page.run(
        "(f => { f.value = 'title 57 '; f.dispatchEvent(new Event('input')); })(document.getElementById('disc-find'))"
    )
    said = page.run("document.getElementById('disc-said').textContent")
    assert said.startswith("c57 Title 57 </script><script>"), "a title is text here too"
    page.run("document.querySelector('#disc-found button').click()")
    assert page.run("document.getElementById('disc-canvas').dataset.chosen") == "c57"
    now = page.run("document.getElementById('disc-canvas').toDataURL()")
    page.run("document.getElementById('disc-before').click()")
    assert page.run("document.getElementById('disc-before').getAttribute('aria-pressed')") == "true"
    page.wait(f"document.getElementById('disc-canvas').toDataURL() !== {now!r}")
    for way in ("level", "right", "top"):
        page.run(
            f"(s => {{ s.value = '{way}'; s.dispatchEvent(new Event('change')); }})(document.getElementById('disc-colour'))"
        )
    assert page.errors == []
    page.close()


@pytest.mark.parametrize(
    ("family", "key", "command"), [("codes", "automation", "--review-below"), ("ner", "coverage", "--threshold")]
)
def test_the_slider_moves_by_the_keyboard_and_tells_the_threshold(browser, places, family, key, command):
    page = browser.page(places[family])
    reading = f"document.getElementById('{key}-reading').textContent.replace(/\\s+/g, ' ')"
    line = f"document.getElementById('{key}-command').textContent"
    first, told = page.run(reading), page.run(line)
    assert command in told
    slider = f"document.getElementById('{key}-slider')"
    page.run(
        f"{slider}.value = Math.floor({slider}.max / 2); {slider}.dispatchEvent(new Event('input')); {slider}.focus()"
    )
    moved = page.run(reading)
    assert moved != first and page.run(line) != told
    page.key("ArrowRight", "ArrowRight", 39)
    page.wait(f"{reading} !== {moved!r}")
    assert page.run(f"{slider}.getAttribute('aria-valuetext')").startswith("threshold ")
    group = f"document.getElementById('{key}-group')"
    page.run(f"{group}.value = '1'; {group}.dispatchEvent(new Event('change'))")
    assert page.errors == []
    page.close()


def test_a_report_prints(browser, places):
    page = browser.page(places["ner"])
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert len(page.call("Page.printToPDF", printBackground=True)["data"]) > 20_000
    page.close()
