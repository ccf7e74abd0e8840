"""Scores of networks before training, by which the first candidates of a search can be chosen: an optional cheap screen.

Whether a score tells more than the plain count of multiply-accumulates depends on the space, so that count is among them; a
screen is off unless it is asked for.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from archtuna.architecture import Architecture
from archtuna.costs import costs_of
from archtuna.errors import ShapeError
from archtuna.model import build
from archtuna.objective import Limit
from archtuna.space import Candidate, SearchSpace

SCORES = ("synflow", "naswot", "macs")

POOL = 100
"""Networks that are scored; fewer where a space does not hold as many that keep the limits."""

PICTURES = 32
"""In the batch that ``naswot`` looks at."""

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
_GATES = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish)


def synflow(model: nn.Module, x: Tensor) -> float:
    """Return the logarithm of a network's synaptic flow (Tanaka et al. 2020, arXiv:2006.05467, as a score of networks).

    The flow is the sum over all weights of ``|w| · ∂R/∂|w|``, where R is the sum of the outputs of the network with absolute
    weights for an input of ones. As in Abdelfattah et al. 2021 (arXiv:2101.08134) norms let pass what they take; weights of
    one dimension do not count.

    Args:
        model: a network; neither its weights nor its mode change.
        x: pictures, of which only the shape counts.

    Returns:
        A natural logarithm; minus infinity where nothing flows or the flow is beyond a number's range.
    """
    weights = {name: p.detach().double().abs().requires_grad_(p.dim() > 1) for name, p in model.named_parameters()}
    ones = torch.ones((1, *x.shape[1:]), dtype=torch.float64, device=x.device)
    with _mode(model, training=()), _hooked(model, _NORMS, lambda module, given, output: given[0]):
        total = functional_call(model, {**weights, **_buffers(model, torch.float64)}, (ones,)).sum()
    counted = [w for w in weights.values() if w.requires_grad]
    slopes = torch.autograd.grad(total, counted, allow_unused=True, materialize_grads=True)
    flow = float(sum((w.detach() * slope).sum() for w, slope in zip(counted, slopes, strict=True)))
    return math.log(flow) if 0.0 < flow < math.inf else -math.inf


@torch.no_grad()
def naswot(model: nn.Module, x: Tensor) -> float:
    """Return how well a network tells pictures apart before training (NASWOT, Mellor et al. 2021, arXiv:2006.04647).

    Each picture is coded by which of the activations' inputs are above zero. The score is the logarithm of the determinant of
    the matrix that counts, for two pictures each, in how many places their codes agree. Activations that are like ReLU count
    as it; those that a block calls as a function are not seen. Norms use the batch's statistics, nothing is dropped.

    Args:
        model: a network; neither its weights and statistics nor its mode change.
        x: a batch of pictures.

    Returns:
        Minus infinity where two pictures have one code.
    """
    agreeing = torch.zeros((len(x), len(x)), dtype=torch.float64, device=x.device)

    def count(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        code = (given[0].flatten(1) > 0).float()
        agreeing.add_(code @ code.T + (1 - code) @ (1 - code).T)

    with _mode(model, training=_NORMS), _hooked(model, _GATES, count):
        functional_call(model, _buffers(model), (x,))
    sign, logarithm = torch.linalg.slogdet(agreeing)
    return float(logarithm) if sign > 0 else -math.inf


def _buffers(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return copies of a model's buffers, which a forward pass may change."""
    return {name: b.to(dtype if b.is_floating_point() else None, copy=True) for name, b in model.named_buffers()}


@contextmanager
def _mode(model: nn.Module, training: tuple[type[nn.Module], ...]) -> Iterator[None]:
    """Put a model's parts of these classes into training mode and the others into evaluation mode, for a while."""
    modes = {part: part.training for part in model.modules()}
    for part in modes:
        part.training = isinstance(part, training)
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def _hooked(
    model: nn.Module, classes: tuple[type[nn.Module], ...], hook: Callable[..., Tensor | None]
) -> Iterator[None]:
    with ExitStack() as stack:
        for part in model.modules():
            if isinstance(part, classes):
                stack.enter_context(part.register_forward_hook(hook))
        yield


def score_of(architecture: Architecture, score: str, *, seed: int = 0) -> float:
    """Return a network's score under fresh random weights; pictures are standard normal noise.

    Args:
        architecture: what to score.
        score: one of ``SCORES``.
        seed: of weights and noise.

    Raises:
        ShapeError: it does not build.
    """
    if score == "macs":
        return costs_of(architecture)["macs"]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build(architecture, pretrained=False)
        x = torch.randn(PICTURES, architecture.input_channels, *architecture.input_size)
    return {"synflow": synflow, "naswot": naswot}[score](model, x)


Item = TypeVar("Item")


def screened(
    candidates: Sequence[Item], score: Callable[[Item], float], keep: int, cost: Callable[[Item], float]
) -> list[Item]:
    """Return the best-scored of each cost band: ``keep`` bands with equally many candidates, the cheapest first.

    Without bands a score that grows with the cost would choose the largest alone, and a front has other ends too.

    Args:
        candidates: to choose from.
        score: larger is better; of equal ones the cheapest is taken.
        keep: how many to return; all where there are no more.
        cost: by which bands are made.
    """
    ordered = sorted(candidates, key=cost)
    bands = min(keep, len(ordered))
    edges = [len(ordered) * band // max(bands, 1) for band in range(bands + 1)]
    return [max(ordered[low:high], key=score) for low, high in pairwise(edges)]


def first_candidates(
    space: SearchSpace, score: str, keep: int, *, limits: Sequence[Limit] = (), seed: int = 0
) -> list[Candidate]:
    """Return candidates for a search to begin with: the file's own, and the best-scored of each band of parameters in a pool.

    Args:
        space: what is searched.
        score: one of ``SCORES``.
        keep: how many beside the file's own.
        limits: what each of them keeps, of costs that are known without measuring.
        seed: of the pool and of the weights that are scored.
    """
    own = _admitted(space.default, limits)
    drawn = _pool(space, max(POOL, keep), limits, random.Random(seed), () if own is None else (own,))
    scores = {id(c): score_of(c.architecture, score, seed=seed) for c in drawn}
    chosen = screened(drawn, lambda c: scores[id(c)], keep, lambda c: costs_of(c.architecture)["params"])
    return chosen if own is None else [own, *chosen]


def _pool(
    space: SearchSpace, size: int, limits: Sequence[Limit], rng: random.Random, others: Sequence[Candidate]
) -> list[Candidate]:
    """Return random candidates, of each network one, none of these others."""
    found = {candidate.architecture: candidate for candidate in others}
    for _ in range(10 * size):
        candidate = _admitted(lambda: space.random(rng), limits)
        if candidate is not None:
            found.setdefault(candidate.architecture, candidate)
        if len(found) == size + len(others):
            break
    return list(found.values())[len(others) :]


def _admitted(draw: Callable[[], Candidate], limits: Sequence[Limit]) -> Candidate | None:
    """Return what is drawn if it builds and keeps the limits."""
    try:
        candidate = draw()
    except ShapeError:
        return None
    costs = costs_of(candidate.architecture)
    return candidate if all(limit.violation(costs) <= 0 for limit in limits) else None
