"""What a person reads: tables of layers, choices, settings and fronts, as text and as plain data.

Tables of networks load torch where they are made; fronts are shown without it, which takes a second less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from archtuna.architecture import Architecture
from archtuna.errors import number
from archtuna.objective import Objective, kind_of
from archtuna.registry import Block
from archtuna.schedule import schedule_of
from archtuna.selection import noise_marks
from archtuna.settings import DEFAULT_OBJECTIVES, DataSettings, DeploySettings, SearchSettings
from archtuna.terminal import ENDLESS, Column, Screen, paragraph
from archtuna.terminal import table as fitting

if TYPE_CHECKING:
    from archtuna.bench import Replay
    from archtuna.profiles import Profile
    from archtuna.repeats import Run
    from archtuna.sensitivity import Sensitivity
    from archtuna.space import SearchSpace
    from archtuna.study import Picked, Study, Trial


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[str] = ()) -> list[str]:
    """Return lines of aligned columns; those named in ``left`` are aligned to the left, the others to the right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if name in left else cell.rjust(width)
            for cell, width, name in zip(row, widths, header, strict=True)
        ).rstrip()
        for row in cells
    ]


def measured(value: float, spread: float | None, runs: int, *, failed: int = 0) -> str:
    """Write a value with what is known of its noise: ``0.9212 ± 0.0040 (n=3)``.

    Args:
        value: a mean of runs.
        spread: their standard deviation, or None.
        runs: how many there were.
        failed: how many more ended without a value.
    """
    text = f"{value:#.4g}"
    decimals = len(text.partition(".")[2])
    deviation = "" if spread is None else f" ± {spread:.{decimals}f}"
    return f"{text}{deviation} (n={runs}{f', {failed} failed' if failed else ''})"


def quality(trial: Trial, name: str) -> str:
    """Write one value of a trial, with its noise where the network was trained again."""
    spread = (trial.spread or {}).get(name)
    failed = len(trial.again) - trial.repeats
    is_repeated = bool(trial.again) and kind_of(name) == "quality"
    return (
        measured(trial.values[name], spread, trial.runs, failed=failed) if is_repeated else number(trial.values[name])
    )


def shape(sides: Sequence[Any]) -> str:
    """Write a shape, ``16x8x8``; several with a plus between."""
    if sides and not isinstance(sides[0], int):
        return " + ".join(map(shape, sides))
    return "x".join(str(side) for side in sides)


def layers(architecture: Architecture) -> list[dict[str, Any]]:
    """Return the layer table as plain data; rows with a name, or that take from elsewhere, say so."""
    from archtuna.model import table

    lines = []
    for row in table(architecture):
        line = {
            "idx": row.idx, "n": row.n, "params": row.params, "module": row.module, "arguments": _lists(row.arguments),
            "in": _lists(row.input), "out": _lists(row.output), "macs": row.macs,
        }  # fmt: skip
        if not architecture.is_chain:
            line |= {"name": row.name, "from": None if row.sources is None else list(row.sources)}
        lines.append(line)
    return lines


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _lists(one) for name, one in value.items()}
    return list(map(_lists, value)) if isinstance(value, list | tuple) else value


def layer_lines(architecture: Architecture) -> list[str]:
    """Return the layer table as text, with its totals."""
    from archtuna.costs import costs_of

    rows = layers(architecture)
    header = ["idx", "n", "params", "module", "arguments", "in", "out", "macs"]
    body = [
        [
            str(r["idx"]), str(r["n"]), f"{r['params']:,}", r["module"], _arguments(r["arguments"]),
            shape(r["in"]), shape(r["out"]), f"{r['macs']:,}",
        ]
        for r in rows
    ]  # fmt: skip
    if not architecture.is_chain:
        header += ["name", "from"]
        body = [[*line, r["name"] or "", ", ".join(r["from"] or ())] for line, r in zip(body, rows, strict=True)]
    costs = costs_of(architecture)
    size = shape((architecture.input_channels, *architecture.input_size))
    total = (
        f"{sum(r['n'] for r in rows)} blocks, {costs['params']:,} parameters, {costs['macs']:,} multiply-accumulates "
        f"at {size}, {costs['size_mb']:.2f} MB, activations of {costs['peak_memory_mb']:.3g} MB at once, "
        f"key {architecture.key}"
    )
    return [*columns(header, body, left=("module", "arguments", "name", "from")), total]


