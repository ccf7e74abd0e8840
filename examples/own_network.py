"""A whole network that was written by hand, searched as it is: python examples/own_network.py"""

from torch import Tensor, nn

import archtuna as at


class BasicBlock(nn.Module):
    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        changes = stride != 1 or inplanes != planes
        self.downsample = (
            nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))
            if changes
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + identity).relu()


class ResNet(nn.Module):
    """As people write them: nothing in it knows of archtuna."""

    def __init__(self, layers: list[int], width: int, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, 1, 1)
        blocks, planes = [], width
        for stage, depth in enumerate(layers):
            for i in range(depth):
                blocks.append(BasicBlock(planes, width * 2**stage, 2 if stage and not i else 1))
                planes = width * 2**stage
        self.layers = nn.Sequential(*blocks)
        self.fc = nn.Linear(planes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(self.stem(x)).mean((2, 3)))


# These lines make it searchable: its signature is its schema.
at.block(ResNet, name="ResNet")
SPACE = {
    "input_channel": 1,
    "input_size": 16,
    "backbone": [[1, "ResNet", {"layers": ["1|2", "1|2"], "width": "4|8|16", "num_classes": 10}]],
    "training": {"epochs": 3},
}

if __name__ == "__main__":
    study = at.search(SPACE, data="digits", out="runs/own_network", objectives=["f1", "params"], trials=4)
    for trial in study.front():
        print(trial.number, trial.values, dict(trial.decisions))
