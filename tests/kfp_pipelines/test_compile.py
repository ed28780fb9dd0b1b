"""The committed YAML is what the code compiles."""

from pathlib import Path

from kfp_pipelines.compile import compile_all

REPOSITORY = Path(__file__).parents[2]


def test_the_committed_pipelines_equal_what_the_code_compiles(tmp_path):
    fresh = compile_all(tmp_path, config_dir=REPOSITORY / "config")
    committed = REPOSITORY / "kfp_pipelines" / "compiled"
    assert [p.name for p in fresh] == [p.name for p in sorted(committed.glob("*.yaml"))]
    stale = [p.name for p in fresh if p.read_bytes() != (committed / p.name).read_bytes()]
    assert not stale, f"compile again and read the diff: {', '.join(stale)}"
