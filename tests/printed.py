"""Pages run as they are printed: README's section on NER, and the tutorials.

    python -m tests.printed docs/tutorials/ner-team.md      # or README.md: prints each block with its output, to be put into the page

A tutorial's blocks are run from top to bottom in a fresh folder that holds what a clone does:

    ```bash                run by the shell; the next block ```text is what it prints, numbers aside, `...` for lines left out
    ```python              run; those between two of the shell share one interpreter
    ```yaml FOLDER/FILE    written to that file (any language)
    ```bash cluster        needs a cluster: run with the marker `cluster` alone
    ```bash kubeflow       needs a server of Kubeflow Pipelines or images that somebody built: not run; its commands are parsed
    ```bash install        not run: fetches packages
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docs._ext.printed import Block, blocks

ROOT = Path(__file__).parents[1]
SECTION = "## Continued training (NER)"
PRELUDE = """set -eo pipefail
curricle() { "$PYTHON" -c "from curricle.cli import main; main()" "$@"; }
python() { "$PYTHON" "$@"; }
if test -n "$CURRICLE_KUBECTL"; then kubectl() { $CURRICLE_KUBECTL "$@"; }; fi
test ! -f .exported || . ./.exported
"""
"""What makes a printed line this checkout's; `export` in one block holds for the next ones, as in a reader's shell."""
EPILOGUE = "\nexport -p | grep -E ' (CURRICLE_CLUSTER|KF_[A-Z_]+)=' > .exported || true\n"
NOT_RUN = {"kubeflow", "install"}
CLONE = ("config", "kfp_pipelines/compiled", "manifests")


def section() -> str:
    """README's section on NER."""
    return (ROOT / "README.md").read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0]


def commands() -> list[str]:
    """Its command lines, and that of the pipeline that trains further, in the order of the page."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    printed = "".join(re.findall(r"```\n(.*?)```", section(), re.DOTALL))
    pipeline = [line for line in page.splitlines() if "compiled/continued_training.yaml" in line]
    return [line for line in printed.splitlines() if re.search(r"^curricle |\| curricle ", line)] + pipeline


def clone(folder: Path) -> None:
    """What a fresh clone holds of what the commands read."""
    for name in CLONE:
        shutil.copytree(ROOT / name, folder / name)


def run(script: str, folder: Path, *, one_stream: bool = False) -> subprocess.CompletedProcess[str]:
    """Printed lines by the shell, `curricle` being this checkout's; nothing is fetched.

    Args:
        one_stream: both outputs as a terminal would show them, in `stdout`.
    """
    given = {
        "PYTHON": sys.executable,
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "COLUMNS": "150",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.run(
        ["bash", "-c", f"{PRELUDE}{script}{EPILOGUE}"],
        cwd=folder,
        env={**os.environ, **given, **_kubectl()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if one_stream else subprocess.PIPE,
        text=True,
        timeout=1800,
    )


def run_all(folder: Path) -> Iterator[tuple[str, subprocess.CompletedProcess[str]]]:
    """Each line of README's section with what came of it; ends at the first that fails."""
    for line in commands():
        done = run(line, folder)
        yield line, done
        if done.returncode:
            return


@dataclass(frozen=True)
class Shown:
    """A block that was run, what came of it, and what the page says comes of it (empty: nothing is said)."""

    block: Block
    output: str
    exit_code: int
    expected: str


def run_page(page: Path, folder: Path, *, cluster: bool = False) -> Iterator[Shown]:
    """A page's blocks one after the other, in a folder; ends at the first that fails.

    Args:
        cluster: also those that need a cluster.
    """
    left = blocks(page)
    while left:
        block, *left = left
        if block.file:
            file = folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        elif _runs(block, cluster):
            together = [(block, _expected(left))]
            while block.language == "python" and left and not left[0].file:
                after, *rest = left
                if _runs(after, cluster):
                    if after.language == "bash":
                        break
                    together.append((after, _expected(rest)))
                left = rest
            for shown in _run_together(together, folder):
                yield shown
                if shown.exit_code:
                    return


def has_kubectl() -> bool:
    """Whether the pages' kubectl lines can run here."""
    return bool(os.environ.get("CURRICLE_KUBECTL") or shutil.which("kubectl"))


def _kubectl() -> dict[str, str]:
    """Where kubectl is, also from another folder: its path may be relative to the checkout."""
    program, *rest = shlex.split(os.environ.get("CURRICLE_KUBECTL", "")) or [""]
    return {"CURRICLE_KUBECTL": shlex.join([str((ROOT / program).resolve()), *rest])} if "/" in program else {}


def _runs(block: Block, cluster: bool) -> bool:
    """Whether a block is run; one that shows a file is not."""
    told = set(block.words[1:])
    return block.language in ("bash", "python") and not (
        block.file or told & NOT_RUN or ("cluster" in told and not cluster)
    )


def _expected(left: list[Block]) -> str:
    """What a page says that the block before these prints."""
    return left[0].text if left and left[0].words == ("text",) else ""


def _run_together(together: list[tuple[Block, str]], folder: Path) -> Iterator[Shown]:
    """One block of the shell, or several of Python in one interpreter."""
    if together[0][0].language == "bash":
        ((block, expected),) = together
        done = run(block.text, folder, one_stream=True)
        yield Shown(block, done.stdout, done.returncode, expected)
        return
    mark = "---- next block ----"
    script = "".join(f"{block.text}\nprint({mark!r}, flush=True)\n" for block, _ in together)
    (folder / ".page.py").write_text(script, encoding="utf-8")
    done = run("python .page.py", folder, one_stream=True)
    said = done.stdout.split(f"{mark}\n")
    for number, (block, expected) in enumerate(together[: len(said)]):
        failed = number == len(said) - 1
        yield Shown(block, said[number], done.returncode if failed else 0, expected)


PARTS = re.compile(r"(?P<digest>\b[0-9a-f]{8,64}\b)|(?P<number>[-+]?\d+(?:[.,]\d+)*)|(?P<gap> +)|.")
MEANS = {"digest": "[0-9a-f]+", "number": r"[-+]?[\d.,]+", "gap": r"\s+"}
"""What may differ between a printed line and a run's, and what it may be."""


def missing_lines(expected: str, output: str) -> list[str]:
    """Lines that a page prints and a run did not, in this order; numbers, digests and the width of gaps may differ."""
    said, missing = output.splitlines(), []
    for line in expected.splitlines():
        if not line.strip() or line.strip() == "...":
            continue
        pattern = "".join(MEANS.get(part.lastgroup or "", re.escape(part[0])) for part in PARTS.finditer(line.strip()))
        found = next((n for n, text in enumerate(said) if re.fullmatch(pattern, text.strip())), None)
        if found is None:
            missing.append(line)
        else:
            said = said[found + 1 :]
    return missing


def main() -> None:
    """Print all of a page."""
    page, start = ROOT / (sys.argv[1] if sys.argv[1:] else "README.md"), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        clone(Path(place))
        if page.name == "README.md":
            ran = ((line, done.stdout + done.stderr, done.returncode) for line, done in run_all(Path(place)))
        else:
            ran = ((shown.block.text, shown.output, shown.exit_code) for shown in run_page(page, Path(place)))
        for text, output, code in ran:
            print(f"$ {text.rstrip()}\n{output}[{code}, {time.monotonic() - start:.0f} s]\n", flush=True)


if __name__ == "__main__":
    main()
