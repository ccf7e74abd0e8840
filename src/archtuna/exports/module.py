"""Plain PyTorch: a Python file that anybody can read and change, and its weights, for use without archtuna."""

from __future__ import annotations

import keyword
import re
import secrets
import sys
import types
from io import BytesIO
from typing import Any

import torch

from archtuna.architecture import PICTURE, Architecture, Row
from archtuna.exports.formats import FORMATS, Format, Run, Source, Written, runs, tapped
from archtuna.exports.lifting import Lifted, lift, literal
from archtuna.model import channels_of, survey
from archtuna.registry import BLOCKS, Block

WEIGHTS = ".weights.pt"
WIDTH = 105
IMPORTS = {
    "Path": "from pathlib import Path", "torch": "import torch", "Tensor": "from torch import Tensor",
    "nn": "from torch import nn",
}  # fmt: skip
OWN_NAMES = ("Model", "load", "preprocess", "CLASSES", "HEIGHT", "WIDTH", "MEAN", "STD")
"""What the file imports, and what it calls its own things, besides what it takes over."""

_HEAD = '''\
"""{title}

Plain PyTorch. The weights lie beside this file, under its name with {suffix}. As model.py it is used so:

    from model import {names}

    model = load()                  # torch.nn.Module in evaluation mode
    logits = model(images)          # images: float32 (N, {channels}, {height}, {width}), normalised
{usage}
From a shell: python model.py{shell}
"""
'''

_FROM_PICTURES = """\
    image = preprocess("new.jpg")   # (C, H, W), as in training; needs Pillow and NumPy
    print(CLASSES[model(image[None]).argmax()])
"""

_LOAD = '''\
def load(weights: str | Path | None = None) -> Model:
    """Return the model in evaluation mode, with the weights of a file, by default the one beside this one."""
    model = Model()
    weights = weights or Path(__file__).with_suffix("{suffix}")
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval()
'''

_PREPROCESS = '''\
def preprocess(path: str | Path) -> Tensor:
    """Return a picture file as the model takes it (C, H, W), as in training; needs Pillow and NumPy."""
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        if picture.mode == "F":  # 0..1 where nothing is above 1, else 0..255
            values = np.nan_to_num(values.astype(np.float64))
            values = np.rint(values * (255 if values.max(initial=0) <= 1 else 1)).clip(0, 255)
        else:  # 16 bits
            values = (values.clip(0, 65_535).astype(np.uint32) + 128) // 257
        picture = Image.fromarray(values.astype(np.uint8))
    elif picture.has_transparency_data:
        front = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
    picture = picture.convert("{mode}")
{steps}    pixels = torch.from_numpy(np.array(picture)).reshape(HEIGHT, WIDTH, -1).permute(2, 0, 1).float()
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels / 255 - mean) / std
'''

_RESIZE = "    picture = picture.resize(({width}, {height}), Image.Resampling.BICUBIC, reducing_gap=3.0)\n"
_PAD = """\
    # The picture keeps its shape; what is left over around it is black.
    scale = min({width} / picture.width, {height} / picture.height)
    inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    canvas = Image.new(picture.mode, ({width}, {height}))
    place = (({width} - inner[0]) // 2, ({height} - inner[1]) // 2)
    canvas.paste(picture.resize(inner, Image.Resampling.BICUBIC, reducing_gap=3.0), place)
    picture = canvas
"""

_MAIN = """\
if __name__ == "__main__":
    import sys

    model = load()
    for path in sys.argv[1:]:
        with torch.inference_mode():
            probabilities = model(preprocess(path)[None]).softmax(1)[0]
        best = int(probabilities.argmax())
        print(f"{path}: {CLASSES[best]} {probabilities[best]:.3f}")
"""

_MAIN_BARE = """\
if __name__ == "__main__":
    model = load()
    print(model)
    print(model(torch.zeros(1, {channels}, {height}, {width})))
"""


def write(source: Source) -> Written:
    buffer = BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in source.model.state_dict().items()}, buffer)
    return Written(code_of(source.model).encode(), {WEIGHTS: buffer.getvalue()})


def open_(written: Written, source: Source) -> Run:
    namespace = types.ModuleType(f"archtuna_exported_{secrets.token_hex(8)}")
    namespace.__file__ = "model.py"
    sys.modules[namespace.__name__] = namespace  # where a dataclass looks up its own file
    try:
        exec(compile(written.content, "model.py", "exec"), namespace.__dict__)
    finally:
        sys.modules.pop(namespace.__name__, None)
    model = namespace.Model()
    model.load_state_dict(torch.load(BytesIO(written.beside[WEIGHTS]), map_location="cpu", weights_only=True))
    return runs(tapped(model.eval(), source))


def code_of(model: Any) -> str:
    """Return a Python file that defines the network of a model, and what is needed to use it.

    Raises:
        ExportError: the code of a block cannot be taken over.
    """
    architecture: Architecture = model.architecture
    entries = [BLOCKS[row.module] for row in architecture.rows]
    taken = dict.fromkeys(OWN_NAMES, "the file itself") | IMPORTS
    lifted = lift([e.target for e in entries if not _is_of_torch(e)], _packages(entries), taken)
    pictures = getattr(model, "preprocess", None)
    parts = [
        _head(model, pictures is not None),
        "from __future__ import annotations\n",
        _imports(lifted),
        _constants(lifted, model),
        *(f"\n{text}\n" for text in lifted.definitions.values()),
        f"\n{_network(architecture)}",
        f"\n{_LOAD.format(suffix=WEIGHTS)}",
        *([f"\n{_preprocess(pictures)}"] if pictures else []),
        f"\n{_main(model, pictures is not None)}",
    ]
    return "\n".join(parts)


