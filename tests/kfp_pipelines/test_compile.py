"""The committed YAML is what the code compiles."""

from pathlib import Path

import pytest

from curricle.errors import OutputError
from kfp_pipelines.compile import compile_all, write

REPOSITORY = Path(__file__).parents[2]


def test_the_committed_pipelines_equal_what_the_code_compiles(tmp_path):
    fresh = compile_all(tmp_path, config_dir=REPOSITORY / "config")
    committed = REPOSITORY / "kfp_pipelines" / "compiled"
    assert [p.name for p in fresh] == [p.name for p in sorted(committed.glob("*.yaml"))]
    stale = [p.name for p in fresh if p.read_bytes() != (committed / p.name).read_bytes()]
    assert not stale, f"compile again and read the diff: {', '.join(stale)}"


def test_a_file_that_is_no_compiled_pipeline_is_not_overwritten(tmp_path):
    """A chain's own file is called as its pipeline: ``compile -o config/text_curriculum`` would have replaced it."""
    mine = tmp_path / "chain_smoke.yaml"
    mine.write_text("chain_name: mine\n")
    for place in (mine, tmp_path):
        with pytest.raises(OutputError, match="did not write it|is a folder"):
            write(len, place)
    with pytest.raises(OutputError, match="chain_smoke.yaml is there already"):
        compile_all(tmp_path, config_dir=REPOSITORY / "config")
    assert mine.read_text() == "chain_name: mine\n" and list(tmp_path.iterdir()) == [mine]
