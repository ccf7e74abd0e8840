"""The search file as a JSON Schema, with which an editor completes and checks it.

It is built from the registries and signatures at the moment it is asked for, so that blocks of one's own are in it. Draft 7,
because that is what the YAML language server of editors knows best. What only the whole file tells (names of rows, shapes,
the order of a range's ends) is left to ``archtuna check``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import archtuna.blocks  # noqa: F401  (registers the zoo)
from archtuna.architecture import FORMAT
from archtuna.dialect import ALIASES, CLASSIC, KINDLE_NAMES, Dialect, Kindle
from archtuna.kindle import DIVISOR
from archtuna.modelfile import CHANNELS, MAX_VARY, MULTIPLE, SIZE, TRAINING
from archtuna.objective import DEVICE_NAME, OBJECTIVES, Objective
from archtuna.reader import MAX_ROWS
from archtuna.registry import BLOCKS, Block
from archtuna.rows import REPEAT
from archtuna.settings import DATA, DEPLOY, DURATION, SEARCH
from archtuna.signature import ACTIVATIONS, MAX_LIST, Activation, Parameter, Plain

Schema = dict[str, Any]

_NUMBER = r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?"
_OPTION = r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?"
"""A number by itself, which may begin or end with its point; at the end of a range it may not."""
_COUNT = r"\+?0*[1-9]\d*(\.0+)?"
_NULL = "null|Null|NULL|~"
_RANGE = rf"\s*{_NUMBER}\s*\.\.\s*{_NUMBER}\s*(/\s*{_NUMBER}\s*)?(\s+log)?\s*"


def _words_of(objectives: Iterable[Objective]) -> str:
    """Return a pattern of objectives' names; what is measured may name a device."""
    return "|".join(f"{o.name}(@{DEVICE_NAME})?" if o.is_measured else o.name for o in objectives)


_COST = _words_of(o for o in OBJECTIVES.values() if o.kind == "cost")
_LIMIT = rf"\s*({_COST})\s*<=?\s*[\d.]+(e[+-]?\d+)?\s*[kKmMgG]?\s*"


def schema() -> Schema:
    """Return the JSON Schema of a model or search file as plain data."""
    definitions = _choices() | _words() | {name: _arguments(entry, CLASSIC) for name, entry in BLOCKS.items()}
    definitions |= {f"kindle {name}": _arguments(entry, Kindle()) for name, entry in BLOCKS.items()}
    definitions |= {"module": _module(), "connection": _connection(), "source": _source(), "row": _row()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "archtuna search file",
        "type": "object",
        "required": ["backbone"],
        "properties": _top(),
        "definitions": definitions,
    }


# --- choices ------------------------------------------------------------------------------------------


def _choices() -> dict[str, Schema]:
    """Return the texts that stand for a choice: of anything, and of numbers."""
    # Whether a number with an exponent is whole is beyond a pattern.
    count = rf"\s*({_COUNT}|\+?0*[1-9]\d*\.|\+?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+|{_NULL})\s*"
    number = rf"\s*({_OPTION}|{_NULL})\s*"
    options = r"[^|]*[^|\s][^|]*(\|[^|]*[^|\s][^|]*)+"
    return {
        "choice": _text(
            rf"^({options}|{_RANGE}|\s*\$\w+\s*)$", "a choice: a|b, lo..hi, lo..hi/step, lo..hi log or $name"
        ),
        "number choice": _text(
            rf"^({number}(\|{number})+|{_RANGE}|\s*\$\w+\s*)$",
            "a choice of numbers: 3|5, 1..5, 16..64/8, 0.01..0.3 log or $name",
        ),
        "count choice": _text(
            rf"^({count}(\|{count})+|\s*{_COUNT}\s*\.\.\s*{_COUNT}\s*(/\s*{_COUNT}\s*)?(\s+log)?\s*|\s*\$\w+\s*)$",
            "a choice of whole numbers above zero: 3|5, 1..5, 16..64/8 or $name",
        ),
        "pair choice": _text(r"^[^|]*\d[^|]*(\|[^|]*\d[^|]*)+$", "a choice of lists: 3|3+5|3+5+7"),
    }


def _text(pattern: str, description: str) -> Schema:
    return {"type": "string", "pattern": pattern, "description": description}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name.replace(' ', '%20')}"}


