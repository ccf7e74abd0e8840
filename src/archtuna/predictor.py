"""How long a network will take, from a few that were measured: a Gaussian process over the parts that networks share.

A network is a multiset of parts, and its time the sum of theirs. What a part takes is first what its numbers say, by a few
coefficients that cannot be negative, as in a roofline; a Gaussian process then learns by which share each part is slower or
faster. It shares what it learns between equal parts, and between parts of one kind by how near their numbers are; a term over
whole networks takes up what does not add. An observation is a sum of parts: a network, or a block on its own.

Sums of Gaussian processes: Duvenaud, Nickisch & Rasmussen (2011); the rational quadratic kernel, the marginal likelihood and
its gradient: Rasmussen & Williams (2006), equations 4.19, 5.8 and 5.9.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from archtuna.errors import LatencyError

FEWEST = 3
"""Networks below which nothing can be said."""

FOLDS = 10
MOST = 500
"""Parts on their own that are learnt from: those that take longest, because a fit takes the cube of their number."""

UNSEEN = 1.0
"""By which share of itself the time of a kind may be off that was never seen."""

ITERATIONS = 40
JITTER = 1e-8
EVEN = 0.1
"""The share of all time that is shared evenly among numbers."""

LENGTHS = (0.5, 2.0)
"""How far apart numbers may be for parts to be alike, on a natural logarithm's scale; each has an amplitude of its own."""

SPAN = 2.0
"""The same for whole networks."""

WHOLE = "network"
"""Key and kind of a part that every network has once: what it takes to be run at all."""

FLOOR, LEAST = 0.05, 0.02
"""No time counts as less than the first share of the median; no prediction is less than the second of the roofline's."""


@dataclass(frozen=True)
class Part:
    """A piece of a network that takes time.

    Attributes:
        key: parts of one key take the same time.
        kind: what it is; parts of a kind are compared by their numbers.
        numbers: what its time may be proportional to, such as multiply-accumulates; none negative, as many in every part.
    """

    key: Hashable
    kind: str = field(compare=False)
    numbers: tuple[float, ...] = field(compare=False)


Parts = Sequence[Part]
Measured = Sequence[tuple[Parts, float]]


# --- networks as rows of counts ----------------------------------------------------------------------


class _Counts:
    """Which parts each of some networks has, and how often.

    Attributes:
        parts: the distinct ones, sorted by kind.
        counts: networks × parts, sparse.
        numbers: parts × numbers.
        logs: the same on a logarithm's scale.
        kinds: of each part, as a number.
    """

    def __init__(self, networks: Iterable[Parts], kinds: dict[str, int]) -> None:
        from scipy.sparse import csr_matrix

        counters = [Counter(parts) for parts in networks]
        found = dict.fromkeys(part for counter in counters for part in counter)
        self.parts = sorted(found, key=lambda part: kinds.setdefault(part.kind, len(kinds)))
        place = {part: i for i, part in enumerate(self.parts)}
        rows = np.repeat(np.arange(len(counters)), [len(counter) for counter in counters])
        columns = [place[part] for counter in counters for part in counter]
        values = [n for counter in counters for n in counter.values()]
        self.counts = csr_matrix((np.array(values, float), (rows, columns)), (len(counters), len(place)))
        self.numbers = np.array([part.numbers for part in self.parts], float)
        self.logs = np.log1p(self.numbers)
        self.kinds = np.array([kinds[part.kind] for part in self.parts])


# --- what numbers say --------------------------------------------------------------------------------


def _coefficients(seen: _Counts, ms: np.ndarray, floor: float) -> np.ndarray:
    """Return milliseconds for one of each number, and for each part, whatever its kind; all above zero.

    Few on purpose: coefficients for each kind fit any ten networks exactly, and say nothing of the eleventh. Those that fit
    best are mixed with what each number would cost if time were shared evenly among numbers, so that nothing is free.
    """
    from scipy.optimize import nnls

    scale = np.maximum(ms, floor)
    columns = (seen.counts @ _design(seen)) / scale[:, None]
    used = columns.any(axis=0)
    even = np.divide(1.0, columns.mean(axis=0) * used.sum(), out=np.zeros(len(used)), where=used)
    return (1 - EVEN) * nnls(columns * even, ms / scale)[0] * even + EVEN * even


def _design(counted: _Counts) -> np.ndarray:
    """Return the numbers of each part, and a one: parts × coefficients."""
    return np.column_stack([counted.numbers, np.ones(len(counted.parts))])


