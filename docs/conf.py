"""The documentation site: `make docs` builds it into build/site, with no warning and nothing fetched.

Pages are the Markdown files of this folder; `index.md` lists them. The references are made from the code while the site is built (`_ext/pages.py`).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import curricle  # noqa: E402  # the line above says where it is

project = "Curricle"
author = "The Curricle authors"
copyright = f"2026, {author}"  # as LICENSE says
version = release = curricle.__version__
root_doc = "index"
exclude_patterns = ["_ext"]
extensions = [
    "docs._ext.pages",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 4
nitpicky = False
default_role = "literal"  # docstrings put code in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
copybutton_exclude = ".linenos, .gp, .go"
highlight_language = "none"

html_theme = "furo"
html_title = f"Curricle {release}"
html_static_path = ["_static"]
html_css_files = ["curricle.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # it fetches the found pages, which a browser refuses to a page of a folder
html_theme_options = {"navigation_with_keys": True}
