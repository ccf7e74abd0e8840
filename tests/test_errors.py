import builtins
import inspect

import pytest

from archtuna import errors


def test_every_error_is_also_a_builtin_that_a_caller_would_catch():
    ours = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.ArchtunaError)]
    for error in ours:
        if error is not errors.ArchtunaError:
            assert any(base.__module__ == "builtins" and base is not Exception for base in error.__mro__[1:-3]), error
            assert error.__name__ in (errors.__doc__ or "")
    assert len(ours) >= 8


def test_a_text_has_place_problem_and_hint():
    error = errors.SpecError("unknown key", file="a.yaml", line=3, path="backbone[1].k", hint="did you mean 'kernel'?")
    assert str(error) == "a.yaml:3: backbone[1].k: unknown key\nhint: did you mean 'kernel'?"
    assert isinstance(error, builtins.ValueError)
    assert str(errors.SpecError("plain")) == "plain"


def test_a_missing_extra_names_its_command():
    with pytest.raises(ImportError, match=r"onnx is not installed\nhint: pip install 'archtuna\[onnx\]'"):
        raise errors.MissingExtraError("onnx", "onnx")


def test_nearest_is_silent_where_nothing_is_near():
    assert errors.nearest("kernal", ["kernel", "stride"]) == "did you mean 'kernel'?"
    assert errors.nearest("zzz", ["kernel"]) is None