# --- what is alike -----------------------------------------------------------------------------------


def _alike(one: np.ndarray, other: np.ndarray, length: float) -> np.ndarray:
    """Return the rational quadratic kernel with a shape of one: a mixture of all lengths, and no exponential to wait for."""
    from scipy.spatial.distance import cdist

    return 1.0 / (1.0 + cdist(one, other, "sqeuclidean") / (2.0 * length**2))


def _features(counted: _Counts, ms: np.ndarray) -> np.ndarray:
    """Return what whole networks are compared by, on a logarithm's scale: time by the roofline, numbers, how many parts."""
    totals = np.column_stack([counted.counts @ counted.numbers, counted.counts.sum(axis=1)])
    return np.column_stack([np.log(ms), np.log1p(totals)])


# Amplitudes as standard deviations, relative to what the roofline says: of everything; of kinds; of a kind's coefficients; of
# parts of a kind by their numbers, at each length; of single parts; of whole networks by their numbers; of a
# network's measurement; of a part's.
_PRIOR = np.log(np.array([0.3, 0.7, 0.5, *[0.3] * len(LENGTHS), 0.1, 0.1, 0.05, 0.2]) ** 2)
_SPREAD = np.full(len(_PRIOR), 2.0)
_BOUNDS = [(-16.0, 3.0)] * (len(_PRIOR) - 2) + [(-11.5, 0.0)] * 2


