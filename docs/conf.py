"""How the pages of docs/ become a site: ``make docs``. Nothing is fetched, here or by a reader."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "extensions")]

project = "inpaint_ops"
author = "the inpaint_ops authors"
copyright = "Apache-2.0"
declared = (DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")
release = version = re.findall(r'^version = "(.*)"$', declared, re.MULTILINE)[0]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docstrings",
    "mathml",
    "messages",
    "method_facts",
    "commands",
]
exclude_patterns = ["templates", "drawing", "extensions"]
# Typographers' quotes and dashes would change names of options.
smartquotes = False
show_warning_types = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# A formula stands between dollar signs without spaces, as on other sites that show Markdown.
myst_dmath_allow_space = False
myst_dmath_allow_digits = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
# Names in single backticks are code, as in Markdown.
# Formulas, see extensions/mathml.py.
html_math_renderer = "mathml"
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"inpaint_ops {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#8a1c7c", "color-brand-content": "#8a1c7c"},
    "dark_css_variables": {"color-brand-primary": "#e58ad8", "color-brand-content": "#e58ad8"},
    "top_of_page_buttons": [],
}
copybutton_prompt_text = "$ "
