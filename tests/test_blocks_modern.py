"""Blocks of today, each held against torch's own layers or against a formula written out by hand."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from archtuna.architecture import Row
from archtuna.blocks.attention import sincos
from archtuna.blocks.gates import ChannelAttention, DropPath, eca_kernel
from archtuna.exports import export
from archtuna.model import build, make_unit, survey_row
from archtuna.space import SearchSpace


def unit(name, width, /, size=8, **arguments):
    """A block whose norms have seen data, in evaluation mode."""
    torch.manual_seed(0)
    found = make_unit(name, arguments, ((width, size, size),))
    with torch.no_grad():
        for p in found.parameters():
            if p.dim() == 1:
                p.uniform_(0.5, 1.5)
        found.train()(torch.randn(8, width, size, size))
    return found.eval()


def test_convnext_is_what_its_paper_draws():
    block = unit("ConvNeXtBlock", 12, channels=12, layer_scale=0.5)
    depthwise, norm, widen, _, _, narrow = block.layers
    x = torch.randn(2, 12, 8, 8)
    y = functional.conv2d(x, depthwise.weight, depthwise.bias, padding=3, groups=12).permute(0, 2, 3, 1)
    y = functional.layer_norm(y, (12,), norm.weight, norm.bias, 1e-6)
    y = functional.gelu(functional.linear(y, widen.weight.flatten(1), widen.bias))
    y = functional.linear(y, narrow.weight.flatten(1), narrow.bias).permute(0, 3, 1, 2)
    assert torch.allclose(block(x), x + block.scale * y, atol=1e-6)
    assert sum(p.numel() for p in block.parameters()) == 12 * 49 + 12 + 24 + 12 * 48 + 48 + 48 * 12 + 12 + 12


def test_convnext_strides_through_the_papers_downsampling_layer():
    block = unit("ConvNeXtBlock", 8, channels=16, stride=2)
    norm, conv = block.downsample
    assert (conv.kernel_size, conv.stride) == ((2, 2), (2, 2))
    x = torch.randn(2, 8, 8, 8)
    assert norm(x).mean(1).abs().max() < 3  # Normalised over channels, whatever weight and bias are.
    assert block(x).shape == (2, 16, 4, 4)
    assert isinstance(unit("ConvNeXtBlock", 16, channels=16).downsample, nn.Identity)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("attention", ["none", "se"])
def test_repvgg_merges_into_one_convolution_that_gives_the_same(stride, groups, attention):
    block = unit("RepVGGBlock", 8, channels=8, stride=stride, groups=groups, attention=attention)
    merged = block.for_inference()
    x = torch.randn(4, 8, 8, 8)
    with torch.inference_mode():
        assert torch.allclose(merged(x), block(x), atol=1e-5)
    convs = [m for m in merged.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convs) == 1
    assert (block.identity is None) == (stride == 2)


def test_an_export_carries_the_merged_block(tmp_path):
    text = "input_size: 16\nbackbone: [[3, RepVGGBlock, [8, 2]], [1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [4]]]\n"
    model = build(SearchSpace.read(text).default().architecture)
    with torch.no_grad():
        model.train()(torch.randn(16, 3, 16, 16))
    done = export(model.eval(), tmp_path / "model.ts")
    assert done.max_difference < 1e-5
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        loaded = torch.jit.load(str(tmp_path / "model.ts"))
    kinds = [m.original_name for m in loaded.modules()]
    assert kinds.count("Conv2d") == 3
    assert "BatchNorm2d" not in kinds
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 8  # The model itself is as it was.


def test_a_transformer_block_is_torchs_encoder_layer():
    block = unit("TransformerBlock", 16, heads=4, expansion=2.0)
    layer = block.layer
    theirs = nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True, norm_first=True)
    pairs = {
        "self_attn.in_proj_weight": layer.attention.to_qkv.weight, "self_attn.in_proj_bias": layer.attention.to_qkv.bias,
        "self_attn.out_proj.weight": layer.attention.to_out[0].weight, "self_attn.out_proj.bias": layer.attention.to_out[0].bias,
        "linear1.weight": layer.mlp[0].weight, "linear1.bias": layer.mlp[0].bias,
        "linear2.weight": layer.mlp[3].weight, "linear2.bias": layer.mlp[3].bias,
        "norm1.weight": layer.attention_norm.weight, "norm1.bias": layer.attention_norm.bias,
        "norm2.weight": layer.mlp_norm.weight, "norm2.bias": layer.mlp_norm.bias,
    }  # fmt: skip
    theirs.load_state_dict(pairs)
    x = torch.randn(2, 16, 8, 8)
    with torch.inference_mode():
        tokens = theirs.eval()(x.flatten(2).transpose(1, 2))
        assert torch.allclose(block(x), tokens.transpose(1, 2).reshape(x.shape), atol=1e-5)


def test_attention_pooling_is_torchs_attention_with_one_query():
    block = unit("AttentionPool", 16, heads=4)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        # The query is learned as it is, so torch's projection of it is none.
        theirs.in_proj_weight.copy_(torch.cat((torch.eye(16), block.to_kv.weight)))
        theirs.in_proj_bias.copy_(torch.cat((torch.zeros(16), block.to_kv.bias)))
        theirs.out_proj.weight.copy_(block.to_out.weight)
        theirs.out_proj.bias.copy_(block.to_out.bias)
        x = torch.randn(3, 16, 8, 8)
        tokens = block.norm(x.flatten(2).transpose(1, 2))
        wanted, _ = theirs(block.query.expand(3, -1, -1), tokens, tokens)
        assert torch.allclose(block(x), wanted[:, 0], atol=1e-6)


def test_positions_are_sines_and_cosines_of_places():
    places = sincos(torch.zeros(1, 16, 5, 7))
    rates = [10_000 ** -(i / 3) for i in range(4)]
    for i, rate in enumerate(rates):
        x, y = torch.arange(7) * rate, torch.arange(5) * rate
        for quarter, wave in enumerate((x.sin(), x.cos(), y.sin(), y.cos())):
            row = places[4 * quarter + i]
            assert torch.allclose(
                row if quarter < 2 else row.t(), wave.expand_as(row if quarter < 2 else row.t()), atol=1e-5
            )
    assert len({tuple(places[:, i, j].tolist()) for i in range(5) for j in range(7)}) == 35


def test_patches_become_tokens_of_their_own_pixels():
    block = unit("PatchEmbedding", 3, channels=8, patch=2, position="none")
    x = torch.randn(1, 3, 8, 8)
    patch = x[0, :, 2:4, 4:6].flatten()
    wanted = block.project.weight.flatten(1) @ patch + block.project.bias
    assert torch.allclose(block(x)[0, :, 1, 2], wanted, atol=1e-6)


@pytest.mark.parametrize(("channels", "kernel"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (4096, 7)])
def test_the_kernel_of_channel_attention_follows_its_paper(channels, kernel):
    assert eca_kernel(channels) == kernel


def test_channel_attention_gates_by_neighbouring_channels():
    gate = ChannelAttention(6, 3)
    x = torch.randn(2, 6, 4, 4)
    w = gate.conv.weight.flatten()
    means = functional.pad(x.mean((2, 3)), (1, 1))
    for c in range(6):
        factor = torch.sigmoid((means[:, c : c + 3] * w).sum(1))
        assert torch.allclose(gate(x)[:, c], x[:, c] * factor[:, None, None], atol=1e-6)


def test_squeeze_and_excite_has_the_papers_parameters():
    assert sum(p.numel() for p in unit("SE", 16).parameters()) == 16 * 4 + 4 + 4 * 16 + 16
    assert sum(p.numel() for p in unit("ECA", 64).parameters()) == 3


def test_stochastic_depth_leaves_whole_pictures_out_and_keeps_the_mean():
    drop = DropPath(0.25).train()
    x = torch.ones(4000, 3, 2, 2)
    torch.manual_seed(1)
    y = drop(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert ((y.flatten(1) == 0).all(1) | (y.flatten(1) != 0).all(1)).all()
    assert y.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("InvertedResidualv2", {"channels": 8, "expansion": 2.0}), ("MBConv", {"expansion": 2.0, "channels": 8}),
        ("InvertedResidualv3", {"kernel": 3, "expansion": 2.0, "channels": 8}), ("FusedMBConv", {"expansion": 2.0, "channels": 8}),
        ("ConvNeXtBlock", {"channels": 8, "layer_scale": 1.0}), ("TransformerBlock", {"heads": 2}),
    ],
)  # fmt: skip
def test_a_residual_that_is_always_dropped_passes_its_input_on(name, arguments):
    block = unit(name, 8, **arguments, drop_path=1.0 - 1e-9)
    x = torch.randn(2, 8, 8, 8)
    assert torch.equal(block.train()(x), x)
    assert not torch.equal(block.eval()(x), x)


def test_layer_norm_over_channels_is_torchs():
    norm = unit("LayerNorm2d", 6)
    x = torch.randn(2, 6, 4, 4)
    wanted = functional.layer_norm(x.permute(0, 2, 3, 1), (6,), norm.weight, norm.bias, 1e-6).permute(0, 3, 1, 2)
    assert torch.allclose(norm(x), wanted, atol=1e-6)


def test_attention_counts_its_matrix_products():
    facts = survey_row(
        Row("TransformerBlock", {"heads": 2, "expansion": 4.0, "activation": "GELU", "dropout": 0.0, "drop_path": 0.0}),
        ((16, 4, 4),),
    )
    tokens, width = 16, 16
    projections = tokens * width * (3 * width + width + 2 * 4 * width)
    assert facts.macs == projections + 2 * tokens * tokens * width


def test_arguments_that_came_later_leave_older_keys_alone():
    def row(text):
        head = "[1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [4]]"
        return SearchSpace.read(f"input_size: 16\nbackbone: [{text}, {head}]\n").default().architecture

    # These keys were those of the first version, which had neither argument.
    assert (
        row("[1, MBConv, [4, 16, 2, 3]]").key
        == row("[1, MBConv, {expansion: 4, channels: 16, stride: 2, se: 1, drop_path: 0}]").key
    )
    assert "drop_path" not in row("[1, InvertedResidualv2, [16, 4, 2]]").rows[0].arguments
    dropped = row("[2, InvertedResidualv2, {channels: 16, expansion: 4, stride: 2, drop_path: 0.1}]")
    assert [r.arguments["drop_path"] for r in dropped.rows[:2]] == [0.1, 0.1]
    assert "widen_activation" not in row("[2, Bottleneck, [16]]").rows[0].arguments
