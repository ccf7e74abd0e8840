import copy
import math
import random

import pytest
import torch
from torch import nn

from archtuna.costs import costs_of
from archtuna.model import build
from archtuna.objective import limit_of
from archtuna.screen import SCORES, first_candidates, naswot, score_of, screened, synflow
from archtuna.space import SearchSpace
from spaces import ALL

SMALL = SearchSpace.read(ALL["small"])
GRAPH = SearchSpace.read(ALL["graph"])


# --- synflow --------------------------------------------------------------------------------------


def linear(rows):
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


def test_synflow_by_hand():
    # |W2|·|W1|·1 = (1·(1+2) + 2·(3+0)) = 9 flows through each of the two layers.
    model = nn.Sequential(linear([[1.0, -2.0], [-3.0, 0.0]]), nn.ReLU(), linear([[-1.0, 2.0]]))
    assert synflow(model, torch.zeros(5, 2)) == pytest.approx(math.log(2 * 9.0))


def test_synflow_looks_past_norms_and_counts_no_biases():
    plain = nn.Sequential(linear([[1.0, -2.0], [-3.0, 0.0]]), nn.ReLU(), linear([[-1.0, 2.0]]))
    norm = nn.BatchNorm1d(2)
    norm.weight.data.fill_(7.0)
    normed = nn.Sequential(plain[0], norm, plain[1], plain[2])
    assert synflow(normed, torch.zeros(5, 2)) == synflow(plain, torch.zeros(5, 2))
    biased = nn.Linear(2, 1)
    biased.weight.data, biased.bias.data = torch.tensor([[1.0, -2.0]]), torch.tensor([-10.0])
    assert synflow(biased, torch.zeros(5, 2)) == pytest.approx(math.log(3.0))


def test_where_nothing_flows_or_too_much_there_is_no_score():
    assert synflow(linear([[0.0, 0.0]]), torch.zeros(1, 2)) == -math.inf
    flood = nn.Sequential(*(linear([[1e30]]) for _ in range(12)))
    assert synflow(flood, torch.zeros(1, 1)) == -math.inf


def published_synflow(model, shape):
    """The steps of Tanaka et al.'s own code, on a copy without norms: linearise, forward ones, backward, weight times slope."""
    model = copy.deepcopy(model).double().eval()
    for parent in list(model.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    for tensor in model.state_dict().values():
        tensor.abs_()
    model(torch.ones(1, *shape, dtype=torch.float64)).sum().backward()
    layers = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    return math.log(sum(float((part.weight * part.weight.grad).abs().sum().detach()) for part in layers))


@pytest.mark.parametrize("space", [SMALL, GRAPH], ids=["small", "graph"])
def test_synflow_is_that_of_the_published_steps(space):
    rng = random.Random(0)
    for _ in range(5):
        architecture = space.random(rng).architecture
        model = build(architecture)
        assert synflow(model, torch.zeros(1, 3, 16, 16)) == pytest.approx(published_synflow(model, (3, 16, 16)))


# --- naswot ---------------------------------------------------------------------------------------


def test_naswot_by_hand():
    # Codes 10, 11 and 00: the first agrees with the others in one place each, these two in none; det [[2,1,1],[1,2,0],[1,0,2]] = 4.
    model = nn.Sequential(linear([[1.0, 0.0], [0.0, 1.0]]), nn.ReLU())
    x = torch.tensor([[1.0, -1.0], [2.0, 3.0], [-1.0, -1.0]])
    assert naswot(model, x) == pytest.approx(math.log(4.0))


def test_pictures_of_one_code_have_no_score():
    model = nn.Sequential(linear([[1.0, 0.0], [0.0, 1.0]]), nn.ReLU())
    assert naswot(model, torch.tensor([[1.0, 1.0], [2.0, 2.0]])) == -math.inf
    assert naswot(nn.Linear(2, 2), torch.randn(3, 2)) == -math.inf


def published_naswot(model, x):
    """The steps of Mellor et al.'s own code: hooks on every ReLU that add to one matrix, in training mode."""
    model, matrix = copy.deepcopy(model).train(), torch.zeros(len(x), len(x), dtype=torch.float64)

    def hook(module, given, output):
        code = (given[0].reshape(len(x), -1) > 0).double()
        matrix.add_(code @ code.t() + (1.0 - code) @ (1.0 - code.t()))

    for part in model.modules():
        if "ReLU" in type(part).__name__:
            part.register_forward_hook(hook)
    with torch.no_grad():
        model(x)
    return float(torch.slogdet(matrix)[1])


def test_naswot_is_that_of_the_published_steps():
    rng, x = random.Random(1), torch.randn(8, 3, 16, 16)
    for _ in range(5):
        model = build(GRAPH.random(rng).architecture)
        assert naswot(model, x) == pytest.approx(published_naswot(model, x))


@pytest.mark.parametrize("score", [synflow, naswot])
def test_scoring_leaves_a_network_as_it_is(score):
    model = build(SearchSpace.read(ALL["everything"]).default().architecture)
    model.train()
    model.layers[0].eval()
    before = copy.deepcopy(model.state_dict())
    score(model, torch.randn(4, 3, 16, 16))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert model.layers[1].training
    assert not model.layers[0].training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(part._forward_hooks for part in model.modules())


# --- choosing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", SCORES)
def test_a_networks_score_is_the_same_for_the_same_seed(score):
    architecture = SMALL.default().architecture
    state = torch.random.get_rng_state()
    assert score_of(architecture, score, seed=3) == score_of(architecture, score, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    if score != "macs":
        assert score_of(architecture, score, seed=3) != score_of(architecture, score, seed=4)
    else:
        assert score_of(architecture, score) == costs_of(architecture)["macs"]


def test_the_best_of_each_band_is_kept():
    pool = [(cost, score) for cost, score in zip(range(10), [0, 3, 1, 1, 5, 2, 2, 9, 8, 9], strict=True)]
    random.Random(0).shuffle(pool)
    kept = screened(pool, lambda p: p[1], 3, lambda p: p[0])
    assert kept == [(1, 3), (4, 5), (7, 9)]
    assert screened(pool, lambda p: p[1], 1, lambda p: p[0]) == [(7, 9)]
    assert screened(pool, lambda p: p[1], 99, lambda p: p[0]) == sorted(pool)
    assert screened([], lambda p: p[1], 3, lambda p: p[0]) == []
    assert screened(pool, lambda p: p[1], 0, lambda p: p[0]) == []


def test_a_search_begins_with_its_own_network_and_the_best_of_each_size():
    limit = limit_of("params <= 4k")
    found = first_candidates(GRAPH, "macs", 5, limits=[limit], seed=1)
    assert found[0].architecture == GRAPH.default().architecture
    params = [costs_of(c.architecture)["params"] for c in found]
    assert params[1:] == sorted(params[1:])
    assert max(params) <= 4_000
    assert len({c.architecture for c in found}) == len(found) == 6
    assert [c.decisions for c in first_candidates(GRAPH, "macs", 5, limits=[limit], seed=1)] == [
        c.decisions for c in found
    ]


def test_a_space_of_few_networks_gives_what_it_has():
    space = SearchSpace.read(ALL["small"].replace("1..2", "1").replace("1|3", "3").replace("ReLU|SiLU", "ReLU"))
    assert len(first_candidates(space, "macs", 10)) == space.size == 2
    tiny = first_candidates(space, "macs", 10, limits=[limit_of("params <= 1")])
    assert tiny == []
