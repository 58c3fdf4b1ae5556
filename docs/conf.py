"""The documentation site: ``make docs`` builds it, and every warning is an error.

Guides are the files of this folder as they stand. Made at every build: a page for each command, from its help; the
pages that live elsewhere in the project; and the tutorials, whose cells are run.
"""

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from site_pages import adapt_links, write_pages  # noqa: E402

project = "canal"
author = "The canal founders"
project_copyright = f"2026, {author}"
version = release = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "myst-nb"}

# Markdown as on the repository's page: headings are targets of links, a missing one is a warning and so an error.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]

# Tutorials are run in a folder that is thrown away; an error in one ends the build.
nb_execution_mode = os.environ.get("CANAL_DOCS_EXECUTE", "force")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds a cell
nb_merge_streams = True
nb_output_stderr = "remove"  # bars of progress, line by line

# The kernel's notice that it listens on this machine is no warning of ours: its log begins at errors.
os.environ["IPYTHONDIR"] = str(HERE / "_build" / "ipython")
_profile = HERE / "_build" / "ipython" / "profile_default"
_profile.mkdir(parents=True, exist_ok=True)
(_profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n", encoding="utf-8")

# Docstrings are numpydoc; a name in single backticks is code.
napoleon_google_docstring = False
napoleon_use_rtype = False
default_role = "code"
smartquotes = False  # `--out` in a sentence of a help text stays what it is
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures with every type are longer than what they say; the parameters are described
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True

html_theme = "sphinx_book_theme"
html_title = f"canal {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "home_page_in_toc": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the field to search is in the side bar
}
html_copy_source = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# `make docs` looks at every link within the site by itself (check_site.py); `make linkcheck` at those to the world.
linkcheck_ignore = [r"https://[a-z]+\.example\.org.*"]
linkcheck_timeout = 20


def setup(app: Any) -> None:
    """Make the pages that are made, and adapt links as pages are read."""
    write_pages(HERE)
    app.connect("source-read", adapt_links)
