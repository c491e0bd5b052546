"""The U-Transformer against reference numbers, its parameter counts, its maps, and its memory."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.plain.u_transformer import plain
from napari_medt.core import BadModel
from napari_medt.nets.capture import capture, list_attention_sources
from napari_medt.nets.cross_attention import (
    WIRINGS,
    CrossAttention,
    DotAttention,
    SelfAttention,
    with_positions,
)
from napari_medt.nets.layers import BatchNormNd, InstanceNormNd
from napari_medt.nets.registry import create_net
from napari_medt.nets.states import CHUNK
from napari_medt.nets.u_transformer import usual_token_strides
from napari_medt.zoo.forms import u_transformer as form
from tests.nets.memory import Largest

FIXTURES = Path(__file__).parent / "fixtures"
COMMUNITY = Path(__file__).parents[3] / "shared" / "golden" / "3d" / "models" / "hx_utransformer_dimlast"
TINY = {"channels": (8, 16, 24), "heads": 2}


def reference(name):
    arrays = {key: torch.from_numpy(value) for key, value in np.load(FIXTURES / f"u_transformer_{name}.npz").items()}
    state = {key.removeprefix("state:"): arrays.pop(key) for key in list(arrays) if key.startswith("state:")}
    return form.map_module(state), arrays


def tiny(**options):
    torch.manual_seed(0)
    net = create_net("u-transformer", **(TINY | options))
    for module in net.modules():
        if isinstance(module, BatchNormNd):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval()


def count(**options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_net("u-transformer", **options).parameters())


# ------------------------------------------------------------------------------------------------------ reference numbers


@torch.no_grad()
def test_self_attention_is_the_published_module():
    state, io = reference("self")
    module = SelfAttention(32, 8, wiring=WIRINGS["authors"]).eval()
    module.load_state_dict(state)
    module.attend.seen = []
    torch.testing.assert_close(module(io["input"]), io["output0"], rtol=1e-5, atol=1e-5)
    for sample in range(2):
        torch.testing.assert_close(module.attend.seen[0].full(sample), io["attn_A"][sample], rtol=0, atol=1e-6)
    codes = with_positions(torch.zeros_like(io["input"]), interleaved=True)
    torch.testing.assert_close(codes[0], io["pe"], rtol=0, atol=1e-6)


@torch.no_grad()
def test_cross_attention_is_the_published_module():
    state, io = reference("cross")
    module = CrossAttention(32, 16, 8, spatial_dims=2, wiring=WIRINGS["authors"]).eval()
    module.load_state_dict(state)
    module.attend.seen, module.gate.seen = [], []
    out = module(io["input"], io["skip"])
    torch.testing.assert_close(out, io["output0"], rtol=1e-5, atol=1e-5)
    for sample in range(2):
        torch.testing.assert_close(module.attend.seen[0].full(sample), io["attn_A"][sample], rtol=0, atol=1e-6)
    gate = module.gate.seen[0].values
    assert gate.min() > 0
    assert gate.max() < 1
    torch.testing.assert_close(out[:, :16], gate * (io["skip"] + io["s_pe"]), rtol=1e-5, atol=1e-5)


@pytest.fixture
def community():
    if not COMMUNITY.is_dir():
        pytest.skip("the reference numbers of the community code lie beside the checkout only")
    files = [np.load(COMMUNITY / f"{name}.npz") for name in ("state", "io")]
    return tuple({key: torch.from_numpy(value) for key, value in arrays.items()} for arrays in files)


@torch.no_grad()
def test_community_network(community):
    state, io = community
    name, options = form.FORM.recognise({key: tuple(value.shape) for key, value in state.items()})
    assert (options["in_channels"], options["num_classes"], options["channels"]) == (1, 3, [8, 16, 32, 64])
    net = create_net(name, **(options | {"over": "keys"})).eval()
    net.load_state_dict(form.FORM.map_state(state, options))
    assert sum(p.numel() for p in net.parameters()) == 184_147
    with capture(net) as captured:
        out = net(io["input"])
    assert (out - io["output0"]).abs().max() < 1e-4 * io["output0"].abs().max()
    # Logits of some hundreds make the deep ones sharp: 1e-6 of rounding in them is 1e-3 in the finest attention.
    tolerances = {"MHSA": ("self", 1e-5), "up1_MHCA": ("cross.2", 1e-5), "up2_MHCA": ("cross.1", 1e-4)}
    for theirs, (ours, tolerance) in (tolerances | {"up3_MHCA": ("cross.0", 1e-3)}).items():
        attention = captured[ours][0].full()
        torch.testing.assert_close(attention, io[f"attn_{theirs}_softmax"], rtol=0, atol=tolerance)


def test_first_unknown_key_is_named(community):
    state, _ = community
    with pytest.raises(KeyError, match="up1.MHCA.extra.weight"):
        form.FORM.map_state({"up1.MHCA.extra.weight": torch.ones(1)} | state, {})
    assert form.FORM.recognise({"MHSA.query.weight": (8, 8)}) is None
    with pytest.raises(KeyError, match="surprise"):
        form.map_module({"surprise.weight": torch.ones(1)})


@pytest.mark.parametrize("channels", [2, 5, 6, 7, 8])
def test_positions_of_the_community_fill_any_number_of_channels(channels):
    """Rows, then columns, each with a share of channels rounded up to an even number; the last is cut short."""
    codes = with_positions(torch.zeros(1, channels, 3, 4), interleaved=False, rounded_up=True)[0]
    share = math.ceil(channels / 4) * 2
    for channel, place in itertools.product(range(channels), range(3)):
        within = channel % share
        angle = place / 10000 ** (2 * (within % (share // 2)) / share)
        expected = math.sin(angle) if within < share // 2 else math.cos(angle)
        along = codes[channel, place, 0] if channel < share else codes[channel, 0, place]
        assert along.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("over", ["keys", "queries"])
@torch.no_grad()
def test_equals_the_plain_form(spatial_dims, wiring, over):
    net = tiny(spatial_dims=spatial_dims, wiring=wiring, over=over, token_strides=(2, 1), scale="head").double()
    x = torch.rand(2, 1, *(24, 16, 8)[:spatial_dims], dtype=torch.float64)
    torch.testing.assert_close(net(x), plain(net)(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("over", ["keys", "queries"])
def test_gradients_equal_those_of_the_plain_form(over):
    net = tiny(wiring="authors", over=over).double().train()
    other = plain(net)
    x = torch.rand(2, 1, 16, 24, dtype=torch.float64)
    for form_of in (net, other):
        form_of(x).square().mean().backward()
    expected = dict(other.named_parameters())
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-7, atol=1e-10, msg=name)


# ------------------------------------------------------------------------------------------------------------ size and parts


def test_parameter_counts_of_the_published_sizes():
    ones, five = {"num_classes": 7, "token_strides": (1, 1, 1)}, (64, 128, 256, 512, 1024)
    assert count(preset="paper", num_classes=7) == 11_941_255
    assert count(**ones, mhsa=False, mhca=False) == 7_702_215
    assert count(**ones, mhca=False) - count(**ones, mhca=False, mhsa=False) == 1_050_624
    assert count(**ones, wiring="community", heads=1) == 11_677_063
    assert count(num_classes=7, channels=five, token_strides=(1, 1, 1, 1)) == 48_135_559
    assert count(num_classes=7, channels=five, mhsa=False, mhca=False) == 31_042_759
    assert 0.3e6 < count(preset="small") < 1.5e6


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"mhsa": False, "mhca": False}, []),
        ({"mhca": False}, ["self"]),
        ({"mhsa": False}, ["cross.1", "gate.1", "cross.0", "gate.0"]),
        ({}, ["self", "cross.1", "gate.1", "cross.0", "gate.0"]),
        ({"mhca": [1]}, ["self", "cross.1", "gate.1"]),
    ],
)
def test_either_attention_can_be_left_out(options, names):
    net = tiny(**options)
    assert [source.name for source in list_attention_sources(net)] == names
    assert net(torch.rand(1, 1, 13, 9)).shape == (1, 2, 13, 9)


def test_sources_say_what_attends_where():
    sources = list_attention_sources(tiny(token_strides=(2, 1)))
    assert [(s.kind, s.heads, s.level) for s in sources] == [
        ("token", 2, 2),
        ("cross", 2, 2),
        ("gate", 1, 1),
        ("cross", 2, 2),
        ("gate", 1, 0),
    ]


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("size", [(1, 1), (97, 30), (1, 1, 1), (9, 17, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_any_size_any_channels_any_precision(norm, size, dtype):
    net = tiny(spatial_dims=len(size), norm=norm, in_channels=5, num_classes=3)
    x = torch.rand(2, 5, *size)
    expected = net(x)
    out = copy.deepcopy(net).to(dtype)(x.to(dtype))
    assert out.shape == (2, 3, *size)
    assert torch.isfinite(expected).all()
    assert (out.float() - expected).abs().mean() <= (0 if dtype == torch.float32 else 0.05) * expected.abs().max()
    torch.testing.assert_close(net(x[1:]), expected[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (4, 4, 4)])
def test_instance_norm_trains_one_image_down_to_one_place(size):
    net = tiny(spatial_dims=len(size), norm="instance").train()
    net(torch.rand(1, 1, *size)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    x = torch.randn(2, 3, 5, 7)
    torch.testing.assert_close(InstanceNormNd(3)(x), nn.InstanceNorm2d(3)(x))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_everything_learns_but_the_shifts_that_cancel(spatial_dims):
    """A shift before batch normalisation, or of all keys alike, changes nothing: those gradients are rounding."""
    net = tiny(spatial_dims=spatial_dims).double().train()
    net(torch.rand(2, 1, *(16, 24, 8)[:spatial_dims], dtype=torch.float64)).square().mean().backward()
    still = {name for name, p in net.named_parameters() if p.grad.abs().max() < 1e-14}
    convolutions = {
        f"{part}.{i}.{j}.bias" for part, n in (("encoder", 3), ("decoder", 2)) for i in range(n) for j in (0, 3)
    }
    inner = ("reduce.0", "enter.0", "gate.conv", "widen", "narrow")
    assert still == convolutions | {f"joins.{i}.{name}.bias" for i in (0, 1) for name in inner} | {
        "self_attention.key.bias"
    }


def test_options_that_do_not_fit_are_refused():
    for options, words in (
        ({"heads": 5}, "24 channels cannot be shared by 5 heads"),
        ({"mhca": [2]}, "skips 0 .finest. to 1, not .2."),
        ({"token_strides": [1]}, "2 positive numbers, finest skip first"),
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3"),
        ({"wiring": "mine"}, "wiring must be one of standard, authors, community"),
        ({"over": "rows"}, "over one of .'keys', 'queries'., not 'channels', 'rows'"),
        ({"norm": "layer"}, "norm must be 'batch' or 'instance'"),
        ({"channels": [8]}, "two levels or more"),
    ):
        with pytest.raises(BadModel, match=words):
            create_net("u-transformer", **(TINY | options))


# ----------------------------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("spatial_dims", [2, 3])
@torch.no_grad()
def test_capture_changes_nothing_and_rows_sum_to_one(spatial_dims):
    net = tiny(spatial_dims=spatial_dims, token_strides=(2, 1))
    x = torch.rand(2, 1, *(16, 24, 8)[:spatial_dims])
    with capture(net) as captured:
        seen = net(x)
    assert torch.equal(net(x), seen)
    grids = {"self": 4, "cross.1": 4, "gate.1": 2, "cross.0": 4, "gate.0": 1}
    for name, (state,) in captured.items():
        assert state.grid == tuple(side // grids[name] for side in x.shape[2:])
        assert state.samples == 2
        if name.startswith("gate"):
            assert state.values.amin() > 0
            assert state.values.amax() < 1
        else:
            rows = state.full(1)
            torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]))
    assert all(module.seen is None for module in net.attention_sources().values())


@torch.no_grad()
def test_softmax_over_queries_is_shown_as_it_was():
    net = tiny(over="queries", wiring="community")
    with capture(net, ["cross.1"]) as captured:
        net(torch.rand(1, 1, 16, 24))
    matrix = captured["cross.1"][0].full()
    torch.testing.assert_close(matrix.sum(-2), torch.ones_like(matrix[..., 0]))


@pytest.mark.parametrize("size", [(5, 7), (3, 5, 7)])
@torch.no_grad()
def test_places_that_are_told_by_position_find_themselves(size):
    """Position codes alone, and queries that are keys: every place looks at itself and at its neighbours first."""
    module = SelfAttention(96, 1, scale="head")
    for layer in (module.query, module.key):
        layer.weight.copy_(12 * torch.eye(96))
        layer.bias.zero_()
    module.attend.seen = []
    module(torch.zeros(1, 96, *size))
    (state,) = module.attend.seen
    for cell in ((0,) * len(size), tuple(side - 1 for side in size), tuple(range(1, len(size) + 1))):
        row = state.row(cell)[0]
        assert np.unravel_index(row.argmax().item(), size) == cell


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_cross_attention_sees_a_bright_place_where_it_is(stride):
    """All places ask for what is bright in the deep map; the gate then opens by what the skip holds there."""
    module = CrossAttention(16, 8, 1, spatial_dims=2, stride=stride).eval()
    for conv in (module.query, module.key):
        conv.weight.fill_(0.5)
    module.reduce[0].weight.fill_(0.1)
    y = torch.zeros(1, 16, 8, 12)
    y[..., 2:4, 8:10] = 30.0
    module.attend.seen = []
    module(y, torch.rand(1, 8, 16, 24))
    (state,) = module.attend.seen
    assert state.grid == (8 // stride, 12 // stride)
    place = np.unravel_index(state.row((0, 0))[0].argmax().item(), state.grid)
    assert place in {(y // stride, x // stride) for y in (2, 3) for x in (8, 9)}


@torch.no_grad()
def test_gate_stands_where_the_skip_is_filtered():
    net = tiny()
    with capture(net, ["gate.0"]) as captured:
        net(torch.rand(1, 1, 16, 24))
    (state,) = captured["gate.0"]
    assert state.row((3, 5)).shape == (8, 16, 24)


# -------------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(("values", "over"), [(8, "keys"), (4, "keys"), (16, "keys"), (8, "queries")])
def test_many_tokens_never_make_a_matrix(values, over):
    tokens = 6000
    attend = DotAttention(8, 1, over=over)
    # As convolutions give them: channels first.
    q, k = (torch.randn(1, 8, tokens, requires_grad=True).transpose(1, 2) for _ in range(2))
    v = torch.randn(1, values, tokens, requires_grad=True).transpose(1, 2)
    with Largest() as largest:
        attend(q, k, v, (60, 100)).square().sum().backward()
    assert largest.elements <= CHUNK * tokens if over == "queries" else largest.elements <= 32 * tokens


def test_default_strides_keep_usual_images_within_4096_tokens():
    assert usual_token_strides(3, 2) == (2, 1, 1)
    assert usual_token_strides(3, 3) == (4, 2, 1)
    with torch.device("meta"):
        for spatial_dims, side in ((2, 256), (3, 96)):
            net = create_net("u-transformer", spatial_dims=spatial_dims, num_classes=2)
            modules = {s.name: m for s, m in net.attention_sources().items() if s.kind in ("token", "cross")}
            for module in modules.values():
                module.seen = []
            net.eval()(torch.rand(1, 1, *(side,) * spatial_dims))
            assert all(np.prod(module.seen[0].grid) <= 4096 for module in modules.values())
            assert net.multiple == 8
