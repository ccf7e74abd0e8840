"""Whether random networks of every ready space export to every format, proved, and how long that takes.

    python benchmarks/exports.py [--networks 200] [--minutes 10] [--formats onnx,pt2] [--spaces micro,resnet] [--out FILE]

A network is drawn from its space with a seed of its own, at the smallest input that the space is for, and sees 32 random
pictures in training mode, so that its batch norms have statistics. Its export has to give its outputs on random pictures, and
its accuracy and F1 on 64 with random labels; a failure is kept with its words. Each result is a line of a file beside the
table, and what is there is not done again: the benchmark goes on where it was interrupted, in another Python too, for formats
of other packages. Networks are done in turn over the spaces, so that what there is after some minutes is of all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from archtuna.errors import ArchtunaError
from archtuna.exports import FORMATS, Proof, export
from archtuna.model import Network, build
from archtuna.space import SearchSpace
from archtuna.starter import spaces, starter

RESULTS = Path(__file__).parent / "results" / "exports.md"
CLASSES = 10

Result = dict[str, Any]


def network_of(name: str, number: int) -> Network:
    """The network of that number in a ready space, always the same."""
    ready = spaces()[name]
    space = SearchSpace.read(starter(classes=CLASSES, input_size=ready.smallest, space=name))
    draws = random.Random(f"{name}/{number}")
    while True:
        torch.manual_seed(number)
        try:
            return seen(build(space.random(draws).architecture))
        except ArchtunaError:
            continue  # A draw whose rows do not fit each other, which a search refuses, too.


def seen(network: Network) -> Network:
    """The network, after its batch norms have seen pictures."""
    with torch.no_grad():
        network.train()(pictures(network, 32, 0))
    return network.eval()


def pictures(network: Network, n: int, seed: int) -> torch.Tensor:
    shape = (n, network.architecture.input_channels, *network.architecture.input_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def proof_for(network: Network) -> Proof:
    labels = torch.randint(0, CLASSES, (64,), generator=torch.Generator().manual_seed(1))
    return Proof([(pictures(network, 64, 1), labels)], CLASSES)


def tried(network: Network, name: str, folder: Path) -> Result:
    """What an export to a format gives."""
    begun = time.perf_counter()
    try:
        done = export(network, folder / f"model{FORMATS[name].suffixes[0]}", format=name, proof=proof_for(network))
    except ArchtunaError as error:
        return {"error": error.message, "seconds": time.perf_counter() - begun}
    return {"difference": done.max_difference, "bytes": done.bytes, "seconds": time.perf_counter() - begun}


def jobs(arguments: argparse.Namespace) -> Iterator[tuple[int, str]]:
    yield from ((number, space) for number in range(arguments.networks) for space in arguments.spaces)


def work(arguments: argparse.Namespace, lines: Path) -> None:
    """Do what is not done yet, for as long as there is time."""
    done = {(r["space"], r["number"], r["format"]) for r in read(lines)}
    end = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        for number, space in jobs(arguments):
            left = [name for name in arguments.formats if (space, number, name) not in done]
            network = network_of(space, number) if left else None
            for name in left:
                if time.monotonic() > end:
                    return
                result = {"space": space, "number": number, "format": name, **tried(network, name, Path(folder))}
                with lines.open("a") as file:
                    file.write(json.dumps(result) + "\n")


def read(lines: Path) -> list[Result]:
    return [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []


def table(results: list[Result]) -> str:
    """A Markdown table: one line for each space and format."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result["space"], result["format"]].append(result)
    heads = ("space", "format", "n", "failed", "worst difference", "median seconds", "median kB")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for (space, name), found in sorted(groups.items()):
        good = [r for r in found if "error" not in r]
        worst = max((r["difference"] for r in good), default=float("nan"))
        seconds, size = middle([r["seconds"] for r in found]), middle([r["bytes"] / 1e3 for r in good])
        cells = (space, name, len(found), len(found) - len(good), f"{worst:.1e}", f"{seconds:.1f}", f"{size:.0f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else float("nan")


def failures(results: list[Result]) -> str:
    failed = [r for r in results if "error" in r]
    lines = [f"- {r['space']} {r['number']}, {r['format']}: {r['error']}" for r in failed[:20]]
    return "\n".join(lines) if lines else "None."


def report(results: list[Result]) -> str:
    made = sum("error" not in r for r in results)
    return f"""\
# Exports of random networks

torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()} CPU, one thread, beside other work. Made by
`python benchmarks/exports.py`. Of {len(results):,} exports {made:,} were proved to be their model: outputs within 1e-4 of
the largest logit at batches of 1, 2 and 7 (ExecuTorch: 1) and on 64 pictures, and the same accuracy and F1 on these. Networks
have random weights, and the smallest input of their space.

{table(results)}

## What failed

{failures(results)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    installed = [name for name, format in FORMATS.items() if format.missing() is None]
    parser.add_argument("--networks", type=int, default=200, help="of each space")
    parser.add_argument("--minutes", type=float, default=1e9, help="after which it ends")
    parser.add_argument("--formats", type=lambda text: text.split(","), default=installed)
    parser.add_argument("--spaces", type=lambda text: text.split(","), default=list(spaces()))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = arguments.out.with_suffix(".jsonl")
    work(arguments, lines)
    arguments.out.write_text(report(read(lines)))


if __name__ == "__main__":
    main()
