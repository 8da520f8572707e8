"""Settings of the documentation site; ``make docs`` builds it in ``docs/_build/html``."""

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "tesseral"
author = "the authors of tesseral"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "generated",
    "mathml",
]
exclude_patterns = ["_build"]
language = "en"
highlight_language = "text"
smartquotes = False  # it turns the dashes of options into one
default_role = "literal"  # `name` in a docstring is code

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

autoclass_content = "both"  # the docstring of the class, then the arguments of __init__
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autodoc_typehints_format = "short"
autodoc_mock_imports = [] if find_spec("torch_sim") else ["torch_sim"]  # needs Python 3.11
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "tesseral"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
