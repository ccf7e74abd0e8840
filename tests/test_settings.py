import pytest

from archtuna.errors import SpecError
from archtuna.settings import DATA, SEARCH, DataSettings, SearchSettings, limits_from, objectives_from, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("20 min", 1200), ("1h30m", 5400), ("2h", 7200), (45, 45), ("1.5m", 90)],
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["soon", "0", "-5", "", "5 days"])
def test_no_durations(text):
    with pytest.raises(SpecError, match="is not a duration\nhint: write for example 90s, 5m or 1h30m"):
        seconds_of(text)


def test_objectives_and_limits_have_several_forms():
    assert objectives_from("f1, params") == objectives_from(["f1", "params"]) == ("f1", "params")
    forms = (["params <= 500k", "macs <= 20M"], "params<=500k,macs<=20M", {"params": "500k", "macs": "<= 20M"})
    assert len({tuple(map(str, limits_from(form))) for form in forms}) == 1
    with pytest.raises(SpecError, match="must be a list of objectives"):
        objectives_from(3)
    with pytest.raises(SpecError, match="must be a list of limits"):
        limits_from(3)


def test_every_default_fits_its_own_schema_and_is_documented():
    for schema, defaults in ((DATA, DataSettings()), (SEARCH, SearchSettings())):
        for name, parameter in schema.items():
            assert parameter.coerce(getattr(defaults, name)) == getattr(defaults, name)
            assert name in (type(defaults).__doc__ or "")
