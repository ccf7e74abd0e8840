"""The code that draws charts in a browser, from an installed package: nothing is loaded from a network."""

from __future__ import annotations

import contextlib
from importlib.metadata import version

from archtuna.data.cache import cache_folder
from archtuna.errors import MissingExtraError
from archtuna.files import write_atomically

VEGA_LITE = "6.4"
"""Version of the charts' language."""

PACKAGE, SNIPPET = "vl-convert-python", "window.vegaEmbed = vegaEmbed;"


def bundle() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script, about 0.9 MB, that puts ``vegaEmbed`` into the window.

    Putting it together takes seconds, so that it is kept in the cache.

    Raises:
        MissingExtraError: the package that has it is not installed.
    """
    try:
        from vl_convert import javascript_bundle
    except ImportError:
        raise MissingExtraError(PACKAGE, "report") from None
    kept = cache_folder() / f"vega-{VEGA_LITE}-{version(PACKAGE)}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return kept.read_text(encoding="utf-8")
    made = str(javascript_bundle(SNIPPET, VEGA_LITE))
    with contextlib.suppress(OSError):  # It is a help, not a need.
        write_atomically(kept, made.encode())
    return made