def _words() -> dict[str, Schema]:
    """Return what may be written for an activation and for a truth value."""
    names = sorted({*ACTIVATIONS.values(), "Identity", "HardSwish", "HardSigmoid", "Swish"})
    truth = {"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}, _any_case(("yes", "no", "on", "off"))]}
    return {"activation": _described(_any_case(names), "an activation of torch.nn"), "truth value": truth}


# --- values -------------------------------------------------------------------------------------------


def _value(parameter: Parameter, *, choosable: bool = True) -> Schema:
    """Return the schema of what may stand for a parameter."""
    if parameter.type is Plain:
        return {}
    one, choice = _one(parameter), [_ref(_choice_of(parameter))] if choosable else []
    kinds = [one, *choice]
    if parameter.many:
        listed = {"type": "array", "items": {"anyOf": [one, *choice]}, "minItems": 1, "maxItems": MAX_LIST}
        kinds = [listed, one, _text(r"^[^+]+(\+[^+]+)+$", "a list as one value: 3+5+7"), _ref("pair choice"), *choice]
    elif parameter.pair:
        kinds.append({"type": "array", "items": {"anyOf": [one, *choice]}, "minItems": 1, "maxItems": 2})
    if parameter.optional:
        kinds.append({"type": "null"})
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _choice_of(parameter: Parameter) -> str:
    if parameter.type not in (int, float) or parameter.options:
        return "choice"
    counts = parameter.type is int and parameter.bounds is not None and parameter.bounds.low >= 1
    return "count choice" if counts else "number choice"


def _one(parameter: Parameter) -> Schema:
    if parameter.options:
        words = _any_case(str(option) for option in parameter.options)
        # YAML reads these two words as truth values, and the reader takes them for the words again.
        return {"anyOf": [words, {"type": "boolean"}]} if {"true", "false"} <= {*parameter.options} else words
    if parameter.type is Activation:
        return _ref("activation")
    if parameter.type is bool:
        return _ref("truth value")
    if parameter.type is str:
        return {"type": "string"}
    return {"type": "integer" if parameter.type is int else "number", **_bounds(parameter)}


def _bounds(parameter: Parameter) -> Schema:
    bounds, found = parameter.bounds, {}
    if bounds is not None and bounds.low != float("-inf"):
        found["exclusiveMinimum" if bounds.above else "minimum"] = bounds.low
    if bounds is not None and bounds.high != float("inf"):
        found["maximum"] = bounds.high
    return found


def _any_case(words: Iterable[str]) -> Schema:
    """Return a schema of words that are completed as they are written here, and accepted in any case."""
    listed = list(words)
    pattern = "|".join("".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in word) for word in listed)
    return {"anyOf": [{"enum": listed}, {"type": "string", "pattern": f"^({pattern})$"}]}


def _described(value: Schema, *texts: str, default: Any = None) -> Schema:
    """Return a schema with a description and a default for the editor's user."""
    text = "; ".join(text for text in texts if text)
    more: Schema = {"description": text} if text else {}
    if default is not None:
        more["default"] = list(default) if isinstance(default, tuple) else default
    return value | more


# --- rows ---------------------------------------------------------------------------------------------


def _arguments(entry: Block, dialect: Dialect) -> Schema:
    """Return the schema of a block's arguments, as a list or by name."""
    by_name = {p.name: _argument(entry, p) for p in entry.parameters}
    if isinstance(dialect, Kindle):
        # Its own names beside ours; what it passes over is passed over here.
        by_name |= {name: by_name[p.name] for name in KINDLE_NAMES if (p := dialect.parameter(entry, name))}
    order = dialect.order(entry)
    needed = [p.name for p in entry.parameters if p.required]
    first = max((i + 1 for i, p in enumerate(order) if p and p.required), default=0)
    items = [_listed_argument(entry, dialect, p, by_name) if p else {} for p in order]
    listed: Schema = {"type": "array", **({"items": items} if items else {"maxItems": 0})}
    named: Schema = {"type": "object", "properties": by_name, "additionalProperties": False}
    if isinstance(dialect, Kindle):
        listed.pop("maxItems", None)  # It passes over what follows the last argument.
        return _described({"if": {"type": "array"}, "then": listed, "else": named}, entry.meaning)
    if entry.name in ("MaxPool", "AvgPool", "ShuffleNetV2"):
        listed = {"type": "array"}  # Forks write these lists in orders of their own, which the reader tells apart.
    else:
        listed |= {"additionalItems": False, "minItems": first}
    # How the row is called, and what it takes in, may stand among named arguments.
    named |= {"required": needed, "properties": {"name": _label(), "from": _ref("source")} | by_name}
    return _described({"if": {"type": "array"}, "then": listed, "else": named}, entry.meaning, entry.paper)


