"""A search: what was asked for, resolved into a study, and the workers that fill it, in this process or in several.

Started again with the same arguments a search goes on; the study is the only shared state.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archtuna.coding import coding_of
from archtuna.crew import REPEATS, SEARCH, Crew, Start, processes, what_to_do
from archtuna.errors import ArchtunaError, ShapeError, SpecError, StudyError, nearest
from archtuna.interrupts import Stop
from archtuna.leases import SECONDS, any_may_be_gone, take_back
from archtuna.loggers import Logger, check_loggers, told
from archtuna.objective import Limit, limit_of, objectives_of
from archtuna.orders import Orders
from archtuna.own_metrics import described
from archtuna.repeater import Again, check_again, train_again
from archtuna.runs import read_record, stored_url
from archtuna.sampler import make_sampler
from archtuna.schedule import Schedule, schedule_of
from archtuna.settings import DATA, DEFAULT_OBJECTIVES, DEPLOY, deploy_of, seconds_of, target_of
from archtuna.siblings import register_folder
from archtuna.space import SearchSpace
from archtuna.spec import Spec, measured_among, reference_of, versions
from archtuna.storage import Attr, clock_of, default_url, named_url, storage_errors_named, url_of
from archtuna.study import Study
from archtuna.worker import Event, OnEvent, Worker, stationed

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

    from archtuna.data import Data, Split

log = logging.getLogger("archtuna")

DEFAULT_TRIALS = 50
SCREENED = 10
"""Networks of a screened pool that a search begins with, instead of as many that are spread over the costs."""
CHECKED = 20
"""Networks that are looked at before a space is said not to fit the pictures."""
LOOKED_AT = 32
"""Random networks whose costs say how large those of a space are."""

ORDERS_PATIENCE = 600.0
"""Seconds that a worker which joins waits for a search that was just begun: scoring the networks of a screen takes minutes."""


def search(
    space: str | Path | Mapping[str, Any] | SearchSpace,
    data: Any = None,
    *,
    out: str | Path | None = None,
    objectives: Sequence[str] | None = None,
    trials: int | None = None,
    time: float | str | None = None,
    workers: int | None = None,
    storage: str | BaseStorage | None = None,
    name: str | None = None,
    artifacts: str | None = None,
    sampler: str | BaseSampler | None = None,
    seed: int | None = None,
    screen: str | None = None,
    limits: Sequence[str | Limit] | None = None,
    target: str | None = None,
    deploy: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    fraction: float | None = None,
    training: Mapping[str, Any] | None = None,
    device: str | None = None,
    per_gpu: int = 1,
    ray: str | None = None,
    near: int | None = None,
    lease: float = SECONDS,
    repeats: int | None = None,
    stopping: bool | Schedule | None = None,
    evaluator: Any = None,
    on_event: OnEvent | None = None,
    loggers: Sequence[str | Logger] = (),
) -> Study:
    """Search a space of networks for the front of its best, and return the study.

    What is not given comes from the file's sections, and then from defaults. The same call again goes on where the last
    one ended. Ctrl-C ends it cleanly: running trials go back into the queue; a second one ends it at once.

    Args:
        space: a search file, its text, its plain data, or a ``SearchSpace``.
        data: whatever ``Data.open`` takes.
        out: the run's folder, made where it is missing; by default ``runs/`` and the name of the pictures' folder or file.
        objectives: names among loss, f1, accuracy, params, macs, size_mb, peak_memory_mb, latency_ms and energy_mj, the last
            two also on a device of one's own, ``latency_ms@pi4``; by default f1 and params.
        trials: evaluations that the study is to reach; 50 when no time is given either.
        time: seconds, or a text such as ``20m``, after which no trial begins; what runs then has a tenth of it to end.
        workers: processes on this machine; 0 makes the study and leaves the work to those that ``join`` it.
        storage: URL or Optuna storage; by default the run's own, or ``ARCHTUNA_STORAGE``.
        name: of the study in its storage; by default the folder's name.
        artifacts: where weights go instead of ``out``, for machines that share no disk: a URL such as
            ``s3://bucket/runs/photos``, with credentials in the environment.
        sampler: ``known-costs``, the name of one of Optuna's, or an Optuna sampler of your own.
        seed: of the search and of the part of the data that ``fraction`` takes.
        screen: ``synflow``, ``naswot`` or ``macs``: a new study begins with the networks of a random pool that score best
            untrained, each among those of like size; ``none`` by default.
        limits: such as ``params <= 500k``, kept by every network that is trained; beside the file's, of which one on the same
            cost is replaced; an empty list leaves out the file's.
        target: what networks are to be exported to, such as ``onnx`` or ``onnx-int8``; short for ``deploy``.
        deploy: values of ``DeploySettings`` instead of the file's.
        epochs: of every training; short for ``training={"epochs": …}``.
        input_size: side in pixels, or (height, width), instead of the file's.
        fraction: stratified share of the training pictures to search on.
        training: training values instead of the file's.
        device: where to train; by default each worker takes a graphics card of its own, where there are any.
        per_gpu: workers that may share a graphics card, each with its part of the memory.
        ray: address of a Ray cluster whose actors the workers are to be, as ``ray.init`` takes it (``auto``).
        near: checkpoints kept behind the front; by default as many as when the study was begun, of a new one 10.
        lease: seconds after which the trial of a worker that gives no sign of life is taken from it, to go on elsewhere.
        repeats: how many times the networks of the front are trained again afterwards, with other seeds (see ``repeat``);
            ``time`` is that of the search alone.
        stopping: whether trials without a chance of the front are stopped early (they are, by default), or a ``Schedule``.
        evaluator: what stands in for training: a function of a candidate that returns its metrics or yields them once per
            epoch, an ``Evaluator``, or ``module:name`` of one; several workers need the latter.
        on_event: told of each event, as a plain dictionary.
        loggers: ``tensorboard``, ``mlflow``, ``wandb``, or objects of your own with ``take(event)`` and ``close()``; each is
            told of the same events in a thread of its own, and left out where it fails.

    Raises:
        SpecError: a mistake in the file or an argument.
        MissingExtraError: the library of a logger is not installed.
        DataError: pictures that cannot be used.
        ShapeError: the default network does not build or does not end in one output per class.
        StudyError: the run was made with something else, or cannot be reached or written, or no network keeps the limits.
    """
    check_loggers(loggers)
    plan = _plan(
        space, data, out=out, objectives=objectives, seed=seed, limits=limits, input_size=input_size,
        fraction=fraction, training={**(training or {}), **({} if epochs is None else {"epochs": epochs})},
        stopping=stopping, deploy={**(target_of(target) if target else {}), **(deploy or {})},
    )  # fmt: skip
    settings = plan.space.settings.search
    workers = int(_first(workers, settings.get("workers"), 1))
    sampler = sampler if sampler is not None else settings.get("sampler")
    make_sampler(sampler, objectives=len(plan.spec.objectives), seed=None)
    screen = _screen(_first(screen, settings.get("screen"), "none"))
    _check_workers(workers, storage, evaluator, plan.space, plan.spec.metrics, least=0, processes=ray is not None)
    budget = _budget(trials, time, settings)
    where = _where(storage, plan.out)
    _check_ray(ray, where, workers)
    study = Study.create_or_open(plan.out, plan.spec, name=name, storage=where, artifacts=artifacts)
    with storage_errors_named(url_of(where)), told(loggers, on_event, study.folder) as emit:
        register_folder(study)  # At once, for workers that join while a screen still scores networks.
        returned = take_back(study.optuna)
        if screen is not None and not study.optuna.get_trials(deepcopy=False):
            _queue_screened(study, plan, screen, budget[0])
        orders = _orders(
            study,
            *budget,
            workers=workers,
            near=_first(near, study.near),
            device=device,
            per_gpu=per_gpu,
            lease=lease,
            # Nobody else would go on with what ran before this machine was started again.
            linger=ray is not None or any_may_be_gone(study.optuna),
        )
        _publish(study, orders, sampler)
        _emit_start(emit, study, orders, plan.space, plan.data, plan.split, returned)
        if workers == 0:
            emit(_end_event(study, "created"))
            return study
        with _starting(ray, orders, where) as start:
            reason = _work(study, orders, sampler, evaluator, start, where, plan.data, emit)
            again = _first(repeats, settings.get("repeats"))
            if again and reason != "interrupted" and study.front():
                untimed = replace(orders, deadline=None)  # The time is that of the search alone.
                ended = _repeat(study, Again(again), plan.data, evaluator, untimed, start, where, emit)
                reason = "interrupted" if ended == "interrupted" else reason
        emit(_end_event(study, reason))
    return study


def join(
    name: str,
    *,
    storage: str | None = None,
    data: Any = None,
    out: str | Path | None = None,
    workers: int = 1,
    device: str | None = None,
    per_gpu: int = 1,
    evaluator: Any = None,
    linger: bool = True,
    on_event: OnEvent | None = None,
    loggers: Sequence[str | Logger] = (),
) -> Study:
    """Work on a search that was begun elsewhere, until it is over, and return its study.

    What is searched, on which pictures, how networks are trained and until when comes from the storage.

    Args:
        name: of the study in its storage.
        storage: URL; by default ``ARCHTUNA_STORAGE``.
        data: where the pictures are, should they lie elsewhere on this machine; they must be the same.
        out: folder for weights; by default the study's own, where this machine shares it, or none where they go into an
            object store.
        workers: processes on this machine.
        device: where to train; by default each worker takes a graphics card of its own, where there are any.
        per_gpu: workers that may share a graphics card, each with its part of the memory.
        evaluator: what stands in for training in this search.
        linger: whether to stay, when nothing is left to begin, until the trials of other workers have ended, and go on with
            them should those workers die.
        on_event: told of each event, as a plain dictionary.
        loggers: as for ``search``; they are told of what this process and its workers do.

    Raises:
        StudyError: there is no such study, or it cannot be reached or written.
        DataError: these are other pictures.
    """
    check_loggers(loggers)
    where = named_url(storage)
    study = Study.join(where, name, out)
    with storage_errors_named(where), told(loggers, on_event, study.folder) as emit:
        space, pictures = study.space(), study.data(data)
        _check_workers(workers, where, evaluator, space, study.spec.metrics)
        split = study.split(pictures)
        shared = _published(study)
        here = Orders(
            workers=workers, device=device, per_gpu=per_gpu, linger=linger, index=secrets.randbelow(2**31),
            started=len(study.optuna.get_trials(deepcopy=False)),
        )  # fmt: skip
        orders = here.joined(shared, clock_of(study.optuna._storage), time.time())
        _emit_start(emit, study, orders, space, pictures, split, take_back(study.optuna), joined=True)
        with _starting(None, orders, where) as start:
            reason = _work(study, orders, shared.get("sampler"), evaluator, start, where, pictures, emit)
        emit(_end_event(study, reason))
    return study


@contextlib.contextmanager
def _starting(ray: str | None, orders: Orders, where: Any) -> Iterator[Start | None]:
    """Give how workers are started; None where this process is the only one."""
    if ray is None:
        yield processes(where, orders.workers) if orders.workers > 1 else None
        return
    from archtuna.on_ray import actors

    gpus = 0.0 if orders.device == "cpu" else None if orders.per_gpu == 1 else 1.0 / orders.per_gpu
    with actors(ray, where, gpus=gpus) as start:
        yield start


def _work(
    study: Study,
    orders: Orders,
    sampler: Any,
    evaluator: Any,
    start: Start | None,
    where: Any,
    data: Data,
    emit: OnEvent,
) -> str:
    """Start workers, or be the only one; return why the work ended."""
    if start is not None:
        work = what_to_do(study, study.space(), data.source, evaluator, sampler)
        reason = Crew(study, orders, start, SEARCH, emit, work, url_of(where)).run()
    else:
        stop = Stop()
        with stop.on_signals(), stationed(study, data, orders, evaluator) as (made, prepare):
            reason = Worker(study, made, orders, emit, stop, sampler, prepare).run()
    study.sweep(orders.near)
    return reason


def _publish(study: Study, orders: Orders, sampler: Any) -> None:
    """Write down what workers that join later are to know."""
    shared = orders.shared(clock_of(study.optuna._storage), time.time())
    named = sampler if isinstance(sampler, str) else None
    study.optuna.set_user_attr(Attr.ORDERS, {**shared, "sampler": named})


def _published(study: Study, pause: float = 0.5) -> Mapping[str, Any]:
    """Return what ``_publish`` wrote; a search that screens networks first writes it when that is done.

    Without it a worker would know no end.

    Raises:
        StudyError: it is not there in time.
    """
    deadline, told = time.monotonic() + ORDERS_PATIENCE, False
    while (shared := study.optuna.user_attrs.get(Attr.ORDERS)) is None and time.monotonic() < deadline:
        if not told:
            told = True
            log.info("the study '%s' has no orders yet: waiting for its search", study.name)
        time.sleep(pause)
    if shared is not None:
        return dict(shared)
    raise StudyError(f"the study '{study.name}' has no orders yet", hint="start its search again")


def repeat(
    run: str | Path,
    seeds: int = 3,
    *,
    numbers: Sequence[int] | None = None,
    workers: int = 1,
    data: Any = None,
    storage: str | BaseStorage | None = None,
    device: str | None = None,
    per_gpu: int = 1,
    evaluator: Any = None,
    on_event: OnEvent | None = None,
    loggers: Sequence[str | Logger] = (),
) -> Study:
    """Train the networks of a run's front again with other seeds, and return the study, whose front has their means.

    A network that falls behind by its mean makes room for others, which are then trained again as well, until all of the
    front have their runs. Everything else is as in the search: its part of the training pictures, its epochs, its
    validation pictures; the test pictures are not touched. The same call again goes on where the last one ended, and
    several at once share the work.

    Args:
        run: the run's folder.
        seeds: runs that each network is to have, beside the one that the search chose it by.
        numbers: trials to train again in place of the front.
        workers: processes on this machine.
        data: where the pictures are, should they have moved.
        storage: where the study is when the folder does not say it.
        device: where to train; by default each worker takes a graphics card of its own, where there are any.
        per_gpu: workers that may share a graphics card, each with its part of the memory.
        evaluator: what stood in for training in the search.
        on_event: told of each event, as a plain dictionary.
        loggers: as for ``search``.

    Raises:
        StudyError: there is no such study or trial, or no trial is complete.
        DataError: these are other pictures.
    """
    check_loggers(loggers)
    study = Study.open(run, storage=storage)
    _check_workers(workers, storage, evaluator, study.space(), study.spec.metrics)
    where = _where(storage, study.folder)
    with storage_errors_named(url_of(where)), told(loggers, on_event, study.folder) as emit:
        again = Again(seeds, None if numbers is None else tuple(numbers))
        check_again(study, again)
        orders = Orders(workers=workers, near=study.near, device=device, per_gpu=per_gpu)
        with _starting(None, orders, where) as start:
            emit(_end_event(study, _repeat(study, again, study.data(data), evaluator, orders, start, where, emit)))
    return study


def _repeat(
    study: Study,
    again: Again,
    data: Data,
    evaluator: Any,
    orders: Orders,
    start: Start | None,
    where: Any,
    emit: OnEvent,
) -> str:
    def by_crew(work: Mapping[str, Any]) -> str:
        assert start is not None
        work = {**what_to_do(study, study.space(), data.source, evaluator), **work}
        return Crew(study, orders, start, REPEATS, emit, work, url_of(where)).run()

    return train_again(study, again, data, evaluator, orders, emit, None if start is None else by_crew)


@dataclass(frozen=True)
class _Plan:
    """Everything that a search was asked for, resolved."""

    out: Path
    space: SearchSpace
    spec: Spec
    data: Data
    split: Split


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _plan(
    given: Any,
    source: Any,
    *,
    out: str | Path | None,
    objectives: Sequence[str] | None,
    seed: int | None,
    limits: Sequence[str | Limit] | None,
    input_size: int | tuple[int, int] | None,
    fraction: float | None,
    training: Mapping[str, Any],
    stopping: bool | Schedule | None,
    deploy: Mapping[str, Any],
) -> _Plan:
    from archtuna.data import Data

    file = SearchSpace.read(given)
    settings = {name: file.settings.data.get(name, parameter.default) for name, parameter in DATA.items()}
    source = source if source is not None else settings["path"]
    if source is None:
        raise SpecError(
            "no pictures are named", path="data", hint="give a folder of class folders, an .npz file, or digits"
        )
    data = Data.open(source, strict=settings["strict"])
    split = data.split(val=settings["val"], test=settings["test"], seed=settings["split_seed"])
    size = _input_size(file, data, input_size)
    space = (file if size is None else file.with_input_size(size)).with_training(training)
    names = tuple(_first(objectives, file.settings.objectives, DEFAULT_OBJECTIVES))
    chosen, bounds = objectives_of(names), _limits(file.settings.limits or (), limits)
    share = DATA["fraction"].coerce(_first(fraction, settings["fraction"]))
    deployed = deploy_of({**file.settings.deploy, **deploy})
    unknown = measured_among([*names, *(limit.name for limit in bounds)], deployed)
    largest = {name: cost for name, cost in _largest(space).items() if name not in unknown}
    _check_default(space, len(data.classes))
    spec = Spec(
        space={"text": file.text, "key": file.key},
        data={
            "source": data.source, "fingerprint": data.fingerprint, "split": split.to_dict(),
            "classes": len(data.classes), "fit": settings["fit"], "validation": len(split.val),
        },
        training=dict(training),
        objectives=names,
        limits=tuple(f"{limit.name} <= {limit.bound:.15g}" for limit in bounds),
        fraction=share,
        input_size=size,
        seed=_first(seed, file.settings.search.get("seed"), 0),
        reference=reference_of(chosen, len(data.classes), bounds, largest),
        versions=versions(),
        stopping=asdict(_schedule(stopping, file.settings.search)),
        deploy={name: value for name, value in asdict(deployed).items() if value != DEPLOY[name].default},
        metrics=described(chosen),
    )  # fmt: skip
    folder = Path(out).expanduser() if out is not None else Path("runs") / Path(data.source).stem
    if folder.resolve().is_relative_to(data.source):
        raise StudyError(
            f"the run's folder {folder} lies among the pictures, and would be taken for a class of them",
            hint="choose another with --out",
        )
    return _Plan(folder, space, spec, data, split)


def _limits(of_file: Sequence[Limit], given: Sequence[str | Limit] | None) -> tuple[Limit, ...]:
    """Return the file's limits and those that were given, which replace the file's on the same costs; an empty list all."""
    if not given:
        return tuple(of_file) if given is None else ()
    ours = [limit if isinstance(limit, Limit) else limit_of(limit) for limit in given]
    replaced = {limit.name for limit in ours}
    return (*(limit for limit in of_file if limit.name not in replaced), *ours)


def _schedule(given: bool | Schedule | None, settings: Mapping[str, Any]) -> Schedule:
    """Return when trials are looked at: as given, as the file says, or the default."""
    if isinstance(given, Schedule):
        return given
    return schedule_of(settings if given is None else {**settings, "stopping": given})


def _input_size(space: SearchSpace, data: Data, given: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the input size that stands in for the file's, or None where the file's holds."""
    if given is not None:
        height, width = (given, given) if isinstance(given, int) else given
        return int(height), int(width)
    if space.has_input_size:
        # Workers read the file's text, so a size that the caller gave the space beside it has to be recorded.
        written = SearchSpace.read(space.text + "\n")
        same = written.has_input_size and written.input_sizes() == space.input_sizes()
        return None if same else space.input_sizes()[0]
    side = default_side(data.native_size)
    return side, side


