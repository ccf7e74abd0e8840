"""What stands at the end of a network: flattening, linear layers, dropout; and Identity, which does nothing."""

from __future__ import annotations

from torch import Tensor, nn

from archtuna.blocks.convolution import activation_of
from archtuna.errors import Misfit
from archtuna.registry import block
from archtuna.signature import Activation, Count, Fraction


@block(repeat="once")
class Flatten(nn.Flatten):
    """Joins channels and map into one vector a picture."""

    def __init__(self) -> None:
        super().__init__()


@block(repeat="once")
class Linear(nn.Module):
    """A fully connected layer with bias, and an activation where one is named."""

    def __init__(self, in_channels: int, features: Count, activation: Activation | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, features)
        self.activation = activation_of(activation)

    def forward(self, x: Tensor) -> Tensor:
        # torch would take the last axis of a map for its features, which is a column of pixels.
        if x.dim() != 2:
            raise Misfit("takes a vector", "put GlobalAvgPool and Flatten before it")
        return self.activation(self.linear(x))


@block(repeat="each", paper="Srivastava et al. 2014", explain={"p": "share of values set to zero while training"})
class Dropout(nn.Dropout):
    """Sets a share ``p`` of the values to zero while training."""

    def __init__(self, p: Fraction = 0.5) -> None:
        super().__init__(p)


@block(repeat="each")
class Identity(nn.Identity):
    """Passes its input on."""

    def __init__(self) -> None:
        super().__init__()
