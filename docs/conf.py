"""The documentation's settings: `make docs` builds it, warnings are errors."""

import fastgru

project = "fastgru"
version = release = fastgru.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx_click"]
smartquotes = False
highlight_language = "text"

# Names in single backticks are links where there is something to link to, and code elsewhere: arguments,
# mostly. Those that begin with the package's name must be found.
default_role = "py:obj"
nitpick_ignore_regex = [("py:obj", r"(?!fastgru\.).*")]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more
autodoc_preserve_defaults = True  # np.float32 as it is written
numpydoc_show_class_members = False  # autodoc does

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"fastgru {version}"
html_static_path = ["_static"]
html_css_files = ["fastgru.css"]
html_copy_source = False
html_use_index = html_domain_indices = False
html_show_copyright = False