def default_side(native: tuple[int, int]) -> int:
    """Return the side of the input for pictures of a (median) size: the longer side up to a multiple of 32, 32 to 224."""
    return min(224, max(32, -(-max(native) // 32) * 32))


def _check_default(space: SearchSpace, classes: int) -> None:
    """Check that the space is for these pictures before any network is trained; what a choice breaks is refused later.

    Raises:
        ShapeError: neither the network of first options nor any of some random ones builds and ends in one output per
            class; the error is that of the first.
    """
    from archtuna.model import check_output

    draws, problem = random.Random(0), None
    for attempt in range(CHECKED):
        try:
            check_output((space.random(draws) if attempt else space.default()).architecture, classes)
            return
        except ShapeError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _largest(space: SearchSpace) -> Mapping[str, float]:
    """Return for each cost the largest that was found.

    The network of most parameters is not that of most activations, so some at random are looked at, too.
    """
    from archtuna.costs import costs_of

    draws = random.Random(0)
    found = dict(costs_of(space.largest().architecture))
    for n in range(1 + LOOKED_AT):
        with contextlib.suppress(ArchtunaError):  # Rows that do not fit each other are refused later, too.
            candidate = space.random(draws) if n else space.default()
            for name, cost in costs_of(candidate.architecture).items():
                found[name] = max(cost, found.get(name, cost))
    return found


def _check_ray(address: str | None, where: Any, workers: int) -> None:
    if address is None:
        return
    if not isinstance(where, str) or where.startswith(("sqlite", "journal")):
        raise StudyError(
            "the machines of a Ray cluster share no database file", hint="name a server: --storage postgresql://…"
        )
    if workers < 1:
        raise StudyError("nobody would work on the Ray cluster", hint="--workers N says how many workers it is to have")


def _check_workers(
    workers: int, storage: Any, evaluator: Any, space: SearchSpace, metrics: Mapping[str, Mapping[str, Any]],
    least: int = 1, processes: bool = False,
) -> None:  # fmt: skip
    """Check that what workers need can reach them, should they be processes of their own."""
    if workers < least:
        raise StudyError(f"{workers} workers are too few", hint=f"give at least {least}")
    processes = processes or workers > 1
    if processes and storage is not None and not isinstance(storage, str):
        raise StudyError("several workers cannot share a storage object", hint="pass the storage as a URL")
    if processes and evaluator is not None and not isinstance(evaluator, str):
        raise StudyError("several workers cannot share an evaluator object", hint="pass it as 'module:name'")
    here = [f"block '{name}'" for name, module in space.origins.items() if module == "__main__"]
    here += [f"metric '{name}'" for name, told in metrics.items() if told["module"] == "__main__" and evaluator is None]
    if processes and here:
        raise StudyError(
            f"several workers cannot import the {here[0]} from a script", hint="put it into a module of its own"
        )


def _screen(name: str) -> str | None:
    """Return the score of a screen, None for none."""
    from archtuna.screen import SCORES

    if name != "none" and name not in SCORES:
        raise StudyError(f"unknown screen '{name}'", hint=nearest(name, SCORES) or f"known: none, {', '.join(SCORES)}")
    return None if name == "none" else name


def _queue_screened(study: Study, plan: _Plan, screen: str, trials: int | None) -> None:
    """Queue what a new study begins with: the file's own network, and the best-scored of a random pool."""
    from archtuna.screen import first_candidates

    keep = SCREENED if trials is None else max(0, min(SCREENED, trials - 1))
    begun = time.monotonic()
    # A limit on what has to be measured is looked at when it is.
    limits = [limit for limit in study.limits if limit.name not in study.spec.measured]
    found = first_candidates(plan.space, screen, keep, limits=limits, seed=plan.spec.seed or 0)
    log.info("%d networks to begin with were chosen by %s in %.0f s", len(found), screen, time.monotonic() - begun)
    codings = {choice.name: coding_of(choice) for choice in plan.space.choices}
    for candidate in found:
        parameters = {name: codings[name].parameter(value) for name, value in candidate.decisions.items()}
        study.optuna.enqueue_trial(parameters)
    study.optuna.set_user_attr(Attr.SCREEN, screen)


def _where(storage: str | BaseStorage | None, out: Path) -> str | BaseStorage | None:
    """Return the storage: as given, as the run's folder says, or as the environment does."""
    if storage is not None:
        return storage
    record = read_record(out)
    return default_url() if record is None else stored_url(record, out)


def _budget(trials: int | None, seconds: Any, settings: Mapping[str, Any]) -> tuple[int | None, float | None]:
    """Return how many trials and how many seconds there are: as given, as the file says, or the default."""
    if trials is None and seconds is None:
        trials, seconds = settings.get("trials"), settings.get("time")
    limit = seconds_of(seconds)
    if trials is None and limit is None:
        trials = DEFAULT_TRIALS
    if trials is not None and trials < 1:
        raise StudyError(f"{trials} trials are too few", hint="give at least 1")
    return trials, limit


def _orders(study: Study, trials: int | None, limit: float | None, **given: Any) -> Orders:
    deadline = None if limit is None else time.time() + limit
    started = len(study.optuna.get_trials(deepcopy=False))
    return Orders(trials, deadline, grace=max(10.0, 0.1 * (limit or 0.0)), started=started, **given)


def _emit_start(
    emit: OnEvent,
    study: Study,
    orders: Orders,
    space: SearchSpace,
    data: Data,
    split: Split,
    returned: Sequence[int],
    joined: bool = False,
) -> None:
    front = study.front()
    emit(
        {
            "event": "start",
            "name": study.name,
            "identity": study.identity,
            "joined": joined,
            "folder": str(study.folder),
            "storage": study.storage_url,
            "objectives": {o.name: o.direction for o in study.objectives},
            "limits": [str(limit) for limit in study.limits],
            "trials": orders.trials,
            "time": None if orders.deadline is None else orders.deadline - time.time(),
            "workers": orders.workers,
            "space_size": space.size,
            "pictures": {"train": len(split.train), "val": len(split.val), "classes": len(data.classes)},
            "counts": study.counts(),
            "front": [trial.number for trial in front],
            "values": {str(trial.number): dict(trial.values) for trial in front},
            "costs": {str(trial.number): dict(trial.costs) for trial in front},
            "hypervolume": study.hypervolume(),
            "growth": [round(volume, 6) for volume in study.growth()],
            "taken_back": list(returned),
        }
    )


def _end_event(study: Study, reason: str) -> Event:
    front = study.front()
    return {
        "event": "end",
        "reason": reason,
        "trials": study.counts(),
        "front": [trial.number for trial in front],
        "values": {str(trial.number): dict(trial.values) for trial in front},
        "hypervolume": study.hypervolume(),
        "disk": study.disk(),
        "measuring": study.measuring(),
    }