def _listed_argument(entry: Block, dialect: Dialect, parameter: Parameter, by_name: Mapping[str, Schema]) -> Schema:
    """Return the schema of an element of a list, in which a flag may stand for a word."""
    value = by_name[parameter.name]
    flags = [n for n in (0, 1) if isinstance(dialect.value(entry, parameter.name, n, positional=True), str)]
    return {"anyOf": [value, {"enum": flags}, _ref("number choice")]} if flags else value


def _argument(entry: Block, parameter: Parameter) -> Schema:
    default = None if parameter.required else parameter.default
    return _described(_value(parameter), entry.meaning_of(parameter.name), default=default)


def _module() -> Schema:
    names = {"enum": [*BLOCKS, *ALIASES, "YamlModule"]}
    torchs = _text(r"^nn\.[A-Za-z]\w*$", "a class of torch.nn with torch's own arguments")
    several = _text(r"^\s*[\w.]+\s*(\|\s*[\w.]+\s*)+$|^\s*\$\w+\s*$", "a choice of blocks: Conv|DWConv")
    return _described({"anyOf": [names, torchs, several]}, "name of a block; `archtuna blocks` lists them")


def _label() -> Schema:
    pattern = r"^(?!(input|previous)$)[A-Za-z_][\w-]*$"
    return _text(pattern, "what other rows call this one")


def _source() -> Schema:
    one = {"anyOf": [{"type": "string"}, {"const": -1}]}
    several = {"type": "array", "items": {"anyOf": [one, {"type": "null"}]}, "minItems": 1}
    return _described({"anyOf": [one, several]}, "names of rows above, `input` or `previous`; each may be a choice")


def _connection() -> Schema:
    return {"type": "object", "properties": {"name": _label(), "from": _ref("source")}, "additionalProperties": False}


def _row() -> Schema:
    """Return the schema of a row in any of its forms."""
    kindle = {"type": "array", "minItems": 4, "items": [{}, {}, {"type": "string"}]}
    return {
        "if": {"type": "array"},
        "then": {"if": kindle, "then": _kindle_row(), "else": _listed_row()},
        "else": _mapped_row(),
    }


def _listed_row() -> Schema:
    arguments = {"type": ["array", "object"]}
    return {
        "description": "[repeat, Module, [arguments]]",
        "type": "array",
        "minItems": 3,
        "maxItems": 4,
        "items": [_repeat(), _ref("module"), arguments, _ref("connection")],
        "allOf": [
            {"if": {"items": [{}, {"const": name}]}, "then": {"items": [{}, {}, _ref(name)]}} for name in _spelled()
        ],
    }


def _spelled() -> list[str]:
    """Return the blocks whose arguments are the same under every spelling of the row: all but torch's, which are free."""
    return [name for name in BLOCKS if not name.startswith("nn.")]


def _repeat() -> Schema:
    return _described(_value(REPEAT), "how many copies; a choice of 0 may leave the row out")


def _kindle_row() -> Schema:
    count = {"anyOf": [{"type": "integer"}, _ref("number choice")]}
    sources = {"anyOf": [count, {"type": "array", "items": count, "minItems": 1}]}
    named = {"anyOf": [{"type": "object"}, {"type": "null"}]}
    rules = [
        {
            "if": {"items": [{}, {}, {"const": name}]},
            "then": {
                "items": [{}, {}, {}, _ref(f"kindle {name}"), {"anyOf": [{"type": "null"}, _ref(f"kindle {name}")]}]
            },
        }
        for name in _spelled()
    ]
    return {
        "description": "[from, repeat, module, [arguments], {name: value}]",
        "type": "array",
        "minItems": 4,
        "maxItems": 5,
        "items": [sources, _repeat(), _ref("module"), {"type": ["array", "object"]}, named],
        "allOf": rules,
    }


def _mapped_row() -> Schema:
    shared = {"name": _label(), "from": _ref("source")}
    rows = {"type": "array", "items": _ref("row"), "minItems": 1, "maxItems": MAX_ROWS}
    forms: dict[str, Mapping[str, Schema]] = {
        "module": {"repeat": _repeat(), "module": _ref("module"), "arguments": {"type": ["array", "object"]}},
        "row": {"row": _ref("row")},
        "any": {"any": {**rows, "minItems": 2}},
        "rows": {"rows": rows, "repeat": _repeat()},
    }
    schema: Schema = {"type": "object", "anyOf": [{"required": [form]} for form in forms]}
    rules = []
    for form, keys in forms.items():
        then: Schema = {"properties": {**keys, **shared}, "additionalProperties": False}
        rules.append({"if": {"required": [form]}, "then": then})
    rules += [
        {
            "if": {"properties": {"module": {"const": name}}, "required": ["module"]},
            "then": {"properties": {"arguments": _ref(name)}},
        }
        for name in _spelled()
    ]
    return {**schema, "allOf": rules}


