"""Networks of timm as blocks, with weights that somebody trained: the extra ``timm``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from archtuna.errors import ArchtunaError, Misfit, MissingExtraError, nearest
from archtuna.registry import block

_skipped: ContextVar[bool] = ContextVar("pretrained weights are skipped", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """Build networks without their pretrained weights: others are about to take their place."""
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


@block(
    repeat="once",
    unexportable=("module",),  # timm's code is not ours to write into a file.
    explain={
        "model": "name of a network of timm: resnet18, mobilenetv3_large_100",
        "use_feature_maps": "gives all of its maps, for PreTrainedFeatureMap rows to choose from",
        "features_only": "leaves out its classifier; the last map is given",
        "pretrained": "begins with weights that timm downloads",
    },
)
class PreTrained(nn.Module):
    """A network of timm, its feature maps or the whole of it."""

    def __init__(
        self,
        in_channels: int,
        model: str,
        use_feature_maps: bool = False,
        features_only: bool = True,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if use_feature_maps and not features_only:
            raise ValueError("use_feature_maps needs features_only: a classifier gives one vector")
        self.last = features_only and not use_feature_maps
        self.network = _create(model, in_channels, features_only, pretrained)

    def forward(self, x: Tensor) -> Any:
        found = self.network(x)
        return found[-1] if self.last else found


def _create(model: str, in_channels: int, features_only: bool, pretrained: bool) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        # timm imports torchvision, which may be missing or not fit torch: its own words say which.
        if error.name in (None, "timm"):
            raise MissingExtraError("timm", "timm") from error
        raise ArchtunaError(
            f"timm cannot be imported: {error}", hint="install a torchvision that fits torch"
        ) from error
    except (RuntimeError, AttributeError) as error:
        raise ArchtunaError(
            f"timm cannot be imported: {error}", hint="install a torchvision that fits torch"
        ) from error
    if not timm.is_model(model):
        hint = nearest(model, timm.list_models()) or "python -c 'import timm; print(timm.list_models())'"
        raise Misfit(f"timm has no network '{model}'", hint)
    # Shapes and costs are asked for on the meta device, where weights have no values.
    wanted = pretrained and not _skipped.get() and torch.get_default_device().type != "meta"
    try:
        return timm.create_model(model, pretrained=wanted, features_only=features_only, in_chans=in_channels)
    except (OSError, ConnectionError) as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArchtunaError(
            f"the weights of '{model}' cannot be loaded: {words}", hint="pretrained: false begins without them"
        ) from error


@block(repeat="once", explain={"index": "which of the maps, -1 for the last"})
class PreTrainedFeatureMap(nn.Module):
    """One of the maps of a PreTrained row with use_feature_maps."""

    def __init__(self, index: int = -1) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: Any) -> Tensor:
        if not isinstance(x, list | tuple):
            raise Misfit("takes from a PreTrained row with use_feature_maps", "name that row: {from: …}")
        if not -len(x) <= self.index < len(x):
            raise Misfit(f"there is no map {self.index} among {len(x)}", f"0 to {len(x) - 1}, or -1 for the last")
        return x[self.index]