def _arguments(values: Mapping[str, Any]) -> str:
    """Write arguments briefly: the values in order, as the list form has them."""
    return f"[{', '.join(map(_brief, values.values()))}]"


def _brief(value: Any) -> str:
    """Write a value as a file has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_brief, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def profiled(architecture: Architecture, found: Profile) -> dict[str, Any]:
    """Return what ``archtuna profile --json`` prints: the layer table with milliseconds and their share."""
    rows = [
        line | {"ms": ms, "share": ms / found.ms}
        for line, ms in zip(layers(architecture), found.rows(architecture), strict=True)
    ]
    return {"key": architecture.key, "rows": rows, **found.to_dict()}


def profile_lines(architecture: Architecture, found: Profile) -> list[str]:
    """Return the layer table with the milliseconds that each row takes, as text."""
    header = ("idx", "n", "module", "arguments", "out", "params", "macs", "ms", "share")
    body = [
        (
            str(r["idx"]), str(r["n"]), r["module"], _arguments(r["arguments"]), shape(r["out"]),
            f"{r['params']:,}", f"{r['macs']:,}", f"{r['ms']:.3f}", f"{r['share']:.0%}",
        )
        for r in profiled(architecture, found)["rows"]
    ]  # fmt: skip
    between = ("", "", "the runtime itself", "", "", "", "", f"{found.rest:.3f}", f"{found.rest / found.ms:.0%}")
    where = found.device
    threads = f"{where.threads} thread{'s' if where.threads > 1 else ''}"
    return [
        *columns(header, [*body, between], left=("module", "arguments")),
        f"{found.ms:.3f} ms for a batch of {where.batch}, {found.profiled_ms:.3f} ms while it was profiled, {found.runs} runs",
        f"{where.processor}, {where.runtime}, {threads}; device {where.fingerprint}",
    ]


def facts(architecture: Architecture) -> dict[str, Any]:
    """Return key, costs and output shape of a network as plain data."""
    from archtuna.costs import costs_of
    from archtuna.model import check_output

    costs = costs_of(architecture)
    output = [1, check_output(architecture)]
    counts = {name: int(costs[name]) for name in ("params", "macs")}
    return {"key": architecture.key, **counts, "peak_memory_mb": costs["peak_memory_mb"], "output": output}


def check(space: SearchSpace) -> dict[str, Any]:
    """Return what ``archtuna check --json`` prints."""
    found: dict[str, Any] = {"file": space.file, "choices": len(space.choices), "space_size": space.size}
    found["default"] = facts(space.default().architecture)
    if space.choices:
        found["smallest"] = facts(space.smallest().architecture)
        found["largest"] = facts(space.largest().architecture)
    return found


def check_lines(space: SearchSpace) -> list[str]:
    """Return what ``archtuna check`` prints: the layer table, the choices, and every setting with its default."""
    from archtuna.space import MOST_NETWORKS

    found = check(space)
    lines = [*layer_lines(space.default().architecture), ""]
    if not space.choices:
        lines += ["no choices: one network", ""]
    else:
        size = found["space_size"]
        networks = f"{size:,}" if size < 10**15 else f"{size:.1e}" if size < MOST_NETWORKS else "more than 10^300"
        lines += [f"{len(space.choices)} choices, {networks} networks"]
        named = columns(("choice", "values"), [(c.name, str(c)) for c in space.choices], left=("choice", "values"))
        lines += [f"  {line}" for line in named]
        for name in ("default", "smallest", "largest"):
            lines.append(
                f"  {name}: {found[name]['params']:,} parameters, {found[name]['macs']:,} multiply-accumulates, "
                f"activations of {found[name]['peak_memory_mb']:.3g} MB at once"
            )
        lines.append("")
    return lines + setting_lines(space)


def setting_lines(space: SearchSpace) -> list[str]:
    """Return every setting of a search, and which of them the file gives."""
    given, lines = space.settings, []
    chosen = {name: str(slot.choice or slot.value) for name, slot in space.training.items()}
    for section, defaults, own in (
        ("data", DataSettings(), given.data),
        ("training", space.default().recipe, chosen),
        ("search", SearchSettings(), given.search),
        ("deploy", DeploySettings(), given.deploy),
    ):
        lines.append(f"{section}:")
        for field in fields(defaults):
            value = own.get(field.name, getattr(defaults, field.name))
            mark = "" if field.name in own else "  # default"
            lines.append(f"  {field.name}: {'null' if value is None else value}{mark}")
    epochs = space.default().recipe.epochs
    rungs = ", ".join(map(str, schedule_of(given.search).rungs(epochs))) or "none"
    lines.append(f"rungs: {rungs} of {epochs} epochs")
    lines.append(
        f"objectives: {', '.join(given.objectives or DEFAULT_OBJECTIVES)}{'' if given.objectives else '  # default'}"
    )
    lines.append(f"limits: {', '.join(map(str, given.limits)) or 'none'}")
    return lines


def front(study: Study) -> list[dict[str, Any]]:
    """Return what ``archtuna front --json`` prints."""
    return [
        {
            "number": trial.number,
            "key": trial.key,
            "values": dict(trial.values),
            "checkpoint": str(trial.checkpoint) if trial.checkpoint else None,
            "epochs": trial.epochs,
            "runs": trial.runs,
            "spread": dict(trial.spread) if trial.spread else None,
            "own": dict(trial.own),
        }
        for trial in study.front()
    ]


def front_lines(study: Study, screen: Screen = ENDLESS) -> list[str]:
    """Return the front as text, its knee point marked, and what was kept on disk."""
    trials = study.front()
    if not trials:
        counts = study.counts()
        return [
            "no network was evaluated in full yet: " + ", ".join(f"{n} {state}" for state, n in counts.items()),
            f"archtuna status {study.folder} says how the search stands",
        ]
    knee = study.knee().number
    first = next(o for o in study.objectives if o.kind == "quality")
    marks = noise_marks(trials, first)
    again = any(trial.again for trial in trials)
    columns = [Column("trial", [f"{trial.number}{'*' if trial.number == knee else ' '}" for trial in trials])]
    for o in study.objectives:
        cells = [
            quality(t, o.name) + (" ~" if noisy and o is first else "") for t, noisy in zip(trials, marks, strict=True)
        ]
        columns.append(Column(_head(o), cells, short=o.name, left=again and o.kind == "quality"))
    columns.append(Column("kept epoch", [f"{trial.kept}/{trial.epochs}" for trial in trials], extra=True))
    columns.append(Column("checkpoint", [_checkpoint(study, trial) for trial in trials], left=True, extra=True))
    disk = study.disk()
    place = study.artifacts.folder / "checkpoints"
    files = f"{disk['files']} checkpoint{'s' if disk['files'] != 1 else ''}"
    kept = f"{files}, {disk['bytes'] / 1e6:.1f} MB in {place}: {disk['rule']}"
    note = "validation pictures chose these values; `archtuna train` reports on test pictures that the search never saw"
    legend = [
        "* knee point: nearest to the best of every objective",
        *(_noise_lines(first, any(marks)) if again else ()),
    ]
    said = [*legend, *measuring_lines(study.measuring()), kept, note]
    return [*fitting(columns, screen), *(line for text in said for line in paragraph(text, screen, 9))]


def measuring_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Say what measuring networks has cost, and on what they were measured."""
    if not found or not found["networks"]:
        return []
    waited = f", for which trainings stood still {found['waited']:.0f} s" if found["waited"] else ""
    lines = [f"{found['networks']} networks measured in {found['seconds']:.0f} s{waited}"]
    return lines + [f"{name}: {described}" for name, described in found["devices"].items()]