# --- the whole file -----------------------------------------------------------------------------------


def _top() -> dict[str, Schema]:
    size = _value(SIZE)
    rows = {"type": "array", "items": _ref("row"), "minItems": 1, "maxItems": MAX_ROWS}
    return {
        "format": {"type": "integer", "minimum": 1, "maximum": FORMAT},
        "input_channel": _described(_value(CHANNELS), "channels of a picture: 1 grey, 3 colour", default=3),
        "input_size": _described(
            {"anyOf": [size, {"type": "array", "items": size, "minItems": 2, "maxItems": 2}]},
            "side of the input in pixels, or [height, width]",
        ),
        "depth_multiple": _described(_value(MULTIPLE), "multiplies repeats above one", default=1.0),
        "width_multiple": _described(_value(MULTIPLE), "multiplies channels", default=1.0),
        "backbone": _described(rows, "the network, row by row"),
        "head": _described(
            {"anyOf": [{**rows, "minItems": 0}, {"type": "null"}]}, "kindle's: rows that are not scaled"
        ),
        "channel_divisor": _described(_value(DIVISOR, choosable=False), "kindle's: channels are multiples of it"),
        "custom_module_paths": _described({}, "kindle's: Python modules, which --import agrees to"),
        "choices": _section({}, "shared choices, used as $name", others=_ref("choice")),
        "vary": _described({"type": "array", "items": _vary(), "maxItems": MAX_VARY}, "choices laid over rows"),
        "data": _section(DATA, "where pictures are, and how they are divided", choosable=False),
        "training": _section(TRAINING, "how networks are trained; every value may be a choice"),
        "objectives": _described(_objectives(), "what is searched for"),
        "limits": _described(_limits(), "bounds on costs, kept by every network that is trained"),
        "search": _section(SEARCH, "how long, how wide and with which sampler", choosable=False),
        "deploy": _section(DEPLOY, "what networks are exported to, and the runtime that serves them", choosable=False),
        "modules": _section({}, "texts of files of rows", others={"type": "string"}),
        "blocks": _section({}, "the Python modules of blocks that are not archtuna's", others={"type": "string"}),
    }


def _section(
    parameters: Mapping[str, Parameter], description: str, *, choosable: bool = True, others: Schema | None = None
) -> Schema:
    properties = {}
    for name, parameter in parameters.items():
        value = _value(parameter, choosable=choosable)
        if parameter.type is str and not parameter.options and not choosable:
            text = _text(f"^{DURATION}$", "90s, 5m or 1h30m") if name == "time" else {"type": "string"}
            value = {"anyOf": [text, {"type": "number"}, *([{"type": "null"}] if parameter.optional else [])]}
        properties[name] = _described(value, default=parameter.default)
    closed: Any = False if others is None else others
    return {"type": "object", "properties": properties, "additionalProperties": closed, "description": description}


def _vary() -> Schema:
    known = {"enum": [*BLOCKS, "all", "stride1", "stride2"]}
    selector = {
        "anyOf": [{"type": "integer"}, known, _text(r"^\s*\d+\s*\.\.\s*\d+\s*$|^nn\.\w+$", "a range of rows: 1..15")]
    }
    several = {"type": "array", "items": selector, "minItems": 1}
    rows = _described(
        {"anyOf": [selector, several]},
        "a module, a row's number, a range of numbers, stride1, stride2 or all; or a list of these",
    )
    return {
        "type": "object",
        "required": ["rows"],
        "minProperties": 2,
        "properties": {"rows": rows, "repeat": _repeat()},
    }


def _objectives() -> Schema:
    spaced = _words_of(OBJECTIVES.values())
    plain, measured = ([o for o in OBJECTIVES.values() if o.is_measured is told] for told in (False, True))
    one = {"anyOf": [{"enum": [o.name for o in plain]}, _text(f"^({_words_of(measured)})$", "latency_ms@pi4")]}
    listed = {"type": "array", "items": one, "minItems": 1, "uniqueItems": True}
    return {"anyOf": [listed, _text(rf"^\s*({spaced})\s*(,\s*({spaced})\s*)*$", "names with commas between")]}


def _limits() -> Schema:
    one = _text(f"^{_LIMIT}$", "a bound such as params <= 500k")
    mapping = {
        "type": "object",
        "propertyNames": {"pattern": f"^({_COST})$"},
        "additionalProperties": {"type": ["number", "string"]},
    }
    return {
        "anyOf": [
            {"type": "array", "items": one},
            _text(f"^{_LIMIT}(,{_LIMIT})*$", "bounds with commas between"),
            mapping,
        ]
    }
