"""How the pages become a site: ``make docs`` builds it into build/docs, and fails at any warning.

The source folder is the project's, so that a link from a page to a table of results or to an example is one that the build
checks, and that works where Markdown is read as it is. ``include_patterns`` says what becomes a page.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))

from sphinx.util.nodes import make_refnode  # noqa: E402

import archtuna  # noqa: E402

project = "archtuna"
version = release = archtuna.__version__
author = "The archtuna authors"
project_copyright = f"{author}, MIT licence"

root_doc = "docs/index"
include_patterns = ["docs/*.md", "benchmarks/results/*.md", "examples/notebooks/*.ipynb", "CHANGELOG.md"]
exclude_patterns = [".*", "build", "dist", "runs", "src", "tests", "**/.ipynb_checkpoints"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Notebooks are run by tests/test_notebooks.py, which says what went wrong; the site shows what stands in them.
nb_execution_mode = "off"
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = f"archtuna {release}"
html_static_path = []
html_additional_pages = {"index": "redirect.html"}
templates_path = ["_templates"]
html_show_sourcelink = False
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
python_maximum_signature_line_length = 88
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
nitpicky = True

# Annotations of other libraries, whose pages this build does not read, for it needs no network; and what no user names.
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|pathlib|typing|torch|numpy|np|PIL|optuna|os|contextlib)\..*"),
    (r"py:.*", r"random\.Random|Plain|Place|OnEvent|Spec|archtuna\.signature\.Bounds|[\d.]+"),
    (
        r"py:.*",
        r"(Logger|archtuna\.loggers\.aside\.Logger|Path|Tensor|nn\.Module|BaseSampler|BaseStorage|FrozenTrial|Image\.Image|Size|Fit)",
    ),
]


def find_ours(app, env, node, contnode):
    """Resolve a name of ours by its last part: annotations and docstrings name ``Data``, not ``archtuna.Data``."""
    domain = env.get_domain("py")
    name = node["reftarget"].rpartition(".")[2]
    found = [full for full in domain.objects if full.rpartition(".")[2] == name and full.startswith("archtuna.")]
    if len(found) != 1:
        return None
    target = domain.objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], target.docname, target.node_id, contnode, found[0])


def name_each(app, what, name, obj, options, lines):
    """Give each of several names that share a line (``val, test: their shares``) a line: napoleon takes one for a type."""
    for index in range(len(lines) - 1, -1, -1):
        if shared := re.fullmatch(r"(\s+)((?:\w+, )+)(\w+): (.*)", lines[index]):
            space, others, last, meaning = shared.groups()
            told = [f"{space}{other}: see ``{last}``." for other in others.strip(", ").split(", ")]
            lines[index : index + 1] = [*told, f"{space}{last}: {meaning}"]


def only_what_is_there(app, docname, source):
    """Leave pages out of the navigation that this version of the source does not have."""
    if docname == root_doc:
        source[0] = re.sub(
            r"^([\w-]+)\n", lambda m: m[0] * (ROOT / "docs" / f"{m[1]}.md").exists(), source[0], flags=re.M
        )


def setup(app):
    app.connect("source-read", only_what_is_there)
    app.connect("missing-reference", find_ours)
    app.connect("autodoc-process-docstring", name_each, priority=100)
