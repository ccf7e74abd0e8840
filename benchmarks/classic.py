"""The classic way to search against ours: same space, pictures, hardware and seeds; hypervolume over wall-clock time.

    python benchmarks/classic.py PICTURES [--arm classic ours] [--seed 0 1 2 3 4] [--report]
    python benchmarks/classic.py PICTURES --arm all      # ours with each part switched off, too
    python benchmarks/classic.py --report                # table and picture of what is there

PICTURES is a folder of class folders, or a zip of one. Each run is a process of its own, one after the other, so nothing else
should run on the machine meanwhile. What is done is kept in a JSON file, and only what is missing is run: the benchmark
may be run in pieces. ``--report`` first trains each network that was ever on a front once more, the same way for all,
where that was not done yet, which needs the pictures again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import classic_ours
import psutil
import torch
from classic_report import CLASSIC, OURS, ever_on_front, picture, table

from archtuna import Data, SearchSpace, costs_of
from archtuna.space import Candidate

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "classic.json"
TRAINING_SEED = 20_000
"""Of the training that measures a network for the hypervolume: no search uses it."""

ARMS = {CLASSIC: (), OURS: (), **{f"no-{part}": (part,) for part in classic_ours.PARTS}, "all-off": classic_ours.PARTS}
"""What is compared, and the parts that are switched off in it."""


# --- pictures and space ----------------------------------------------------------------------------------


def prepare(source: Path, work: Path, count: int | None) -> Path:
    """Lay the pictures out as users do, in ``train``, ``val`` and ``test``, and return that folder.

    Args:
        source: a folder of class folders, or a zip of one.
        work: where to put them.
        count: how many at most, drawn by class and part.
    """
    target = work / f"{source.stem}-{count or 'all'}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=work) as unpacked:
            data = Data.open(_root(source, Path(unpacked)))
            split = data.split(val=0.15, test=0.15, seed=0)
            share = min(1.0, count / len(data)) if count else 1.0
            building = Path(unpacked) / "laid-out"
            for part in ("train", "val", "test"):
                for index in _drawn(getattr(split, part).tolist(), data.labels, share):
                    place = building / part / data.classes[data.labels[index]]
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy(Path(data.source) / data.names[index], place)
            building.rename(target)
    return target


def _root(source: Path, unpacked: Path) -> Path:
    if source.is_dir():
        return source
    with zipfile.ZipFile(source) as file:
        file.extractall(unpacked)
    inside = list(unpacked.iterdir())
    return inside[0] if len(inside) == 1 else unpacked


def _drawn(indices: list[int], labels: Any, share: float) -> Iterator[int]:
    for label in sorted({int(labels[i]) for i in indices}):
        members = [i for i in indices if labels[i] == label]
        yield from random.Random(label).sample(members, max(2, round(share * len(members))))


def write_space(path: Path, classes: int, size: int, epochs: int) -> SearchSpace:
    """Fill in ``classic.yaml``, write it to a path and read it."""
    given = {"CLASSES": classes, "SIZE": size, "EPOCHS": epochs}
    text = (HERE / "classic.yaml").read_text(encoding="utf-8")
    path.write_text(re.sub(r"\b(CLASSES|SIZE|EPOCHS)\b", lambda found: str(given[found[0]]), text), encoding="utf-8")
    return SearchSpace.read(path)


# --- runs ------------------------------------------------------------------------------------------------


def run(arm: str, seed: int, space: SearchSpace, space_file: Path, pictures: Path, settings: Mapping[str, Any]) -> Any:
    """Run one way with one seed in processes of its own, and return its record and the networks of its fronts."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(space_file), str(pictures), folder, "--seed", str(seed)]
        if arm == CLASSIC:
            command = ["classic_way.py", *command, "--time", str(settings["classic_time"])]
            command += ["--trials", str(settings["trials"])]
        else:
            command = ["classic_ours.py", *command, "--time", str(settings["time"]), "--off", ",".join(ARMS[arm])]
        # Threads are as the two ways choose them; and nobody finds the pictures decoded by an earlier run.
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        environment["ARCHTUNA_CACHE"] = str(Path(folder) / "cache")
        cpu, busy, began = _cpu_seconds(), _busy_seconds(), time.time()
        done = subprocess.run(
            [sys.executable, str(HERE / command[0]), *command[1:]], stdout=subprocess.PIPE, text=True, check=True,
            env=environment,
        )  # fmt: skip
        seconds, cpu, busy = time.time() - began, _cpu_seconds() - cpu, _busy_seconds() - busy
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    trials, networks, counts = _read(arm, lines, space, began)
    record = {
        "arm": arm, "seed": seed, "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 1),
        "others": round(max(0.0, busy - cpu) / seconds, 3), "counts": counts, "trials": trials,
    }  # fmt: skip
    return record, {key: networks[key] for key in sorted(ever_on_front(record))}


