"""What an image holds: its software bill of materials, and files that should not be in it. Run by the image's own Python, of which any will do.

    docker run --rm -i IMAGE python - sbom NAME < images/look.py         CycloneDX 1.5 as JSON on standard output
    docker run --rm -i --user 0 IMAGE python - check < images/look.py    exit 1, and a line a finding

Both look at what is really installed, not at what was asked for.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any


def bill(name: str, root: Path = Path("/")) -> dict[str, Any]:
    """Every Python distribution and every Debian package of the image, with version, licence and package URL."""
    found = {f"{part['purl']}": part for part in [*_python(), *_debian(root)]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "bom-ref": name}},
        "components": [found[purl] for purl in sorted(found)],
    }


def _python() -> Iterator[dict[str, Any]]:
    for distribution in distributions():
        meta = distribution.metadata
        name = re.sub(r"[-_.]+", "-", meta["Name"]).lower()
        licence = meta.get("License-Expression") or (meta.get("License") or "").strip().split("\n")[0][:100]
        yield _component(name, distribution.version, f"pkg:pypi/{name}@{distribution.version}", licence)
    version = "{}.{}.{}".format(*sys.version_info[:3])
    yield _component("python", version, f"pkg:generic/python@{version}", "PSF-2.0")


def _debian(root: Path) -> Iterator[dict[str, Any]]:
    try:
        text = (root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    except FileNotFoundError:  # another system
        return
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", block, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            purl = f"pkg:deb/debian/{fields['Package']}@{fields['Version']}?arch={fields['Architecture']}"
            yield _component(fields["Package"], fields["Version"], purl, "")


def _component(name: str, version: str, purl: str, licence: str) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return part | ({"licenses": [{"license": {"name": licence}}]} if licence and licence != "UNKNOWN" else {})


def findings(root: Path = Path("/")) -> Iterator[str]:
    """Files that run as somebody else (setuid, setgid), and files and folders that everybody may write; other file systems are left out.

    A folder like /tmp, in which nobody may touch another's files (sticky), is as it should be.
    """
    device = root.lstat().st_dev
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if _device(Path(folder, name)) == device]
        for path in [Path(folder), *(Path(folder, name) for name in files)]:
            try:
                about = path.lstat()
            except OSError:
                continue
            mode = about.st_mode
            if about.st_dev != device:
                continue
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                yield f"{path} runs as its owner or group ({stat.filemode(mode)})"
            if not stat.S_ISLNK(mode) and mode & stat.S_IWOTH and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
                yield f"{path} may be written by everybody ({stat.filemode(mode)})"


def _device(path: Path) -> int:
    try:
        return path.lstat().st_dev
    except OSError:
        return -1


def main(arguments: list[str]) -> int:
    """The exit code: 1 where something was found."""
    if arguments[:1] == ["sbom"] and len(arguments) == 2:
        print(json.dumps(bill(arguments[1]), indent=1))
        return 0
    if arguments == ["check"]:
        found = list(findings())
        print("\n".join(found) or "no setuid or setgid file, and nothing that everybody may write")
        return 1 if found else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
