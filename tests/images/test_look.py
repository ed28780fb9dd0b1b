"""The look into an image: what is installed, and files that should not be there; and that both images are made so that none is."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOOK = ROOT / "images/look.py"
spec = importlib.util.spec_from_file_location("look", LOOK)
look = importlib.util.module_from_spec(spec)
spec.loader.exec_module(look)


def test_files_that_run_as_others_or_that_everybody_may_write_are_found(tmp_path):
    modes = {"su": 0o4755, "chage": 0o2755, "open": 0o666, "fine": 0o755, "private": 0o600}
    for name, mode in modes.items():
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    for name, mode in {"tmp": 0o1777, "shared": 0o777, "staff": 0o2775}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to("fine")
    (tmp_path / "nowhere").symlink_to("absent")
    found = {line.split()[0].rpartition("/")[2]: line for line in look.findings(tmp_path)}
    assert set(found) == {"su", "chage", "open", "shared"}
    assert "runs as its owner or group (-rwsr-xr-x)" in found["su"] and "written by everybody" in found["shared"]


def test_the_bill_holds_python_distributions_and_debian_packages(tmp_path):
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    parts = {part["purl"]: part for part in look.bill("x", tmp_path)["components"]}
    assert parts["pkg:deb/debian/libc6@2.36-9?arch=amd64"]["version"] == "2.36-9"
    assert not [purl for purl in parts if "gone" in purl] and len(parts) > 50
    minio = next(part for purl, part in parts.items() if purl.startswith("pkg:pypi/minio@"))
    assert minio["licenses"] == [{"license": {"name": "Apache-2.0"}}] and minio["bom-ref"] == minio["purl"]


def test_it_runs_from_standard_input_as_the_make_targets_run_it():
    command = [sys.executable, "-I", "-", "sbom", "curricle/control:dev"]
    done = subprocess.run(command, input=LOOK.read_text(), capture_output=True, text=True)
    bill = json.loads(done.stdout)
    assert bill["metadata"]["component"]["name"] == "curricle/control:dev" and bill["bomFormat"] == "CycloneDX"
    done = subprocess.run([*command[:3], "what"], input=LOOK.read_text(), capture_output=True, text=True)
    assert done.returncode == 2 and "check" in done.stderr


@pytest.mark.parametrize("image", ["control", "trainer"])
def test_both_images_lose_setuid_bits_before_they_change_to_their_user(image):
    lines = (ROOT / "images" / image / "Dockerfile").read_text().splitlines()
    (strip,) = [number for number, line in enumerate(lines) if line.startswith("RUN find / ") and "chmod a-s" in line]
    assert lines.index("USER 10001:10001") > strip > max(n for n, line in enumerate(lines) if line.startswith("FROM "))