def _busy_seconds() -> float:
    """Return how long the machine's cores have been busy, with whatever."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def _cpu_seconds() -> float:
    """Return how long processes that this one has started have kept cores busy."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _read(arm: str, lines: Sequence[Mapping[str, Any]], space: SearchSpace, began: float) -> Any:
    """Return the trials that were trained in full, their networks by key, and the counts of outcomes."""
    found = list(_classic_trials(lines) if arm == CLASSIC else _our_trials(lines))
    trials, networks = [], {}
    for at, f1, decisions in found:
        architecture = space.candidate(decisions).architecture
        params = int(costs_of(architecture)["params"])
        trials.append([round(at - began, 2), architecture.key, f1, params])
        networks[architecture.key] = {"params": params, "decisions": _told(space, decisions)}
    if arm == CLASSIC:
        states = [line["state"] for line in lines]
        counts = {state: states.count(state) for state in sorted(set(states))}
    else:
        counts = lines[-1]["trials"]
    return trials, networks, counts


def _classic_trials(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, float, Mapping[str, Any]]]:
    for line in lines:
        if line["values"]:
            yield line["at"], line["values"][1], line["decisions"]


def _our_trials(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, float, Mapping[str, Any]]]:
    decisions: dict[int, Mapping[str, Any]] = {}
    for line in lines:
        if line["event"] == "trial":
            decisions[line["number"]] = line["decisions"]
        if line["event"] == "complete":
            yield line["at"], line["values"]["f1"], decisions[line["number"]]


