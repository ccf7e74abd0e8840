import hashlib
import json

import pytest

from archtuna import claims
from archtuna.claims import evaluation_in, evaluation_of
from archtuna.recipe import Recipe
from archtuna.space import SearchSpace
from archtuna.storage import Attr
from spaces import HEAD


def network(rows):
    return SearchSpace.read(f"input_size: 8\nbackbone:\n{rows}{HEAD}").default().architecture


CONV = network("  - [1, Conv, [8, 3]]\n")
PADDED = network("  - [1, Conv, [8, 3]]\n  - [2, Identity, []]\n")
WIDER = network("  - [1, Conv, [16, 3]]\n")


def attributes(architecture, claim, recipe=None):
    plain = json.dumps(architecture.to_dict(), separators=(",", ":"))
    return {Attr.EVALUATION: claim, Attr.ARCHITECTURE: plain, Attr.RECIPE: (recipe or Recipe()).to_dict()}


def old_claim(architecture, recipe):
    """What archtuna 0.1 wrote: rows, not graphs."""
    return hashlib.sha256(f"{architecture.key}:{recipe.key}".encode()).hexdigest()[:16]


def test_equal_networks_are_one_claim_and_other_training_is_another():
    assert CONV.key != PADDED.key
    assert evaluation_of(CONV, Recipe()) == evaluation_of(PADDED, Recipe())
    assert evaluation_of(CONV, Recipe()) != evaluation_of(WIDER, Recipe())
    assert evaluation_of(CONV, Recipe()) != evaluation_of(CONV, Recipe(lr=0.3))


@pytest.mark.parametrize("version", ["old", "another torch"])
def test_claims_of_other_versions_still_count(version, monkeypatch):
    if version == "old":
        claim = old_claim(CONV, Recipe())
    else:
        with monkeypatch.context() as patch:
            patch.setattr(claims, "written_as", lambda: "1/2.0.0:")
            claim = evaluation_of(CONV, Recipe())
    assert claim != evaluation_of(CONV, Recipe())
    assert evaluation_in(attributes(CONV, claim)) == evaluation_of(PADDED, Recipe())
    assert evaluation_in(attributes(CONV, claim, Recipe(lr=0.3))) == evaluation_of(CONV, Recipe(lr=0.3))


def test_a_claim_of_this_version_is_taken_as_it_is():
    mine = evaluation_of(CONV, Recipe())
    assert evaluation_in(attributes(WIDER, mine)) == mine


def test_claims_that_cannot_be_written_anew_stay_what_they_are():
    assert evaluation_in({}) is None
    assert evaluation_in({Attr.EVALUATION: "decisions"}) == "decisions"
    unknown = attributes(CONV, "old") | {Attr.ARCHITECTURE: json.dumps({"format": 99})}
    assert evaluation_in(unknown) == "old"
    strange = attributes(CONV, "old") | {Attr.RECIPE: {"no such value": 1}}
    assert evaluation_in(strange) == "old"
