"""A CSV is coded row by row: what is kept, what is refused, and that nothing half-written is left."""

from pathlib import Path

import pytest

from curricle.errors import DataError, OutputError
from curricle.steps.assign import assign_csv


class Length:
    """Codes a text by its length."""

    columns = ("length",)

    def assign(self, texts):
        return [(str(len(text)),) for text in texts]


def test_every_column_is_kept_and_the_coders_are_added(tmp_path: Path):
    source = tmp_path / "in.csv"
    source.write_text('id,text\n1,"a, b"\n2,\n', encoding="utf-8-sig")
    assert assign_csv(source, "text", tmp_path / "out.csv", Length) == 2
    assert (tmp_path / "out.csv").read_text().splitlines() == ["id,text,length", '1,"a, b",4', "2,,0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column 'text'; its columns: a, b"),
        ("text,length\nx,1\n", "already has the column length"),
        ("text,b\nx\n", "row 1 .line 2.: not as many cells"),
    ],
)
def test_what_is_refused_leaves_no_output(tmp_path: Path, text: str, message: str):
    source = tmp_path / "in.csv"
    source.write_text(text)
    with pytest.raises(DataError, match=message):
        assign_csv(source, "text", tmp_path / "out.csv", Length)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_the_input_is_never_overwritten(tmp_path: Path):
    source = tmp_path / "in.csv"
    source.write_text("text\nx\n")
    (tmp_path / "link.csv").symlink_to(source)
    for output in (source, tmp_path / "link.csv"):
        with pytest.raises(OutputError, match="never overwritten"):
            assign_csv(source, "text", output, Length)
    assert source.read_text() == "text\nx\n"


def test_the_same_output_may_be_written_again_and_has_the_permissions_of_a_new_file(tmp_path: Path):
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\nx\n")
    for _ in range(2):
        assert assign_csv(source, "text", output, Length) == 1
    assert output.read_text().splitlines() == ["text,length", "x,1"]
    assert output.stat().st_mode == source.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]
