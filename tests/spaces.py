"""Search files that tests share: the classic one, one with every kind of choice, a small one, and one of graphs."""

SEED = """\
input_channel: 3
depth_multiple: 1.0
width_multiple: 1.0
backbone:
    [
        [1, Conv, [16, 3, 2, null, 1, "HardSwish"]],
        [1, InvertedResidualv3, [3, 1, 16, 0, 0, 1]],
        [1, InvertedResidualv3, [3, 4, 24, 0, 0, 2]],
        [1, InvertedResidualv3, [3, 3, 24, 0, 0, 1]],
        [1, InvertedResidualv3, [5, 3, 40, 1, 0, 2]],
        [1, InvertedResidualv3, [5, 3, 40, 1, 0, 1]],
        [1, InvertedResidualv3, [5, 3, 40, 1, 0, 1]],
        [1, InvertedResidualv3, [3, 6, 80, 0, 1, 2]],
        [1, InvertedResidualv3, [3, 2.5, 80, 0, 1, 1]],
        [1, InvertedResidualv3, [3, 2.3, 80, 0, 1, 1]],
        [1, InvertedResidualv3, [3, 2.3, 80, 0, 1, 1]],
        [1, InvertedResidualv3, [3, 6, 112, 1, 1, 1]],
        [1, InvertedResidualv3, [3, 6, 112, 1, 1, 1]],
        [1, InvertedResidualv3, [5, 6, 160, 1, 1, 2]],
        [1, InvertedResidualv3, [5, 6, 160, 1, 1, 1]],
        [1, InvertedResidualv3, [5, 6, 160, 1, 1, 1]],
        [1, Conv, [960, 1, 1]],
        [1, GlobalAvgPool, []],
        [1, Conv, [1280, 1, 1]],
        [1, Flatten, []],
        [1, Linear, [6]]
    ]
"""

CLASSIC = SEED + "vary:\n  - {rows: stride1, repeat: 1..5}\n"

EVERYTHING = """\
input_channel: 3
input_size: 16|24
depth_multiple: 0.5|1.0
width_multiple: 0.5|1.0
choices: {k: 3|5}
backbone:
  - [1, Conv, [16, 3, 2, null, 1, HardSwish]]
  - [0..3, InvertedResidualv3, [3|5, 2|3|4|6, 24, 0|1, 0|1, 1]]
  - [1..2, InvertedResidualv2|MBConv, {channels: 24|40, expansion: 1|4, stride: 1|2, kernel: $k}]
  - any:
      - [1..3, Bottleneck, [64, true|false, 1, 0.5|0.25, SiLU]]
      - [1..2, DWConv, [64, $k, 2]]
      - [1, Fire, [8, 16..32/8, 16]]
      - [1, MaxPool|AvgPool, [2]]
  - [1..2, Conv|DWConv, [32, $k, 1]]
  - [1, Dropout|Identity, []]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [6]]
training: {lr: 0.01..0.3 log, batch_size: 32|64, epochs: 3}
"""

SMALL = """\
input_size: 16
backbone:
  - [1, Conv, {channels: 8|16, kernel: 3, stride: 2}]
  - [1..2, Conv, {channels: 16, kernel: 1|3, activation: ReLU|SiLU}]
  - [1, GlobalAvgPool, []]
  - [1, FixedConv, [4, 1, 1, null, 1, null]]
"""

# Branches, skips that may disappear, a group that repeats, and choices of what a row takes in.
HEAD = """\
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [4]]
"""

GRAPH = f"""\
input_size: 16
backbone:
  - [1, Conv, {{channels: 8, kernel: 3, name: stem}}]
  - [0|1|2, Conv, [8, 3], {{name: mid}}]
  - {{module: Conv, arguments: [8, 1|3], name: left, from: stem}}
  - any:
      - [1, MaxPool, {{kernel: 3, stride: 1, padding: 1}}]
      - rows:
          - [1, Conv, {{channels: 16, kernel: 1, name: wide}}]
          - [1, Conv, [16, 3]]
          - [1, Add, [], {{from: [wide, previous]}}]
          - [1, Conv, [8, 1]]
        repeat: 1..2
    name: right
    from: stem|mid
  - [1, Add|Concat, [], {{from: [left, right, mid|null], name: joined}}]
  - [1, Conv, [16, 3, 2]]
{HEAD}"""

TINY = """\
input_size: 16
backbone:
  - [1, Conv, {channels: 8|16|24, kernel: 3, stride: 2}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
training: {epochs: 2, batch_size: 16}
"""

ALL = {"classic": CLASSIC, "everything": EVERYTHING, "small": SMALL, "graph": GRAPH}
