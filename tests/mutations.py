"""Files that went wrong: mutations of model files, random YAML, and files made to take a reader's time or memory."""

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from spaces import ALL

MODELS = Path(__file__).parent / "models"
CORPUS = [*ALL.values(), *(path.read_text() for path in sorted(MODELS.rglob("*.yaml")))]

TOKENS = [
    "", " ", "\t", "\n", "null", "~", "None", "true", "no", "-1", "0", "1e400", "-1e-400", ".nan", ".inf", "9" * 39, "9" * 400,
    "1..5", "5..1", "1..1", "0..0.5/0", "1..9/0.3", "1..1000000000", "a|b", "|", "1||2", "3|3", "$k", "$", "..", "1..", "0x10",
    "012", "12:30", "1_000", "[]", "{}", "[[[]]]", "{a: {b: c}}", "[1, Conv, [8, 3]]", "&x 3", "*x", "!!python/name:os", "<<",
    "Conv", "nn.Conv2d", "nn.Sequential", "nn.Module", "nn.", "Add", "Concat", "YamlModule", "PreTrained", "Cnov", "input",
    "previous", "from", "name", "any", "rows", "repeat", "module", "arguments", "'", '"', "#", ":", "-", "?", "%", "@", "`", "\\",
    "ü", "\x00", "\u2028", "\ufeff", "\U0001f600", "backbone:", "head:", "---", "...", "arg0", "3+5", "+", "1e-3", "log",
]  # fmt: skip


def mutated(rng: random.Random) -> str:
    """A file of the corpus with one to four things done to it."""
    text = rng.choice(CORPUS)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        change = rng.choice((_instead,) * 8 + (_number,) * 6 + (_cut, _doubled, _with_token, _lines, _spliced))
        text = change(text, rng)
    return text


def _span(text: str, rng: random.Random, longest: int = 20) -> tuple[int, int]:
    start = rng.randrange(len(text) + 1)
    return start, min(len(text), start + rng.randint(0, longest))


def _cut(text: str, rng: random.Random) -> str:
    start, end = _span(text, rng)
    return text[:start] + text[end:]


def _doubled(text: str, rng: random.Random) -> str:
    start, end = _span(text, rng, 60)
    return text[:end] + text[start:end] * rng.randint(1, 3) + text[end:]


def _with_token(text: str, rng: random.Random) -> str:
    start, _ = _span(text, rng)
    return text[:start] + rng.choice(TOKENS) + text[start:]


def _instead(text: str, rng: random.Random) -> str:
    """Replace a word or number by a token."""
    words = [w for w in text.replace(",", " ").replace("[", " ").replace("]", " ").split() if w]
    word = rng.choice(words) if words else ""
    places = [m.start() for m in re.finditer(re.escape(word), text)] if word else [0]
    start = rng.choice(places)
    return text[:start] + rng.choice(TOKENS) + text[start + len(word) :]


def _number(text: str, rng: random.Random) -> str:
    """Replace a number by another, or by a choice."""
    places = list(re.finditer(r"(?<![\w.])\d+(?![\w.])", text))
    if not places:
        return text
    place = rng.choice(places)
    new = rng.choice(
        ["0", "1", "2", "3|5", "1..4", "-1", "64", "1000", "2.5", "null", "0..2", "16|24|40", "[3, 5]", "1..64 log"]
    )
    return text[: place.start()] + new + text[place.end() :]


def _lines(text: str, rng: random.Random) -> str:
    lines = text.splitlines()
    rng.shuffle(lines)
    return "\n".join(lines[: rng.randint(1, len(lines) + 1)])


def _spliced(text: str, rng: random.Random) -> str:
    other = rng.choice(CORPUS)
    return text[: rng.randrange(len(text) + 1)] + other[rng.randrange(len(other) + 1) :]


