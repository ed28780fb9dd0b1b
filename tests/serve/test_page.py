"""The page in a real browser: it asks, shows, hides and codes; nothing comes from elsewhere, and no text is taken for markup. Skips where there is no Chromium."""

import base64
import csv
import io

import pytest

from tests.report.browser import Browser
from tests.serve.world import EVIL


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def ask(page, text: str) -> None:
    page.run(f"document.getElementById('ask-text').value = {text!r}")
    page.run("document.getElementById('ask-go').click()")
    page.wait("document.getElementById('ask-said').textContent.endsWith('ms')")


def is_quiet(page, server) -> None:
    assert page.errors == [] and all(url.startswith((server.url, "data:", "blob:")) for url in page.asked), page.asked
    assert page.run("document.title") != "taken", "no text of anybody ran as a script"


@pytest.mark.parametrize("place", ["", "docs"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
@pytest.mark.parametrize("family", ["codes", "ner"])
def test_a_page_opens_in_silence_and_fits(browser, request, family, width, dark, place):
    server = request.getfixturevalue(family)
    page = browser.page(server.url + place, width=width, dark=dark)
    if not place:
        ask(page, f"Anna sees beer hops {EVIL} {'long' * 60}")
    assert page.run("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(18, 23, 30)" if dark else "rgb(255, 255, 255)")
    named = "[...document.querySelectorAll('button,select,input,textarea,canvas,meter,progress')].filter(e => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).length"
    assert page.run(named) == 0, "each control has a name"
    is_quiet(page, server)
    page.close()


def test_a_text_gets_its_codes_reasons_and_places_on_the_disc(browser, codes):
    page = browser.page(codes.url)
    ask(page, "beer brewery number 3")
    first = page.run("document.querySelector('#hits li.chosen').textContent")
    assert first.startswith(f"12brewery of beer {EVIL}") and "1 Food" in first and "like these texts" in first
    disc = "document.getElementById('disc-canvas').dataset"
    assert page.run(f"{disc}.chosen") == "12" and page.run(f"{disc}.marks").split()[0] == "12"
    drawn = page.run("document.getElementById('disc-canvas').toDataURL()")
    page.run("document.querySelectorAll('#hits .place')[1].click()")
    page.wait(f"document.getElementById('disc-canvas').toDataURL() !== {drawn!r}")
    chosen = page.run("document.querySelector('#hits li.chosen b').textContent")
    assert chosen != "12" and page.run(f"{disc}.chosen") == chosen
    assert len(page.run(f"{disc}.text").split()) == 2 and page.run("!document.getElementById('disc-text').hidden"), (
        "the text itself"
    )
    for place in range(page.run("document.querySelectorAll('#hits .place').length")):
        page.run(f"document.querySelectorAll('#hits .place')[{place}].click()")
        left, top, right, bottom = map(int, page.run(f"{disc}.label").split())
        wide, high = page.run("(c => [c.clientWidth, c.clientHeight])(document.getElementById('disc-canvas'))")
        assert 0 <= left < right <= wide and 0 <= top < bottom <= high, "the label of the chosen code stands whole"
        framed = f"{disc}.text.split(' ').every(at => at >= 8 && at <= Math.min({wide}, {high}) - 8)"
        page.wait(framed)
        page.run("new Promise(done => setTimeout(done, 500))")
        assert page.run(framed), "so does the cross of the text, where the view comes to rest"
    page.run("document.querySelector('#hits summary').click()")
    is_quiet(page, codes)
    page.close()


def test_a_question_is_sent_by_the_keyboard_and_an_error_is_shown_as_text(browser, codes):
    page = browser.page(codes.url)
    page.run("document.getElementById('ask-text').focus()")
    page.call("Input.insertText", text="wool yarn")
    page.key("Enter", "Enter", 13, "\r")
    page.wait(
        "document.querySelectorAll('#hits li').length === 5 || document.querySelectorAll('#hits li').length === 4"
    )
    page.run("document.getElementById('ask-text').removeAttribute('maxlength')")
    page.run("document.getElementById('ask-text').value = 'x'.repeat(10001); document.getElementById('ask-go').click()")
    page.wait("document.getElementById('ask-said').classList.contains('wrong')")
    assert "at most 10000 characters" in page.run("document.getElementById('ask-said').textContent")
    assert page.run("document.getElementById('hits').children.length") == 0, "no codes of another text stay"
    assert page.run("document.getElementById('disc-canvas').dataset.marks") == ""
    page.close()


def test_entities_are_highlighted_where_they_stand_and_hidden_by_the_slider(browser, ner):
    page = browser.page(ner.url)
    ask(page, f"\U0001f37a Anna sees train 7 {EVIL}")
    marked = "document.querySelector('#marked mark')"
    assert page.run(f"{marked}.firstChild.textContent") == "Anna" and "NAME" in page.run(f"{marked}.textContent")
    words = "(box => { for (const label of box.querySelectorAll('small')) label.remove(); return box.textContent; })(document.getElementById('marked').cloneNode(true))"
    assert page.run(words).endswith(EVIL)
    assert page.run("document.getElementById('spans').rows[0].cells[3].textContent") == "2–6"
    page.run("document.getElementById('least').focus()")
    page.key("End", "End", 35)
    page.wait("document.getElementById('least-said').textContent === '99 %'")
    is_quiet(page, ner)
    page.close()


def test_a_table_is_dropped_coded_and_downloaded(browser, codes, tmp_path):
    page = browser.page(codes.url)
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    content = base64.b64encode(
        f'id,text\n1,beer hops\n2,"wool {EVIL.replace(chr(34), chr(34) * 2)}"\n3,a,b\n'.encode()
    ).decode()
    page.run(
        f"(data => {{ data.items.add(new File([Uint8Array.from(atob('{content}'), c => c.charCodeAt(0))], 'answers.csv')); "
        "document.getElementById('drop').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})); })(new DataTransfer())"
    )
    page.wait("!document.getElementById('order').hidden")
    assert page.run("document.getElementById('column').selectedOptions[0].textContent") == "text"
    assert page.run("document.getElementById('sample').textContent").endswith(EVIL)
    page.run("document.getElementById('table-go').click()")
    page.wait("!document.getElementById('save').hidden", 60)
    said = page.run("document.getElementById('table-said').textContent")
    assert said.startswith("2 rows: ") and said.endswith("; 1 more is no row.")
    wrong = "document.getElementById('file-said').classList.contains('wrong')"
    for name in ("photo.png", "broken.xlsx"):
        page.run(
            f"(box => {{ const held = new DataTransfer(); held.items.add(new File(['no table'], {name!r})); box.files = held.files; box.dispatchEvent(new Event('change')); }})(document.getElementById('file'))"
        )
        page.wait(f"{wrong} && document.getElementById('file-said').textContent.startsWith({name!r})")
    assert page.run("!document.getElementById('save').hidden"), "the result of the table before stays"
    assert len(page.errors) == 1 and "422" in page.errors.pop(), "of the one that the server refused"
    page.run("document.getElementById('save').click()")
    page.run("document.getElementById('save-rejects').click()")
    page.wait("true", 1)
    for name in ("answers-coded.csv", "answers-rejects.csv"):
        while not (tmp_path / name).is_file():
            page.wait("true")
    rows = list(csv.reader(io.StringIO((tmp_path / "answers-coded.csv").read_text())))
    assert rows[1][:3] == ["1", "beer hops", "12"] and rows[2][1].endswith(EVIL) and len(rows) == 3
    page.run("document.getElementById('forget').click()")
    page.wait("document.getElementById('table-said').textContent === 'It is forgotten.'")
    is_quiet(page, codes)
    page.close()
