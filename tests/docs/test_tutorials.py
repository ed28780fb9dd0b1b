"""Each tutorial runs from top to bottom as it is printed, and prints what it says (`tests/printed.py`)."""

import re
from pathlib import Path

import pytest

from docs._ext.printed import blocks
from tests import printed

FOLDER = printed.ROOT / "docs/tutorials"
TUTORIALS = [FOLDER / f"{name}.md" for name in ("coding-office", "ner-team", "kubeflow-admin", "python-user")]
KNOWN = {"cluster", "kubeflow", "install"}


def test_there_is_one_for_each_reader_and_each_is_run_here():
    assert sorted(FOLDER.glob("*.md")) == sorted(TUTORIALS)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_its_blocks_are_ones_that_can_be_run(page: Path):
    found = blocks(page)
    assert [b for b in found if not b.words] == [], "a block without a language is neither run nor compared"
    ran = [b for b in found if b.language in ("bash", "python") and not (b.file or set(b.words[1:]) & printed.NOT_RUN)]
    assert len(ran) >= 4 and {word for b in found if b.language == "bash" for word in b.words[1:]} <= KNOWN
    assert not [b for b in ran if re.search(r"<\w+>", b.text)], "a place to fill in"


def _run(page: Path, folder: Path, **asked) -> None:
    if "kubectl " in page.read_text(encoding="utf-8") and not printed.has_kubectl():
        pytest.skip(f"{page.name} needs kubectl, which is not on the PATH (or set CURRICLE_KUBECTL)")
    printed.clone(folder)
    for shown in printed.run_page(page, folder, **asked):
        where = f"{page.name}:{shown.block.line}\n{shown.block.text}"
        assert shown.exit_code == 0, f"{where}{shown.output}"
        assert printed.missing_lines(shown.expected, shown.output) == [], f"{where}{shown.output}"


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_it_runs_as_printed_and_prints_what_it_says(page: Path, tmp_path: Path):
    _run(page, tmp_path)


def test_the_stage_that_the_page_on_extending_adds_is_listed_and_planned(tmp_path: Path):
    """Its family, launcher and store are held by the laws (`tests/laws`, `tests/store`)."""
    _run(printed.ROOT / "docs/extending.md", tmp_path)


@pytest.mark.cluster
def test_what_needs_a_cluster_runs_on_one(kubeconfig: str, tmp_path: Path):
    _run(FOLDER / "kubeflow-admin.md", tmp_path, cluster=True)


def test_what_a_page_prints_is_compared_with_what_came():
    output = "a  12.5 of  7\nsecond\ndigest 0123456789ab\nthird -3"
    assert printed.missing_lines("a 1 of 2\n...\ndigest ffffffffffff\nthird 4\n", output) == []
    assert printed.missing_lines("a 1 of x\nthird 1\nsecond\n", output) == ["a 1 of x", "second"]


def test_a_page_is_run_in_order_and_ends_where_a_block_fails(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\nexport CURRICLE_CLUSTER=x\n```\n```yaml folder/file.yaml\na: 1\n```\n```bash\ncat folder/file.yaml; echo $CURRICLE_CLUSTER\n```\n"
        "```text\na: 1\n```\n```bash install\nexit 9\n```\n```python a/one.py\nx\n```\n```python\none = 1\nprint('no')\n```\n```python\nprint(one + 1)\n```\n```bash\nfalse\n```\n```bash\ntrue\n```\n"
    )
    shown = list(printed.run_page(page, tmp_path))
    assert [(s.output, s.exit_code) for s in shown] == [("", 0), ("a: 1\nx\n", 0), ("no\n", 0), ("2\n", 0), ("", 1)]
    assert [s.expected for s in shown] == ["", "a: 1\n", "", "", ""]
