"""A probe's findings go through a log and come back as they were."""

from curricle.errors import Finding
from curricle.launch.probe import findings_line, read_findings
from curricle.steps import probe

FINDINGS = [Finding("store, worker: write", True, "done"), Finding("store, worker: read", False, 'a "b"', "do it")]


def test_findings_survive_a_log_whose_lines_carry_a_prefix():
    lines = ["[master-0] starting", f"[master-0] {findings_line(FINDINGS)}", "[master-0] bye"]
    assert read_findings(lines) == FINDINGS and read_findings([findings_line([])]) == []


def test_a_probe_that_left_no_findings_is_told_from_one_that_found_nothing():
    assert read_findings(["Traceback"]) is None and read_findings([]) is None


def test_the_probe_prints_what_its_launcher_reads(tmp_path, capsys):
    probe.main(str(tmp_path))
    findings = read_findings(capsys.readouterr().out.splitlines())
    assert findings is not None and all(finding.ok for finding in findings)
    assert [finding.name for finding in findings] == [
        "worker", *(f"store, worker: {verb}" for verb in ("open", "write", "read", "list", "delete"))
    ]  # fmt: skip
