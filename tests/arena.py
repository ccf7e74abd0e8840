"""An independent count of the memory of activations: the traced graph, run node by node on real tensors."""

import warnings
from unittest.mock import patch

import torch
from torch.fx import Interpreter
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from archtuna.model import build, for_inference

# Written down anew, by the names of torch's operators, so that what is checked does not check itself.
IN_PLACE = frozenset((
    "relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "silu", "gelu", "tanh", "elu", "leaky_relu", "mish",
    "add", "mul", "sub", "div", "batch_norm", "clone", "contiguous",
))  # fmt: skip


class Arena(Interpreter):
    """Runs a graph, gives back what was read for the last time, and counts what lies in memory while each node runs."""

    def __init__(self, module):
        super().__init__(module)
        self.weights = {place(x) for x in [*module.parameters(), *module.buffers()]}
        self.bare = {}
        self.peak = 0

    def run_node(self, node):
        value = super().run_node(node)
        name = getattr(node.target, "__name__", "").partition(".")[0].rstrip("_")
        if name in IN_PLACE:
            value = self._written_over(node, value)
        if name == "pad" and all("conv" in str(user.target) for user in node.users):
            # The convolution takes the map without zeros around it.
            self.bare[place(value)] = node, self.env[node.args[0]]
        self.env[node] = value
        here = {place(x): x.untyped_storage().nbytes() for one in self.env.values() for x in self.counted(one)}
        self.peak = max(self.peak, sum(here.values()))
        return value

    def counted(self, value):
        return [x for x in map(self._without_zeros, tensors(value)) if place(x) not in self.weights]

    def _without_zeros(self, x):
        padded, bare = self.bare.get(place(x), (None, x))
        # Where that is gone, another tensor may lie in its place.
        return bare if padded in self.env else x

    def _written_over(self, node, value):
        kept = [self.env[n] for n in self.env if n not in self.user_to_last_uses.get(node, ())]
        kept = {place(x) for one in kept for x in self.counted(one)} | self.weights
        for x in self.counted([self.env.get(n) for n in node.all_input_nodes]):
            alike = (
                x.shape == value.shape and x.stride() == value.stride() and x.untyped_storage().nbytes() == value.nbytes
            )
            if alike and place(x) not in kept:
                return x.copy_(value)
        return value


def place(x):
    return x.untyped_storage().data_ptr()


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [x for one in value for x in tensors(one)] if isinstance(value, list | tuple) else []


def attention(q, k, v):
    return (q @ k.transpose(-2, -1)).softmax(-1) @ v


def counted_peak(architecture):
    """Bytes of the tensors that were there at once while the network took one picture, weights left out."""
    model = for_inference(build(architecture).eval())
    picture = torch.randn(1, architecture.input_channels, *architecture.input_size)
    plain = patch.object(functional, "scaled_dot_product_attention", attention)
    with warnings.catch_warnings(action="ignore"), torch.no_grad(), plain:
        wanted = model(picture)
        # The graph of torch.export holds the same operators, and takes three times as long to come about.
        arena = Arena(make_fx(model, pre_dispatch=True)(picture.clone()))
        assert torch.allclose(arena.run(picture), wanted, atol=1e-5)
    return arena.peak