def reading_lines(reading: Mapping[str, Any] | None) -> list[str]:
    """Say what a network was measured to take, with intervals and devices."""
    if not reading:
        return []
    lines = [
        f"latency on {name}: {one['ms']:.4g} ms ({one['low']:.4g} to {one['high']:.4g}), {one['device']['processor']}, "
        f"{one['device']['runtime']}, {one['device']['threads']} thread(s), batch {one['device']['batch']}"
        for name, one in reading.get("latencies", {}).items()
    ]
    return lines + ([f"exported: {reading['bytes']:,} bytes"] if reading.get("bytes") else [])


def sensitivity_lines(architecture: Architecture, found: Sequence[Sensitivity]) -> list[str]:
    """Return as a table what each layer of a network loses when it alone is quantised, worst first."""
    units = [row for _, row in architecture.units()]
    header = ("layer", "block", "SQNR (dB)", "accuracy", "f1")
    rows = [
        (
            one.layer,
            units[int(one.layer.removeprefix("layers."))].module,
            f"{one.sqnr:.1f}",
            f"{one.accuracy:+.4f}",
            f"{one.f1:+.4f}",
        )
        for one in found
    ]
    legend = "signal against noise of the logits, and the change of both metrics, with this layer alone in int8"
    return [*columns(header, rows, left=("block",)), legend]


