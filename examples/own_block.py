"""A block of one's own beside archtuna's, searched on handwritten digits: python examples/own_block.py"""

from torch import Tensor, cat, nn

import archtuna as at


@at.block
class Pyramid(nn.Module):
    """Looks at a map at two scales and joins what it sees."""

    def __init__(self, in_channels: int, channels: int, kernel: int = 3, scale: int = 2) -> None:
        super().__init__()
        self.near = nn.Conv2d(in_channels, channels - channels // 2, kernel, padding=kernel // 2)
        self.far = nn.Sequential(
            nn.AvgPool2d(scale),
            nn.Conv2d(in_channels, channels // 2, kernel, padding=kernel // 2),
            nn.Upsample(scale_factor=scale),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cat((self.near(x), self.far(x)), 1).relu()


SPACE = """
input_channel: 1
input_size: 16
backbone:
  - [1..2, Pyramid, {channels: 8|16, kernel: 3|5, scale: 2|4}]
  - [1, Conv, [32, 3, 2]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [10]]
training: {epochs: 3}
"""

if __name__ == "__main__":
    study = at.search(SPACE, data="digits", out="runs/own_block", objectives=["f1", "params"], trials=4)
    for trial in study.front():
        print(trial.number, trial.values, dict(trial.decisions))