def _is_of_torch(entry: Block) -> bool:
    return entry.name.startswith("nn.")


def _packages(entries: list[Block]) -> set[str]:
    """Return the packages whose code is taken over: archtuna's, and those that register blocks of one's own."""
    return {"archtuna", *(entry.origin.partition(".")[0] for entry in entries)} - {"torch"}


def _head(model: Any, prepared: bool) -> str:
    architecture, classes = model.architecture, getattr(model, "classes", None)
    height, width = architecture.input_size
    return _HEAD.format(
        title=f"An image classifier of {len(classes)} classes." if classes else "An image classifier.",
        suffix=WEIGHTS, channels=architecture.input_channels, height=height, width=width,
        names="CLASSES, load, preprocess" if prepared else "load",
        usage=_FROM_PICTURES if prepared else "", shell=" picture.jpg …" if prepared else "",
    )  # fmt: skip


def _imports(lifted: Lifted) -> str:
    wanted = lifted.imports | {*IMPORTS.values()}
    wanted.discard("from __future__ import annotations")
    grouped: dict[str, set[str]] = {}
    for line in wanted:
        module, _, names = line.removeprefix("from ").partition(" import ")
        grouped.setdefault(module if line.startswith("from ") else line, set()).update([names] if names else [])
    lines = [f"from {m} import {', '.join(sorted(n))}" if n else m for m, n in grouped.items()]
    ordered = sorted(lines, key=_place)
    first = next(i for i, line in enumerate(ordered) if _place(line)[0])
    return "\n".join([*ordered[:first], "", *ordered[first:]]) + "\n"


def _place(line: str) -> tuple[bool, bool, str]:
    """Order imports as formatters do: torch's behind the standard library's, whole modules first."""
    return line.split()[1].startswith("torch"), not line.startswith("import"), line


def _constants(lifted: Lifted, model: Any) -> str:
    preprocess = getattr(model, "preprocess", None)
    described: dict[str, Any] = {"CLASSES": list(model.classes)} if hasattr(model, "classes") else {}
    if preprocess is not None:
        described |= {"HEIGHT, WIDTH": preprocess.size, "MEAN": preprocess.mean, "STD": preprocess.std}
    groups = [{name: literal(value) for name, value in described.items()} | lifted.constants, lifted.types]
    return "\n".join("".join(f"{name} = {text}\n" for name, text in group.items()) for group in groups if group)


def _network(architecture: Architecture) -> str:
    units = zip(architecture.units(), survey(architecture), strict=True)
    body = "\n".join(_indented(f"{_call(row, facts.inputs)},", 12) for (_, row), (_, facts) in units)
    forward = "        return self.layers(x).flatten(1)\n" if architecture.is_chain else _wired(architecture)
    return f'''\
class Model(nn.Module):
    """The network; layers are numbered in the order in which they stand here."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
{body}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes) of pictures (N, C, H, W)."""
{forward}'''


def _indented(text: str, by: int) -> str:
    return "\n".join(f"{' ' * by}{line}" for line in text.splitlines())


def _call(row: Row, shapes: tuple[Any, ...]) -> str:
    """Write what makes a block, each argument by name."""
    entry, channels = BLOCKS[row.module], tuple(map(channels_of, shapes))
    given = dict(row.arguments)
    if entry.channels_argument is not None:
        given = {entry.channels_argument: channels if entry.joins else channels[0]} | given
    name = entry.name if _is_of_torch(entry) else entry.target.__name__
    return _called(name, [f"{key}={literal(value)}" for key, value in given.items()])


def _called(name: str, arguments: list[str]) -> str:
    """Write a call, on several lines where one would be too long."""
    line = f"{name}({', '.join(arguments)})"
    return line if len(line) < WIDTH else f"{name}(\n    " + ",\n    ".join(arguments) + ",\n)"


def _wired(architecture: Architecture) -> str:
    """Write a forward pass that keeps each output under a name."""
    names = {PICTURE: "x"} | _variables(architecture)
    lines = [
        f"{names[i]} = {_called(f'self.layers[{i}]', [names[j] for j in inputs])}"
        for i, inputs in enumerate(architecture.wires())
    ]
    return _indented("\n".join([*lines, f"return {names[len(lines) - 1]}.flatten(1)"]), 8) + "\n"


def _variables(architecture: Architecture) -> dict[int, str]:
    """Return a name for each unit's output: its row's, where that can be one and this is the row's last copy."""
    units = [index for index, _ in architecture.units()]
    names = architecture.names()
    found: dict[int, str] = {}
    for i, index in enumerate(units):
        name = names[index] or ""
        last = i + 1 == len(units) or units[i + 1] != index
        taken = name in (*found.values(), "self") or re.fullmatch(r"x\d*", name) or keyword.iskeyword(name)
        usable = last and name.isidentifier() and not taken
        found[i] = name if usable else f"x{i}"
    return found


def _preprocess(preprocess: Any) -> str:
    first = preprocess.via or preprocess.size
    step = _PAD if preprocess.fit == "pad" else _RESIZE
    steps = step.format(height=first[0], width=first[1])
    if preprocess.via:
        steps += _RESIZE.format(height=preprocess.size[0], width=preprocess.size[1])
    return _PREPROCESS.format(mode="L" if preprocess.channels == 1 else "RGB", steps=steps)


def _main(model: Any, prepared: bool) -> str:
    if prepared and hasattr(model, "classes"):
        return _MAIN
    height, width = model.architecture.input_size
    return _MAIN_BARE.format(channels=model.architecture.input_channels, height=height, width=width)


FORMATS.add(
    "module",
    Format(name="module", title="plain PyTorch", suffixes=(".py",), write=write, open=open_, partial=False),
)
