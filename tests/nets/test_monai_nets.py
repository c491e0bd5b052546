"""Baselines: the networks of MONAI, unchanged, at any size."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import types

import pytest
import torch

from napari_medt.core import BadModel
from napari_medt.nets import attention_unet as _attention_unet  # noqa: F401  (registers it)
from napari_medt.nets import create_net, list_attention_sources, monai_nets
from napari_medt.zoo.forms import attention_unet, baselines

FORMS = (*attention_unet.FORMS, *baselines.FORMS)
nets = pytest.importorskip("monai.networks.nets", reason="the baselines need MONAI")
SMALL = {
    "unet": {"channels": (4, 8, 8), "strides": (2, 2)},
    "vnet": {},
    "swin-unetr": {"width": 12},
    "segresnet": {"width": 8},
}


@pytest.fixture(autouse=True)
def einops(monkeypatch):
    """Where einops is missing, its one function that Swin UNETR calls: it only changes the order of axes there."""
    try:
        import einops  # noqa: F401
    except ImportError:

        def rearrange(x, pattern):
            before, after = (side.split() for side in pattern.split("->"))
            return x.permute([before.index(axis) for axis in after])

        stand_in = types.ModuleType("einops")
        stand_in.rearrange = rearrange
        monkeypatch.setitem(sys.modules, "einops", stand_in)
        monkeypatch.setattr("monai.networks.nets.swin_unetr.rearrange", rearrange)


@pytest.fixture(params=SMALL)
def net(request):
    torch.manual_seed(0)
    return create_net(request.param, in_channels=3, num_classes=4, spatial_dims=2, **SMALL[request.param])


def theirs(name, dims, in_channels, num_classes):
    torch.manual_seed(0)
    return {
        "unet": lambda: nets.UNet(dims, in_channels, num_classes, (4, 8, 8), (2, 2), num_res_units=2),
        "unet, no residual units": lambda: nets.UNet(dims, in_channels, num_classes, (4, 8), (2,), norm="batch"),
        "vnet": lambda: nets.VNet(dims, in_channels, num_classes, dropout_dim=dims),
        "swin-unetr": lambda: nets.SwinUNETR(in_channels, num_classes, feature_size=12, spatial_dims=dims),
        "segresnet": lambda: nets.SegResNet(dims, 8, in_channels, num_classes),
        "attention-unet": lambda: nets.AttentionUnet(dims, in_channels, num_classes, (4, 6, 8), (2, 2)),
    }[name]()


@pytest.mark.parametrize(
    ("name", "dims"),
    [(name, 2) for name in (*SMALL, "unet, no residual units", "attention-unet")]
    + [(name, 3) for name in ("unet", "segresnet", "attention-unet")],
)
def test_state_dict_of_monai_gives_the_numbers_of_monai(name, dims):
    reference = theirs(name, dims, 2, 3).eval()
    state = reference.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    hits = [(form, found) for form in FORMS if (found := form.recognise(shapes))]
    assert len(hits) == 1
    form, (ours, options) = hits[0]
    assert ours == name.partition(",")[0]
    assert (options["spatial_dims"], options["in_channels"], options["num_classes"]) == (dims, 2, 3)
    net = create_net(ours, **options).eval()
    net.load_state_dict(form.map_state(state, options))
    x = torch.rand(2, 2, *(64, 32, 32)[:dims])
    with torch.inference_mode():
        torch.testing.assert_close(net(x), reference(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(KeyError, match=re.escape("surprise.weight")):
        form.map_state(state | {"surprise.weight": torch.zeros(1)}, options)


@pytest.mark.parametrize(
    ("variant", "key"),
    [
        (lambda: nets.SegResNet(2, blocks_down=(1, 2, 2, 5)), "down_layers.3.5"),
        (lambda: nets.SwinUNETR(1, 2, feature_size=12, spatial_dims=2, use_v2=True), "swinViT.layers1c"),
    ],
    ids=["SegResNet with another block", "SwinUNETR of version 2"],
)
def test_variants_that_would_lose_a_part_are_refused(variant, key):
    state = variant().state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    form, (_, options) = next((form, found) for form in FORMS if (found := form.recognise(shapes)))
    with pytest.raises(KeyError, match=re.escape(key)):
        form.map_state(state, options)


@pytest.mark.parametrize("strides", [(3, 2), (1, 2), (2, (2, 3))])
def test_attention_unet_of_monai_with_other_strides(strides):
    reference = nets.AttentionUnet(2, 1, 2, (4, 6, 8), strides).eval()
    net = create_net("attention-unet", form="monai", channels=(4, 6, 8), strides=strides).eval()
    form = next(form for form in FORMS if form.name == "Attention U-Net of MONAI")
    net.load_state_dict(form.map_state(reference.state_dict(), {}))
    x = torch.rand(1, 1, 12, 24)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), reference(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 70)])
def test_any_size_in_and_out(net, size):
    """Also 32 x 32, where Swin UNETR itself is left with one place that has no statistics."""
    x = torch.rand(2, 3, *size)
    with torch.inference_mode():
        both, one = net.eval()(x), net(x[1:])
    assert both.shape == (2, 4, *size)
    assert both.isfinite().all()
    torch.testing.assert_close(both[1:], one, rtol=1e-3, atol=1e-5)


def test_swin_unetr_itself_fails_at_the_size_that_is_padded():
    net = create_net("swin-unetr", spatial_dims=2, width=12)
    with pytest.raises(ValueError, match="Expected more than 1 spatial element"):
        net.net(torch.rand(1, 1, 32, 32))
    assert net(torch.rand(1, 1, 32, 32)).shape == (1, 2, 32, 32)


@pytest.mark.parametrize("name", ["unet", "segresnet"])
def test_three_dimensions_down_to_one_voxel(name):
    net = create_net(name, in_channels=5, spatial_dims=3, **SMALL[name])
    for size in ((1, 1, 1), (7, 9, 18)):
        assert net(torch.rand(1, 5, *size)).shape == (1, 2, *size)


def test_every_parameter_gets_a_gradient_from_one_sample(net):
    net.train()(torch.rand(1, 3, 17, 20)).square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("channels", range(1, 6))
def test_channels_that_vnet_cannot_take_are_completed_by_zeros(channels):
    net = create_net("vnet", in_channels=channels, spatial_dims=2).eval()
    x = torch.rand(1, channels, 16, 32)
    taken = net.net.in_tr.in_channels
    completed = torch.cat((x, torch.zeros(1, taken - channels, 16, 32)), 1)
    with torch.inference_mode():
        assert torch.equal(net(x), net.net(completed))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(net, dtype):
    x = torch.rand(1, 3, 20, 40)
    with torch.inference_mode():
        full, half = net.eval()(x), copy.deepcopy(net).to(dtype)(x.to(dtype)).float()
    assert (full - half).abs().max() < 0.1 * full.abs().max()


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("unet", {"preset": "paper"}, 4_810_074),
        ("unet", {"preset": "paper", "num_res_units": 0}, 1_981_771),
        ("unet", {}, 1_625_161),
        ("unet", {"preset": "small", "spatial_dims": 3}, 1_186_765),
        ("vnet", {"preset": "paper"}, 45_597_898),
        ("segresnet", {"preset": "paper"}, 18_798_627),
        ("segresnet", {"preset": "small"}, 1_176_186),
        ("swin-unetr", {"preset": "paper"}, 62_187_296),
    ],
)
def test_parameter_counts(name, options, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in create_net(name, **options).parameters()) == parameters


def test_no_attention_is_promised(net):
    assert list_attention_sources(net) == ()


def test_without_monai_the_way_out_is_named(monkeypatch):
    """UNet is built by MONAI, which is not installed; install the baselines: pip install 'napari-medt[baselines]'."""
    monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(BadModel, match=re.escape("pip install 'napari-medt[baselines]'")):
        create_net("unet")


def test_without_einops_swin_unetr_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "einops", None)
    with pytest.raises(BadModel, match="SwinUNETR needs the package einops"):
        create_net("swin-unetr")


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("unet", {"spatial_dims": 1}, "spatial_dims is 2 or 3, not 1"),
        ("unet", {"strides": (2,)}, "5 levels need 4 strides, not 1"),
        ("swin-unetr", {"width": 10}, "width is a multiple of 12, not 10"),
        ("segresnet", {"width": 12}, "width is a multiple of 8, not 12"),
    ],
)
def test_options_that_do_not_fit_say_why(name, options, text):
    with pytest.raises(BadModel, match=text):
        create_net(name, **options)


def test_monai_is_not_imported_before_it_is_needed():
    code = f"import sys, {monai_nets.__name__}; sys.exit('monai' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
