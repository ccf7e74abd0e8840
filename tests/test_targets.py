"""Names and places of a user's devices."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from archtuna.errors import LatencyError
from archtuna.targets import (
    DEVICES,
    TOKEN,
    Target,
    add_device,
    devices,
    devices_file,
    remove_device,
    target_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the folder of settings is moved as Linux has it")


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in (DEVICES, TOKEN):
        monkeypatch.delenv(name, raising=False)


def test_a_device_that_was_added_is_known_by_its_name() -> None:
    assert devices() == {}
    added = add_device("pi4", "http://pi4:8765")
    add_device("nuc", "ssh://me@nuc:2222/opt/python/bin/python3")
    assert target_of("pi4") == added == Target("pi4", "http://pi4:8765", None)
    assert set(devices()) == {"pi4", "nuc"}
    add_device("pi4", "http://[::1]:9000")
    assert target_of("pi4").url == "http://[::1]:9000"
    remove_device("pi4")
    assert set(devices()) == {"nuc"}


def test_a_name_that_is_not_known_gets_the_nearest() -> None:
    with pytest.raises(LatencyError, match=r"there is no device 'pi4'\nhint: archtuna device add NAME URL names one"):
        target_of("pi4")
    add_device("pi4", "http://pi4:8765")
    with pytest.raises(LatencyError, match=r"there is no device 'pi5'\nhint: did you mean 'pi4'"):
        target_of("pi5")
    with pytest.raises(LatencyError, match="there is no device 'pi'"):
        remove_device("pi")


def test_a_url_is_a_device_of_its_own_name() -> None:
    assert target_of("ssh://pi4") == Target("ssh://pi4", "ssh://pi4", None)


@pytest.mark.parametrize(
    "url",
    [
        "pi4:8765", "ftp://pi4", "http://", "http://pi4:port", "http://pi4:99999", "http://pi4/deep", "http://me@pi4",
        "http://pi4?x=1", "http://pi4#x", "ssh://me:secret@pi4", "http://[::1", "ssh://", "",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_device_is_refused(url: str) -> None:
    with pytest.raises(LatencyError, match=r"is no device's URL\nhint: a URL is http://host:port of an agent, or ssh"):
        Target("one", url)


@pytest.mark.parametrize(
    "url",
    [
        "ssh://-oProxyCommand=touch%20x", "ssh://-oProxyCommand=x@pi4", "ssh://pi4;touch x", "ssh://pi4/$(touch x)",
        "ssh://pi4/python3 -x", "ssh://pi4/`x`", "ssh://p|4", "http://pi 4",
    ],
)  # fmt: skip
def test_nothing_in_a_url_becomes_an_option_or_a_command(url: str) -> None:
    with pytest.raises(LatencyError, match="names a host, a user or a path that cannot be"):
        Target("one", url)


@pytest.mark.parametrize("name", ["", "4pi", "-x", "a b", "a/b", "../x", "x" * 41, "a@b"])
def test_what_cannot_name_a_device_is_refused(name: str) -> None:
    with pytest.raises(LatencyError, match="cannot name a device"):
        add_device(name, "http://pi4:8765")


def test_only_the_user_reads_the_file_and_no_token_is_in_it(tmp_path: Path) -> None:
    target = add_device("pi4", "http://pi4:8765", token="a secret of many characters")
    assert target.token == "a secret of many characters"
    assert "secret" not in devices_file().read_text() + repr(target)
    kept = tmp_path / "archtuna" / "tokens" / "pi4"
    for file in (devices_file(), kept):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    remove_device("pi4")
    assert not kept.exists()


def test_a_token_comes_from_its_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("of the file\n")
    monkeypatch.chdir(tmp_path)
    target = add_device("pi4", "http://pi4:8765", token_file="token")
    monkeypatch.chdir("/")
    assert target.token == "of the file"
    assert Target("one", "http://pi4").token == ""
    monkeypatch.setenv(TOKEN, "of the environment")
    assert Target("one", "http://pi4").token == "of the environment"
    file.unlink()
    with pytest.raises(
        LatencyError, match=r"pi4: the token's file .* cannot be read \(No such file.*\nhint: archtuna device add pi4"
    ):
        _ = target.token


def test_the_environment_stands_for_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    add_device("pi4", "http://pi4:8765")
    monkeypatch.setenv(DEVICES, json.dumps({"lab": {"url": "ssh://lab"}}))
    assert devices() == {"lab": Target("lab", "ssh://lab", None)}
    with pytest.raises(LatencyError, match=r"pi4 cannot be added: the devices come from \$ARCHTUNA_DEVICES"):
        add_device("pi4", "http://pi4:8765")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"a b": {"url": "ssh://x"}}', '{"a": "ssh://x"}', '{"a": {}}', "[" * 100_000]
)
def test_a_description_that_is_none_is_one_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICES, text)
    with pytest.raises(LatencyError, match=r"\$ARCHTUNA_DEVICES: no description of devices\nhint: {"):
        devices()


def test_a_file_that_cannot_be_read_or_written_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices_file().mkdir(parents=True)
    with pytest.raises(LatencyError, match=r"devices.json: cannot be read \(Is a directory\)"):
        devices()
    (tmp_path / "plain").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "plain"))
    with pytest.raises(LatencyError, match=r"pi4 cannot be added: .*: Not a directory"):
        add_device("pi4", "http://pi4:8765")


def test_a_password_in_a_url_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://me:hunter2@pi4", "htp://me:hunter2@pi4", "http://me:hunter2@pi4:no"):
        with pytest.raises(LatencyError) as caught:
            Target("pi4", url)
        assert "hunter2" not in str(caught.value)
        assert "pi4" in str(caught.value)


def test_a_url_that_has_no_name_cannot_be_forgotten() -> None:
    add_device("pi4", "ssh://pi@pi4")
    with pytest.raises(LatencyError, match="there is no device 'http://pi4:8765'"):
        remove_device("http://pi4:8765")
    assert list(devices()) == ["pi4"]


def test_a_wrong_url_leaves_a_device_and_its_token_as_they_were() -> None:
    add_device("pi4", "http://pi4", token="the first")
    with pytest.raises(LatencyError, match="is no device's URL"):
        add_device("pi4", "htp://pi4", token="another")
    assert target_of("pi4").token == "the first"
