"""The default set: the repository's folder `config/`, which the wheel carries as `curricle/config/shipped`.

In a checkout `shipped` is a link to that folder, so that there is one copy; building a wheel follows the link.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("config")
"""Where a project keeps its own set, seen from the folder that a command runs in."""
SHIPPED = Path(__file__).parent / "shipped"


def config_file(path: Path) -> Path:
    """Where a file or folder of the configuration is read: at `path`, or in the shipped set.

    The shipped set stands in for a whole folder `config/` that is not here, never for one file that is missing from a folder that is. A path
    that stands nowhere is returned as it came, so that whoever reads it says what is missing.
    """
    if path.exists() or FOLDER.exists() or not path.is_relative_to(FOLDER):
        return path
    shipped = SHIPPED / path.relative_to(FOLDER)
    return shipped if shipped.exists() else path


def data_root(folder: Path) -> Path:
    """The folder that the data folders named in a configuration's files are relative to: its own.

    The shipped set is read where it is installed, and stands in for a folder `config/` here: so its data lie here too.
    """
    return FOLDER / folder.relative_to(SHIPPED) if folder.is_relative_to(SHIPPED) else folder