def _head(objective: Objective) -> str:
    return f"{objective.name} {arrow(objective)}"


def _noise_lines(first: Objective, marked: bool) -> list[str]:
    lines = ["± standard deviation of n runs with other seeds; the run that the search chose by is not among them"]
    if marked:
        words = f"~ its {first.name} is better than that of the next cheaper network by less than two standard errors"
        lines.append(f"{words} of the difference: it may be chance")
    return lines


def _checkpoint(study: Study, trial: Trial) -> str:
    if trial.checkpoint is None:
        return "-"
    return str(trial.checkpoint).removeprefix(f"{study.folder}/")


def arrow(objective: Objective) -> str:
    """The direction that is better, for a column's head."""
    return "(min)" if objective.direction == "minimize" else "(max)"


def picked(found: Picked) -> dict[str, Any]:
    """Return what ``archtuna pick --json`` prints."""
    trial = found.trial
    return {
        "number": trial.number, "key": trial.key, "values": dict(trial.values), "runs": trial.runs,
        "spread": dict(trial.spread) if trial.spread else None,
        "checkpoint": str(trial.checkpoint) if trial.checkpoint else None,
        "why": found.why, "left": found.left, "front": found.front,
    }  # fmt: skip


def picked_lines(found: Picked) -> list[str]:
    """Return a network that was chosen as text: its values, its checkpoint, and why it was chosen."""
    trial = found.trial
    values = ", ".join(f"{name} {quality(trial, name)}" for name in trial.values)
    kept = str(trial.checkpoint) if trial.checkpoint else f"its weights are not kept: archtuna train RUN {trial.number}"
    front = f"all {found.front} networks on the front"
    if found.left < found.front:
        front = f"the {found.left} of {found.front} networks on the front that keep the bounds"
    return [f"trial {trial.number}: {values}", kept, f"{found.why}; chosen from {front}"]


def shown(trial: Trial) -> dict[str, Any]:
    """Return what ``archtuna show --json`` prints.

    Raises:
        StudyError: the trial has no network.
    """
    architecture = trial.architecture
    return {
        "number": trial.number, "key": architecture.key, "values": dict(trial.values), "rows": layers(architecture),
        "yaml": architecture.to_yaml(), "state": trial.state, "metrics": dict(trial.metrics), "costs": dict(trial.costs),
        "recipe": dict(trial.recipe), "decisions": dict(trial.decisions), "runs": trial.runs,
        "spread": dict(trial.spread) if trial.spread else None, "own": dict(trial.own),
        "again": [{"seed": run.seed, "metrics": dict(run.metrics), "reason": run.reason} for run in trial.again],
        "reading": dict(trial.reading) if trial.reading else None,
    }  # fmt: skip


def show_lines(trial: Trial) -> list[str]:
    """Return a trial as text: its values, its training values and the layer table."""
    lines = [f"trial {trial.number}: {trial.state}{f' ({trial.reason})' if trial.reason else ''}"]
    lines += trial.traceback.rstrip().splitlines() if trial.traceback else []
    if trial.metrics:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in trial.metrics.items())
        lines.append(f"validation, epoch {trial.kept} of {trial.epochs}: {metrics}")
    if trial.checkpoint:
        lines.append(f"checkpoint: {trial.checkpoint}")
    lines += reading_lines(trial.reading)
    lines += [_again_line(run) for run in trial.again]
    if trial.again:
        lines.append("mean: " + ", ".join(f"{name} {quality(trial, name)}" for name in trial.values))
    searched = {k: v for k, v in trial.decisions.items() if k.startswith("training.")}
    lines += [f"{name}: {_brief(value)}" for name, value in searched.items()]
    return [*lines, "", *layer_lines(trial.architecture)]


