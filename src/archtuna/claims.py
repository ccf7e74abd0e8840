"""What a trial claims: one network, trained one way. Nothing that is claimed is evaluated again.

Networks that are equal are one claim in any spelling. How a claim is written depends on the versions of archtuna and torch; a
study's claims of other versions are written anew from the networks that its trials keep, so that they still count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from archtuna import checkpoint
from archtuna.architecture import Architecture
from archtuna.errors import ArchtunaError
from archtuna.recipe import Recipe
from archtuna.storage import Attr

FORMAT = 1
"""Rises when equal networks get another key; what is older has no format and names rows."""


@lru_cache(maxsize=1)
def written_as() -> str:
    """Return what claims begin with: the format, and the torch whose operations were compared."""
    return f"{FORMAT}/{checkpoint.versions().get('torch', 'unknown').partition('+')[0]}:"


def evaluation_of(architecture: Architecture, recipe: Recipe) -> str:
    """Return what names "this network trained this way".

    Raises:
        ShapeError: rows do not fit each other.
    """
    from archtuna.equality import graph_key

    digest = hashlib.sha256(f"{graph_key(architecture)}:{recipe.key}".encode()).hexdigest()[:16]
    return written_as() + digest


def evaluation_in(attributes: Mapping[str, Any]) -> str | None:
    """Return the evaluation that a trial with these user attributes claims, None where it claims none."""
    claim = attributes.get(Attr.EVALUATION)
    if claim is None or claim.startswith(written_as()) or not {Attr.ARCHITECTURE, Attr.RECIPE} <= {*attributes}:
        return claim
    return _written_anew(claim, attributes[Attr.ARCHITECTURE], json.dumps(attributes[Attr.RECIPE]))


@lru_cache(maxsize=65_536)
def _written_anew(claim: str, architecture: str, recipe: str) -> str:
    try:
        return evaluation_of(Architecture.from_dict(json.loads(architecture)), Recipe(**json.loads(recipe)))
    except (ArchtunaError, TypeError):
        return claim  # What cannot be read or built here cannot be proposed here either.