def _loss(p: np.ndarray, kernels: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the negative log posterior of the amplitudes, and its gradient."""
    from scipy.linalg import cho_solve

    amplitudes, off = np.exp(p), (p - _PRIOR) / _SPREAD
    try:
        factor = np.linalg.cholesky(np.tensordot(amplitudes, kernels, 1) + JITTER * np.eye(len(y)))
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(p)
    inverse = cho_solve((factor, True), np.eye(len(y)))
    weights = inverse @ y
    loss = 0.5 * y @ weights + np.log(np.diag(factor)).sum() + 0.5 * off @ off
    outer = 0.5 * (inverse - np.outer(weights, weights))
    gradient = amplitudes * (kernels.reshape(len(kernels), -1) @ outer.ravel())
    return float(loss), gradient + off / _SPREAD


# --- the predictor -----------------------------------------------------------------------------------


class Predictor:
    """A prediction of milliseconds that knows how far off it may be; ``fit`` makes one."""

    def __init__(
        self, networks: Sequence[Parts], ms: np.ndarray, parts: Measured, amplitudes: np.ndarray | None
    ) -> None:
        """Learn, with amplitudes that are known or are to be found."""
        from scipy.linalg import cho_solve

        self._networks, self._ms, self._measured = list(networks), ms, list(parts)
        width = next(len(part.numbers) for network in networks for part in network)
        whole = [Part(WHOLE, WHOLE, (0.0,) * width)]
        self._whole: Parts = whole
        self._kinds: dict[str, int] = {}
        every = [[*network, *whole] for network in networks] + [list(of) for of, _ in parts]
        times = np.concatenate([ms, [one for _, one in parts]])
        self._seen = _Counts(every, self._kinds)
        self._known = len(self._kinds)
        self._place = {part: i for i, part in enumerate(self._seen.parts)}
        floor = FLOOR * np.median(ms)
        self._roofline = _coefficients(self._seen, times, floor)
        self._shares, scale = self._shared(self._seen, floor)
        self._floor, self._features = floor, _features(self._seen, scale)[: len(ms)]
        y = times / scale - _sums(self._shares)
        kernels = self._kernels(y)
        self.amplitudes = _tuned(kernels, y) if amplitudes is None else amplitudes
        kernel = np.tensordot(np.exp(self.amplitudes), kernels, 1) + JITTER * np.eye(len(y))
        self._factor = np.linalg.cholesky(kernel)
        self._weights = cho_solve((self._factor, True), y)
        self._terms: dict[Part, tuple[float, ...]] = {}

    @classmethod
    def fit(cls, networks: Sequence[Parts], ms: Sequence[float], *, parts: Measured = ()) -> Predictor:
        """Learn from measured networks.

        Args:
            networks: the parts of each.
            ms: what each took, in milliseconds.
            parts: what was measured on its own, a block of a network for instance: its parts and its milliseconds.

        Raises:
            LatencyError: fewer than three networks, times that are none or not theirs, or parts of differently many numbers.
        """
        times = _checked(networks, ms, parts)
        return cls(networks, times, sorted(parts, key=lambda one: -one[1])[:MOST], None)

    def predict(self, networks: Sequence[Parts]) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation, in milliseconds, of what measurements of networks would say."""
        from scipy.linalg import solve_triangular

        counted = _Counts([[*network, *self._whole] for network in networks], dict(self._kinds))
        shares, scale = self._shared(counted, self._floor)
        amplitudes = np.exp(self.amplitudes)
        features = _alike(_features(counted, scale), self._features, SPAN)
        cross = shares @ self._links(counted)
        cross[:, : len(self._features)] += amplitudes[-3] * features
        explained = solve_triangular(self._factor, cross.T, lower=True)
        variance = self._prior(counted, shares) + amplitudes[-3] + amplitudes[-2] - (explained**2).sum(axis=0)
        straight = _sums(shares)
        mean = np.maximum(straight + cross @ self._weights, LEAST * straight)
        return scale * mean, scale * np.sqrt(np.maximum(variance, 1e-8))

    def expect(self, network: Parts) -> float:
        """Return the mean that ``predict`` gives for one network, without its deviation, and at once: for every candidate.

        It is a sum over parts, of which each is looked at once.
        """
        counts = Counter([*network, *self._whole])
        self._look_at([part for part in counts if part not in self._terms])
        terms = np.array([self._terms[part] for part in counts])
        n = np.fromiter(counts.values(), float, len(counts))
        total, shift = n @ terms[:, 0], n @ (terms[:, 0] * terms[:, 1])
        scale = max(total, self._floor)
        features = np.concatenate([[np.log(scale)], np.log1p(np.append(n @ terms[:, 2:], n.sum()))])
        alike = _alike(features[None], self._features, SPAN)[0]
        whole = np.exp(self.amplitudes[-3]) * (alike @ self._weights[: len(alike)])
        return float(scale * max((total + shift) / scale + whole, LEAST * total / scale))

    def _look_at(self, parts: Sequence[Part]) -> None:
        """Note of each part its time by the roofline, by which share of that it is off, and its numbers."""
        if not parts:
            return
        counted = _Counts([parts], dict(self._kinds))
        times, shares = _design(counted) @ self._roofline, self._links(counted) @ self._weights
        for part, time, share, numbers in zip(counted.parts, times, shares, counted.numbers, strict=True):
            self._terms[part] = (time, share, *numbers)

    def errors(self) -> np.ndarray:
        """Return by how much the prediction of each measured network is off, as a share of what it took.

        Each is predicted from nine other tenths of the networks, by their own roofline, with the amplitudes of all. Of what
        was measured on its own only that counts which is in these: the rest may have been measured in the network itself.
        """
        n = len(self._ms)
        off, fold = np.empty(n), np.arange(n) % min(n, FOLDS)
        for one in range(fold.max() + 1):
            kept, left = np.flatnonzero(fold != one), np.flatnonzero(fold == one)
            networks = [self._networks[i] for i in kept]
            theirs = set().union(*networks)
            measured = [one for one in self._measured if theirs.issuperset(one[0])]
            others = Predictor(networks, self._ms[kept], measured, self.amplitudes)
            off[left] = (
                others.predict([self._networks[i] for i in left])[0] / np.maximum(self._ms[left], self._floor) - 1.0
            )
        return off

    def error(self, share: float = 0.9) -> float:
        """Return the relative error that a share of networks stays within, by cross-validation on the measured ones."""
        return float(np.quantile(np.abs(self.errors()), share))

    def _shared(self, counted: _Counts, floor: float) -> tuple[Any, np.ndarray]:
        """Return the share that each part has in each network's time by the roofline, and that time."""
        from scipy.sparse import diags

        parts = _design(counted) @ self._roofline
        scale = np.maximum(counted.counts @ parts, floor)
        return (diags(1 / scale) @ counted.counts @ diags(parts)).tocsc(), scale

    def _kernels(self, y: np.ndarray) -> np.ndarray:
        """Return the covariance of what was measured, by each amplitude: amplitudes × measurements × measurements."""
        n, kernels = len(self._features), [self._shares @ one for one in self._cross(self._seen)]
        whole = np.zeros((len(y), len(y)))
        whole[:n, :n] = _alike(self._features, self._features, SPAN)
        is_network = np.arange(len(y)) < n
        return np.array([*kernels, whole, np.diag(1.0 * is_network), np.diag(1.0 * ~is_network)])

    def _cross(self, counted: _Counts) -> np.ndarray:
        """Return the covariance of parts with what was measured: amplitudes (of parts) × parts × measurements."""
        found = np.zeros((4 + len(LENGTHS), len(counted.parts), self._shares.shape[0]))
        found[0] = _sums(self._shares)
        seen_mix, mix = self._mix(self._seen), self._mix(counted)
        for kind in np.unique(counted.kinds):
            mine, theirs = counted.kinds == kind, np.flatnonzero(self._seen.kinds == kind)
            if len(theirs):
                shares = self._shares[:, theirs]
                found[1, mine] = _sums(shares)
                found[2, mine] = mix[mine] @ (shares @ seen_mix[theirs]).T
                for i, length in enumerate(LENGTHS):
                    found[3 + i, mine] = (shares @ _alike(self._seen.logs[theirs], counted.logs[mine], length)).T
        places = [(i, self._place[part]) for i, part in enumerate(counted.parts) if part in self._place]
        if places:
            here, there = np.array(places).T
            found[-1, here] = self._shares[:, there].toarray().T
        return found

    def _mix(self, counted: _Counts) -> np.ndarray:
        """Return the share that each number has in each part's time by the roofline: parts × numbers and one."""
        terms = _design(counted) * self._roofline
        return terms / np.sqrt((terms**2).sum(axis=1, keepdims=True))

    def _links(self, counted: _Counts) -> np.ndarray:
        """Return the covariance of parts with what was measured: parts × measurements."""
        return np.tensordot(np.exp(self.amplitudes[:-3]), self._cross(counted), 1)

    def _prior(self, counted: _Counts, shares: Any) -> np.ndarray:
        """Return the variance of each network's sum of parts before anything was measured."""
        a = np.exp(self.amplitudes)
        entries = shares.tocoo()
        order = np.lexsort((counted.kinds[entries.col], entries.row))
        row, part, share = entries.row[order], entries.col[order], entries.data[order]
        one, other = _pairs(row * (counted.kinds.max() + 1) + counted.kinds[part])
        apart = ((counted.logs[part[one]] - counted.logs[part[other]]) ** 2).sum(axis=1)
        known = counted.kinds[part[one]] < self._known
        mix = self._mix(counted)
        alike = np.where(known, a[1], UNSEEN**2) + a[2] * (mix[part[one]] * mix[part[other]]).sum(axis=1)
        alike += sum(a[3 + i] / (1 + apart / (2 * length**2)) for i, length in enumerate(LENGTHS))
        alike += a[3 + len(LENGTHS)] * (one == other)
        within = np.bincount(row[one], share[one] * share[other] * alike, shares.shape[0])
        return a[0] * _sums(shares) ** 2 + within


def _sums(shares: Any) -> np.ndarray:
    """Return the sum of each row of a sparse matrix."""
    return np.asarray(shares.sum(axis=1)).ravel()


def _pairs(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs of places whose groups are equal; groups are sorted."""
    _, first, place, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    many = sizes[place]
    one = np.repeat(np.arange(len(groups)), many)
    within = np.arange(len(one)) - np.repeat(np.cumsum(many) - many, many)
    return one, np.repeat(first[place], many) + within


def _tuned(kernels: np.ndarray, y: np.ndarray) -> np.ndarray:
    from scipy.optimize import minimize

    found = minimize(_loss, _PRIOR, (kernels, y), "L-BFGS-B", True, bounds=_BOUNDS, options={"maxiter": ITERATIONS})
    return np.asarray(found.x)


def _checked(networks: Sequence[Parts], ms: Sequence[float], parts: Measured) -> np.ndarray:
    """Return the times of networks as numbers, when something can be learnt from them."""
    times = np.array([*ms, *(one for _, one in parts)], float)
    if len(ms) != len(networks):
        raise LatencyError(f"{len(networks)} networks and {len(ms)} times do not belong together")
    if len(networks) < FEWEST:
        raise LatencyError(
            f"of {len(networks)} measured networks nothing follows for others", hint=f"measure {FEWEST} or more"
        )
    strange = np.flatnonzero(~np.isfinite(times) | (times < 0))
    if len(strange) or not np.median(times[: len(ms)]) > 0:
        raise LatencyError(f"{times[strange[0]] if len(strange) else 0.0} ms is no time that a network takes")
    widths = {len(part.numbers) for of in (*networks, *(one for one, _ in parts)) for part in of}
    if len(widths) != 1:
        raise LatencyError(f"parts have {' or '.join(map(str, sorted(widths))) or 'no'} numbers: all need as many")
    return times[: len(ms)]