def invented(rng: random.Random) -> str:
    """Random YAML in which the words of model files occur."""

    def value(depth: int) -> object:
        kind = rng.random()
        if depth > 5 or kind < 0.45:
            return rng.choice([rng.choice(TOKENS), rng.randint(-5, 300), rng.random() * 10, None, True, "Conv", "3|5"])
        if kind < 0.8:
            return [value(depth + 1) for _ in range(rng.randint(0, 5))]
        return {str(rng.choice(TOKENS)): value(depth + 1) for _ in range(rng.randint(0, 4))}

    keys = [
        "backbone",
        "head",
        "input_size",
        "choices",
        "vary",
        "training",
        "limits",
        "objectives",
        "search",
        "data",
        "modules",
    ]
    plain = {key: value(0) for key in rng.sample(keys, rng.randint(1, len(keys)))}
    row = [rng.choice([1, "1..3", 0]), rng.choice(["Conv", "Linear", "Add", "C3", value(2)]), value(1)]
    plain.setdefault("backbone", [row, *([value(1)] if rng.random() < 0.5 else [])])
    return yaml.safe_dump(plain, default_flow_style=rng.random() < 0.5, allow_unicode=True, sort_keys=False)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Files that would take hours, gigabytes or the process from a careless reader, by name."""
    small = "input_size: 32\nbackbone: "
    laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    groups = "[1, Conv, [8, 3]]"
    for _ in range(4):
        groups = f"{{rows: [{groups}], repeat: 1000}}"
    texts = {
        "deep lists": "[" * 50_000, "deep mappings": "{a: " * 5_000, "deep block": "\n".join(" " * i + "- " for i in range(900)),
        "aliases": laughs, "aliases as rows": f"{laughs}backbone: *a11\n", "an alias of itself": "a: &a [*a]",
        "ten megabytes": f"backbone: [{'[1, Flatten, []],' * 600_000}]", "many rows": f"backbone: [{'[1, Flatten, []],' * 9_000}]",
        "many blocks": f"{small}[{'[1, Conv, [8, 3]],' * 2_990}]",
        "many different blocks": f"{small}[{','.join(f'[1, Conv, [{i + 1}, {1 + i % 2}]]' for i in range(2_990))}]",
        "many choices": f"{small}[{'[1..1000, Conv, [8..1000, 1..9/2]],' * 2_990}]",
        "100,000 repeats": f"{small}[[100000, Conv, [8, 3]]]", "repeats of repeats": f"{small}[{'[1000, Conv, [8, 3]],' * 2_990}]",
        "groups in groups": f"{small}[{groups}]", "groups of nothing": f"{small}[{groups.replace('[1, Conv', '[0|1, Conv')}]",
        "many options": f"{small}[[1, Conv, [{'|'.join(map(str, range(1, 200_000)))}, 3]]]",
        "a duration of spaces": f"{small}[[1, Flatten, []]]\nsearch: {{time: \"{' ' * 100_000}x\"}}",
        "a limit of spaces": f"{small}[[1, Flatten, []]]\nlimits: [\"{' ' * 100_000}x\"]",
        "a range of digits": f"{small}[[1, Conv, [\"{'1' * 100_000}..{'2' * 100_000}\", 3]]]",
        "a long name": f"{small}[[1, {'C' * 1_000_000}, [8, 3]]]", "many keys": "\n".join(f"key{i}: 1" for i in range(90_000)),
        "many shared choices": f"choices: {{{','.join(f'k{i}: 1|2' for i in range(50_000))}}}\n{small}[[1, Conv, [8, $k9]]]",
        "a huge number": f"{small}[[1, Conv, [{'9' * 4_000}, 3]]]", "an infinite range": f"{small}[[1, Conv, [1..1e400, 3]]]",
        "a tiny step": f"{small}[[1, Conv, [0..1/1e-320, 3]]]", "a deep block": f"{small}[[1, MobileViTBlock, [8, 8, 65536]]]",
        "many bottlenecks": f"{small}[[1000, C3, {{channels: 8, repeats: 65536}}]]",
        "many layers": f"{small}[[1, nn.LSTM, [10000, 10000, 100000]]]", "a huge layer": f"{small}[[1, nn.Linear, [{'9' * 20}]]]",
        "a huge convolution": f"{small}[[1, nn.Conv2d, [1000000000, 1000000]]]", "a huge map": f"{small}[[1, nn.ZeroPad2d, [1000000000]]]",
        "much to vary": f"{small}[{'[1, Conv, [8, 3]],' * 2_900}]\nvary: [{'{rows: all, kernel: 3|5},' * 100}]",
        "lists in lists": f"{small}[[1, SPP, [8, {'[' * 40}3{']' * 40}]]]", "a long list": f"{small}[[1, SPP, [8, [{'3,' * 100_000}]]]]",
        "many joins": f"{small}[[1, Conv, [8, 3], {{name: n0}}]," + ",".join(
            f"[1, Add, {{name: n{i}, from: [n{i - 1}, n{i // 2}, n0]}}]" for i in range(1, 2_900)) + "]",
        "a tag": "!!python/object/apply:os.system [touch pwned]", "a null": "backbone: \x00",
    }  # fmt: skip
    yield from ((name, text.encode()) for name, text in texts.items())
    yield "UTF-16", "backbone: []".encode("utf-16")
    yield "Latin-1", "backbone: [ü]".encode("latin-1")
    yield "no text at all", os.urandom(100_000)