def _again_line(run: Run) -> str:
    values = ", ".join(f"{name} {value:.4f}" for name, value in run.metrics.items())
    return f"again with seed {run.seed}: {values or run.reason}"


def block(entry: Block) -> dict[str, Any]:
    """Return a block and its arguments as plain data."""
    return {
        "name": entry.name,
        "meaning": entry.meaning,
        "paper": entry.paper,
        "origin": entry.origin,
        "inputs": entry.inputs,
        "repeat": entry.repeat,
        "scaled": entry.scaled,
        "arguments": [
            {
                "name": p.name,
                "meaning": entry.meaning_of(p.name),
                "expected": p.expected,
                "required": p.required,
                "default": None if p.required else _lists(p.default),
            }
            for p in entry.parameters
        ],
    }


_COPIES = {
    "stride first": "the first has the stride, the others keep the size",
    "stride last": "the last has the stride, the others keep the size",
    "widen last": "the last changes the channels",
    "inside": "handed on as the argument repeats",
    "each": "each as it is",
    "once": "one, whatever the repeat says",
}


def block_lines(entries: Sequence[Block]) -> list[str]:
    """Return blocks as text: the list form, the meaning, and for a single one each argument."""
    lines = []
    for entry in entries:
        arguments = ", ".join(p.name if p.required else f"{p.name}={_brief(p.default)}" for p in entry.parameters)
        lines.append(f"{entry.name} [{arguments}]")
        lines += [f"    {entry.meaning}", *([f"    {entry.paper}"] if entry.paper else [])]
        if len(entries) == 1:
            lines += _argument_lines(entry)
    return lines


def _argument_lines(entry: Block) -> list[str]:
    rows = [
        (p.name, "required" if p.required else _brief(p.default), entry.meaning_of(p.name), p.expected)
        for p in entry.parameters
    ]
    header = ("argument", "default", "meaning", "what it may be")
    table = columns(header, rows, left=header) if rows else ["no arguments"]
    takes = "two or more rows" if entry.joins else "one row" if entry.inputs == 1 else f"{entry.inputs} rows"
    applies = f"applies to {entry.scaled_argument}" if entry.scaled else "does not apply"
    return [
        *(f"    {line}" for line in table),
        f"    takes {takes}; several copies in one row: {_COPIES[entry.repeat]}; width_multiple {applies}",
        *([f"    registered by {entry.origin}"] if entry.is_foreign else []),
    ]


# --- benchmarks --------------------------------------------------------------------------------------


def bench_lines(done: Sequence[Replay]) -> list[str]:
    """Say how replayed searches went: mean and standard deviation of the score after so many trials."""
    from archtuna.bench import summary

    lines, found = summary(done), []
    for name, case in dict.fromkeys((line.table, line.case) for line in lines):
        here = [line for line in lines if (line.table, line.case) == (name, case)]
        header = ["sampler", *(str(budget) for budget in here[0].mean), "different", "ms a proposal", "n"]
        rows = [
            [
                line.sampler,
                *(f"{mean:.4f} ± {line.spread[budget]:.4f}" for budget, mean in line.mean.items()),
                f"{line.distinct:.0f}",
                f"{1000 * line.seconds:.1f}",
                str(line.n),
            ]
            for line in here
        ]
        found += [f"{name}: {case}", *columns(header, rows, left=["sampler"])]
        found += [*_head_start([one for one in done if (one.table, one.case) == (name, case)]), ""]
    return found[:-1]


def _head_start(done: Sequence[Replay]) -> list[str]:
    from archtuna.bench import as_good_as
    from archtuna.sampler import OURS

    others = sorted({one.sampler for one in done} - {OURS})
    reached = as_good_as(done, done[0].case, OURS, others)
    if reached is None:
        return []
    return [
        f"{OURS} is after {reached[0]} trials where {reached[1]}, the best of the others, is after {len(done[0].scores)}"
    ]
