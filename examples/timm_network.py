"""A network of timm, searched through a function that makes it: python examples/timm_network.py

Needs the extra: pip install 'archtuna[timm]'. Pretrained weights are left out here, so that nothing is downloaded.
"""

from torch import nn

import archtuna as at


@at.block(in_channels="in_chans")
def timm_resnet(
    in_chans: int, num_classes: int, block_layers: tuple[int, ...], width: int, stem: str = "deep"
) -> nn.Module:
    """A ResNet of timm with stages of one's choice."""
    from timm.models.resnet import BasicBlock, ResNet

    channels = tuple(width * 2**i for i in range(len(block_layers)))
    return ResNet(BasicBlock, block_layers, num_classes, in_chans, stem_type=stem, stem_width=width, channels=channels)


SPACE = """
input_channel: 1
input_size: 32
backbone:
  - [1, timm_resnet, {num_classes: 10, block_layers: [1|2, 1, 1, 1], width: 4|8}]
training: {epochs: 2}
"""

if __name__ == "__main__":
    study = at.search(SPACE, data="digits", out="runs/timm", objectives=["f1", "params"], trials=2)
    for trial in study.front():
        print(trial.number, trial.values, dict(trial.decisions))
