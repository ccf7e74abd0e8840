"""The source code of classes and functions, with all that they need of their own packages, as text that stands alone."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from types import ModuleType
from typing import Annotated, Any, Literal, NewType, get_args, get_origin

from archtuna.errors import ExportError
from archtuna.registry import block
from archtuna.signature import PAIR

_REMARKS = re.compile(r"  # (type: ignore|fmt: |noqa).*$", re.MULTILINE)
_PLAIN = (int, float, str, bool, type(None))


@dataclass
class Lifted:
    """Code that was taken over.

    Attributes:
        imports: lines that import from elsewhere.
        constants: what names of plain values stand for.
        types: what names of types stand for.
        definitions: the code of classes and functions, each behind what it needs when it is defined.
        origins: the module that each name was met in.
    """

    imports: set[str] = field(default_factory=set)
    constants: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)


def lift(targets: Iterable[Any], packages: Iterable[str], taken: Mapping[str, str] | None = None) -> Lifted:
    """Return the code of classes and functions, and of everything of these packages that they use.

    What registers a block is left out, and so are remarks for linters; what another package has is imported.

    Args:
        targets: classes and functions.
        packages: top-level packages whose code is taken over.
        taken: names that stand for something already, and for what: a line that imports it, or words.

    Raises:
        ExportError: code cannot be read, or needs a value that cannot be written down, or two things have one name.
    """
    lifted, own = Lifted(origins=dict(taken or {})), frozenset(packages)
    for target in targets:
        if _package(target.__module__) in own:
            _define(lifted, own, target.__name__, sys.modules[target.__module__])
        else:
            lifted.imports.add(f"from {target.__module__} import {target.__name__}")
    return lifted


def _package(module: str) -> str:
    return module.partition(".")[0]


def _take(lifted: Lifted, own: frozenset[str], name: str, module: ModuleType) -> None:
    """Take over what a name stands for in a module."""
    statement, value = _statements(module).get(name), getattr(module, name, None)
    if statement is None or not hasattr(module, name):
        return  # A builtin, a function's own name, or one for type checkers.
    line = _import_line(statement, name)
    if line is not None and not _is_own(statement, own):
        _claim(lifted, name, _imported(line))
        lifted.imports.add(line)
    elif isinstance(value, _PLAIN):
        _claim(lifted, name, literal(value))
        lifted.constants[name] = literal(value)
    elif isinstance(statement, ast.ImportFrom) and (elsewhere := _defining(statement, name, module)):
        _take(lifted, own, name, elsewhere)
    elif get_origin(value) not in (None, Annotated, Literal) and isinstance(statement, ast.Assign | ast.AnnAssign):
        text = _assigned(lifted, own, statement, module)
        _claim(lifted, name, text)
        lifted.types[name] = text
    elif get_origin(value) is not None or isinstance(value, NewType):
        _claim(lifted, name, _type(value))
        lifted.types[name] = _type(value)
    elif getattr(value, "__name__", None) == name and _package(getattr(value, "__module__", "")) in own:
        _define(lifted, own, name, sys.modules[value.__module__])
    else:
        raise ExportError(
            f"{module.__name__} needs '{name}', which cannot be written down",
            hint="use plain values, classes, functions",
        )


def _define(lifted: Lifted, own: frozenset[str], name: str, module: ModuleType) -> None:
    """Take over a class or function, and before it what it needs."""
    if not _claim(lifted, name, module.__name__):
        return
    statement = _statements(module).get(name)
    if not isinstance(statement, ast.ClassDef | ast.FunctionDef):
        raise ExportError(
            f"the code of '{name}' of {module.__name__} cannot be found",
            hint="put blocks into a file, not into a prompt",
        )
    registrations = [d for d in statement.decorator_list if _registers(d, module)]
    for needed in _names(statement, registrations):
        if needed != name:
            _take(lifted, own, needed, module)
    lifted.definitions[name] = _text(statement, registrations, module)


def _claim(lifted: Lifted, name: str, origin: str) -> bool:
    """Return whether a name is new.

    Raises:
        ExportError: it stands for something else already.
    """
    new = name not in lifted.origins
    if lifted.origins.setdefault(name, origin) != origin:
        raise ExportError(
            f"'{name}' is one thing in {lifted.origins[name]} and another in {origin}: they cannot stand in one file",
            hint="rename one of them",
        )
    return new


@cache
def _source(module: ModuleType) -> str:
    problem = ""
    try:
        return inspect.getsource(module)
    except (OSError, TypeError) as error:
        problem = str(error)
    raise ExportError(f"the code of {module.__name__} cannot be read ({problem})", hint="put blocks into a file")


@cache
def _statements(module: ModuleType) -> dict[str, ast.stmt]:
    """Return the statement that gives each name of a module what it stands for."""
    return {name: statement for statement in ast.parse(_source(module)).body for name in _bound(statement)}


def _bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
    elif isinstance(statement, ast.ClassDef | ast.FunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        yield from (
            node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )


def _names(statement: ast.AST, without: list[ast.expr]) -> list[str]:
    """Return the names that a statement reads, in their order, but for those of some decorators."""
    left_out = {id(node) for decorator in without for node in ast.walk(decorator)}
    nodes = [node for node in ast.walk(statement) if isinstance(node, ast.Name) and id(node) not in left_out]
    return list(dict.fromkeys(node.id for node in nodes if isinstance(node.ctx, ast.Load)))


def _registers(decorator: ast.expr, module: ModuleType) -> bool:
    """Return whether a decorator registers a block."""
    callee = decorator.func if isinstance(decorator, ast.Call) else decorator
    path = ast.unparse(callee).split(".")
    value: Any = module
    for name in path:
        value = getattr(value, name, None)
    return value is block or (isinstance(value, partial) and value.func is block)


def _text(statement: ast.ClassDef | ast.FunctionDef, without: list[ast.expr], module: ModuleType) -> str:
    lines = _source(module).splitlines()
    left_out = {n for d in without for n in range(d.lineno, (d.end_lineno or d.lineno) + 1)}
    first = min([statement.lineno, *(d.lineno for d in statement.decorator_list)])
    # A decorator's closing bracket may stand on a line of its own.
    kept = [lines[n - 1] for n in range(first, (statement.end_lineno or first) + 1) if n not in left_out]
    return _REMARKS.sub("", "\n".join(kept))


def _import_line(statement: ast.stmt, name: str) -> str | None:
    """Return a line that imports one name as a statement does; None where it is no import."""
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return None
    alias = next(a for a in statement.names if (a.asname or a.name.partition(".")[0]) == name)
    parent, _, child = alias.name.rpartition(".") if alias.asname else ("", "", alias.name)
    if isinstance(statement, ast.ImportFrom):
        parent, child = f"{'.' * statement.level}{statement.module or ''}", alias.name
    # One way to write it, however it was written: two files that import one thing do not differ.
    called = f" as {alias.asname}" if alias.asname not in (None, child) else ""
    return (f"from {parent} " if parent else "") + f"import {child}{called}"


def _imported(line: str) -> str:
    """Return what the name that an import gives stands for: of ``import a.b`` it is ``a``."""
    return line if " as " in line or line.startswith("from ") else line.partition(".")[0]


def _defining(statement: ast.ImportFrom, name: str, module: ModuleType) -> ModuleType | None:
    """Return the module of its own package from which a name is imported under that name; None where there is none."""
    if any(alias.asname not in (None, name) for alias in statement.names if (alias.asname or alias.name) == name):
        return None
    place = f"{'.' * statement.level}{statement.module or ''}"
    found = sys.modules.get(importlib.util.resolve_name(place, module.__package__))
    return found if found is not None and name in _statements(found) else None


def _assigned(lifted: Lifted, own: frozenset[str], statement: ast.Assign | ast.AnnAssign, module: ModuleType) -> str:
    """Return the expression that a name is assigned, with what it needs taken over."""
    assert statement.value is not None, "it has a value"
    for needed in _names(statement.value, []):
        _take(lifted, own, needed, module)
    return ast.unparse(statement.value)


def _is_own(statement: ast.stmt, own: frozenset[str]) -> bool:
    if isinstance(statement, ast.ImportFrom):
        return statement.level > 0 or _package(statement.module or "") in own
    return isinstance(statement, ast.Import) and any(_package(alias.name) in own for alias in statement.names)


def _type(value: Any) -> str:
    """Write what a type is, without what only archtuna knows of it."""
    if isinstance(value, NewType):
        return str(value.__supertype__.__name__)
    if get_origin(value) is Annotated:
        kind, *more = get_args(value)
        return f"{kind.__name__} | tuple[{kind.__name__}, {kind.__name__}]" if PAIR in more else str(kind.__name__)
    if get_origin(value) is Literal:
        return type(get_args(value)[0]).__name__
    return repr(value)


def literal(value: Any) -> str:
    """Write a plain value as Python does, texts between double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=not _is_encodable(value))
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, list | tuple):
        inside = ", ".join(map(literal, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
    return repr(value)


def _is_encodable(text: str) -> bool:
    """Return whether a text can stand in a file: a folder's name may hold bytes that are no UTF-8."""
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False
