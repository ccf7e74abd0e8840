"""A small network around each block of the zoo."""

import torch

from archtuna.model import Network, build
from archtuna.registry import BLOCKS
from archtuna.space import SearchSpace

# A row of every registered block; a new block needs a line here.
ROWS = {
    "Conv": "[8, 3, 1, null, 2, HardSwish]", "FixedConv": "[7, 3]", "DWConv": "[16, 3]", "Bottleneck": "[8]",
    "Fire": "[4, 8, 8]", "Flatten": "[]", "Linear": "[5, ReLU]", "Dropout": "[0.5]", "Identity": "[]",
    "InvertedResidualv2": "[8, 4, 1]", "InvertedResidualv3": "[3, 4, 8, 1, 1, 1]", "MBConv": "[4, 16, 2, 3]",
    "MaxPool": "[2]", "AvgPool": "[2]", "GlobalAvgPool": "[]", "GlobalMaxPool": "[]",
    "Add": "{from: [previous, first]}", "Concat": "{from: [previous, first]}", "UpSample": "[]",
    "Focus": "[8, 3]", "BottleneckCSP": "[16]", "C3": "[16]", "MV2Block": "[8]", "SPP": "[8, [3, 5]]", "SPPF": "[8, 3]",
    "MobileViTBlock": "[16, 32, 1]", "ConvNeXtBlock": "{channels: 16, stride: 2, attention: se}",
    "RepVGGBlock": "{channels: 8, attention: eca}", "LayerNorm2d": "[]", "SE": "[]", "ECA": "[]",
    "ConvResidual": "[8, 3]", "CR": "[8, 3]", "FixedCR": "[7, 3]", "ResBottleneck": "[8]", "ECABottleneck": "[8]",
    "FusedMBConv": "{expansion: 4, channels: 16, stride: 2, attention: eca}", "ECAInvertedResidualv2": "[8, 4, 1]",
    "ECAInvertedResidualv3": "[3, 4, 8, 1, 1, 1]", "BottleneckAttn": "[8, 8]", "GhostBottleneck": "[3, 2, 16, 1, 2]",
    "ShuffleNetV2": "[16, 2]", "MixNetBlock": "[[3, 5], 2, 8, 1, 1]",
    "PatchEmbedding": "[16, 2]", "TransformerBlock": "[4]", "AttentionPool": "[2]",
}  # fmt: skip
VECTORS = ("Flatten", "AttentionPool")
COVERED = [name for name in BLOCKS if not name.startswith("PreTrained")]


def network_with(*blocks: str) -> Network:
    """A network with a branch of two rows of each block, whose batch norms have seen data; vectors are joined at the end."""
    rows = ["[1, Conv, [8, 3, 2], {name: first}]"]
    for block in blocks:
        row = f"[2, {block}, {ROWS[block]}]"
        if "from:" in row:
            rows += ["[1, Identity, [], {from: first}]", row]
        elif block == "Linear":
            rows += ["[1, GlobalAvgPool, [], {from: first}]", "[1, Flatten, []]", row]
        else:
            rows.append(f"{{row: {row}, from: first}}")
        if block not in (*VECTORS, "Linear"):
            rows += ["[1, GlobalAvgPool, []]", "[1, Flatten, []]"]
        rows.append(f"[1, Identity, [], {{name: {block.lower()}}}]")
    if len(blocks) > 1:
        rows.append(f"[1, Concat, {{from: [{', '.join(block.lower() for block in blocks)}]}}]")
    text = "input_channel: 3\ninput_size: 16\nbackbone:\n" + "".join(
        f"  - {row}\n" for row in [*rows, "[1, Linear, [4]]"]
    )
    torch.manual_seed(5)
    network = build(SearchSpace.read(text).default().architecture)
    with torch.no_grad():
        network.train()(torch.randn(16, 3, 16, 16))
    return network.eval()
