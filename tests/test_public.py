import pytest

import archtuna

PUBLIC = {
    "Architecture", "ArchtunaError", "Candidate", "Data", "Recipe", "Row", "Schedule", "SearchSpace", "Study", "block", "build", "costs_of",
    "export", "load", "metric", "search", "train",
}  # fmt: skip


def test_the_public_surface_is_this():
    assert set(archtuna.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(archtuna, name).__doc__, name
        assert callable(getattr(archtuna, name)), name
    assert set(dir(archtuna)) >= PUBLIC


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        archtuna.serach  # noqa: B018