def _told(space: SearchSpace, decisions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decisions that are not the first option."""
    first = {choice.name: choice.default for choice in space.choices}
    return {name: value for name, value in decisions.items() if value != first[name]}


# --- one training for all --------------------------------------------------------------------------------


def train_all(record: dict[str, Any], space: SearchSpace, pictures: Path, jobs: int, keep: Any) -> None:
    """Train every network that has not been yet, and keep each result."""
    waiting = {key: network for key, network in record["networks"].items() if "test" not in network}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = {
            pool.submit(train, space.text, network["decisions"], str(pictures)): key for key, network in waiting.items()
        }
        for number, future in enumerate(as_completed(futures), 1):
            record["networks"][futures[future]] |= future.result()
            keep(record)
            print(f"trained {number} of {len(waiting)} networks once more", file=sys.stderr, end="\r")
    print(file=sys.stderr)


def train(text: str, decisions: Mapping[str, Any], pictures: str) -> dict[str, Any]:
    """Train one network in full and return its metrics on the validation and the test pictures."""
    from archtuna.evaluate import TrainEvaluator
    from archtuna.final import evaluate_checkpoint
    from archtuna.objective import objectives_of

    torch.set_num_threads(1)
    candidate = SearchSpace.read(text).candidate(decisions)
    candidate = Candidate(candidate.architecture, candidate.recipe.replace(seed=TRAINING_SEED), candidate.decisions)
    data = Data.open(pictures)
    evaluator = TrainEvaluator(data, data.split(), objectives=objectives_of(("f1", "params")))
    *_, last = evaluator.evaluate(candidate)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "best.safetensors"
        last.save(checkpoint, {})
        test = evaluate_checkpoint(checkpoint, data=data, split="test")
    rounded = {part: {m: round(found[m], 6) for m in ("loss", "accuracy", "f1")} for part, found in
               (("val", last.best), ("test", test))}  # fmt: skip
    return {**rounded, "train_seconds": round(last.seconds, 2)}


# --- the record ------------------------------------------------------------------------------------------


def settings_of(options: argparse.Namespace, space: SearchSpace, pictures: Path) -> dict[str, Any]:
    data = Data.open(pictures)
    split = data.split()
    return {
        "data": options.pictures.stem, "fingerprint": data.fingerprint, "classes": len(data.classes),
        "pictures": {part: len(getattr(split, part)) for part in ("train", "val", "test")},
        "space": space.key, "size": options.size, "epochs": options.epochs, "trials": options.trials,
        "classic_time": options.classic_time, "time": options.time,
        "largest": int(costs_of(space.largest().architecture)["params"]), "limit": options.limit,
    }  # fmt: skip


def opened(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record at a path, or a new one.

    Raises:
        SystemExit: it was made with other settings.
    """
    if not path.exists():
        return {"settings": dict(settings), "machine": machine(), "runs": [], "networks": {}}
    record = json.loads(path.read_text(encoding="utf-8"))
    kept = record["settings"]
    different = [f"{name}: there {kept.get(name)}, here {value}" for name, value in settings.items() if name != "limit"
                 and kept.get(name) != value]  # fmt: skip
    if different:
        raise SystemExit(f"{path} was made with something else: {'; '.join(different)}\nhint: name another --results")
    record["settings"]["limit"] = settings["limit"]
    return record


def keep(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record, a run or a network a line."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def line(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    runs = ",\n".join(map(line, record["runs"]))
    networks = ",\n".join(f"{line(key)}:{line(network)}" for key, network in sorted(record["networks"].items()))
    head = f'"settings":{line(record["settings"])},\n"machine":{line(record["machine"])}'
    part = path.with_suffix(".part")
    part.write_text(f'{{{head},\n"runs":[\n{runs}\n],\n"networks":{{\n{networks}\n}}}}\n', encoding="utf-8")
    part.replace(path)


def machine() -> dict[str, Any]:
    from importlib.metadata import version

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    libraries = {name: version(name) for name in ("torch", "optuna", "pillow", "numpy", "scikit-learn")}
    return {"processor": model, "cores": os.cpu_count(), "python": platform.python_version(), **libraries}


def conditions(record: Mapping[str, Any]) -> str:
    here = record["machine"]
    libraries = ", ".join(f"{name} {here[name]}" for name in ("torch", "optuna", "pillow", "numpy", "scikit-learn"))
    others = [run["others"] for run in record["runs"]]
    return (
        f"{here['processor']}, {here['cores']} cores; Python {here['python']}, {libraries}; {time.strftime('%Y-%m-%d')}. "
        f"Other processes kept {statistics.median(others):.2f} cores busy meanwhile in the median run, {max(others):.2f} in "
        "the worst. Made by `python benchmarks/classic.py`."
    )


def report(path: Path, record: Mapping[str, Any]) -> None:
    both = [{run["seed"] for run in record["runs"] if run["arm"] == arm} for arm in (CLASSIC, OURS)]
    if not set.intersection(*both):
        raise SystemExit("nothing to compare yet: no seed was run both by classic and by ours")
    text = table(record, conditions(record))
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    path.with_suffix(".svg").write_text(picture(record), encoding="utf-8")
    print(text)


# --- command ---------------------------------------------------------------------------------------------


def parser_of() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="?", help="a folder of class folders, or a zip of one")
    parser.add_argument("--arm", nargs="+", default=[CLASSIC, OURS], choices=[*ARMS, "all"], help="what to run")
    parser.add_argument("--seed", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--report", action="store_true", help="train the networks once more; write table and picture")
    parser.add_argument("--count", type=int, help="take at most so many pictures")
    parser.add_argument("--size", type=int, default=32, help="side of the input in pixels")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--trials", type=int, default=20, help="of the classic way")
    parser.add_argument("--classic-time", type=float, default=420, help="seconds after which it begins no trial")
    parser.add_argument("--time", type=float, default=120, help="seconds that ours has")
    parser.add_argument("--limit", type=int, default=500_000, help="parameters at which a network counts nothing")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="networks that are trained at once for the report"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "archtuna-classic")
    return parser


def main() -> None:
    options = parser_of().parse_args()
    if options.pictures is None and options.report and options.results.exists():
        record = json.loads(options.results.read_text(encoding="utf-8"))
        return report(options.results, record)
    if options.pictures is None or not options.pictures.exists():
        raise SystemExit(f"skipped: there are no pictures at {options.pictures}")
    options.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ARCHTUNA_CACHE", str(options.work / "cache"))
    pictures = prepare(options.pictures, options.work, options.count)
    space_file = options.work / "space.yaml"
    space = write_space(space_file, len(list((pictures / "train").iterdir())), options.size, options.epochs)
    record = opened(options.results, settings_of(options, space, pictures))
    run_missing(options, record, space, space_file, pictures)
    if options.report:
        train_all(record, space, pictures, options.jobs, lambda now: keep(options.results, now))
        report(options.results, record)


def run_missing(options: Any, record: dict[str, Any], space: SearchSpace, space_file: Path, pictures: Path) -> None:
    """Run each way with each seed, where that was not done yet; seeds come one after the other."""
    arms = list(ARMS) if "all" in options.arm else options.arm
    done = {(run["arm"], run["seed"]) for run in record["runs"]}
    for seed in options.seed:
        for arm in arms:
            if (arm, seed) in done:
                continue
            if reason := classic_ours.missing(ARMS[arm]):
                print(f"{arm}: not available, {reason}")
                continue
            ran, networks = run(arm, seed, space, space_file, pictures, record["settings"])
            record["runs"].append(ran)
            record["networks"] = {**networks, **record["networks"]}
            keep(options.results, record)
            print(f"{arm}, seed {seed}: {len(ran['trials'])} trained in {ran['seconds']:.0f} s, {ran['counts']}")


if __name__ == "__main__":
    main()
