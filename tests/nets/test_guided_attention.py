"""Multi-scale guided attention against the numbers of the released network, and what its attention says."""

from __future__ import annotations

import copy
import functools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.plain.guided_attention import plain
from napari_medt.core import BadModel
from napari_medt.nets import capture, create_net, list_attention_sources
from napari_medt.nets.dual_attention import ChannelAttention, PositionAttention
from napari_medt.nets.guided_attention import SCALES, AutoEncoder, GuidedOutputs
from napari_medt.zoo.forms.guided_attention import FORM, our_key
from tests.nets.memory import Largest

from . import golden

PATHS = golden.shared_files("msga_c16.npz")
TINY = {
    "width": 8,
    "stem": 8,
    "blocks": (1, 1, 1, 1),
    "groups": 2,
    "base_width": 32,
    "in_channels": 2,
    "num_classes": 3,
}


def make(**options):
    """A tiny network whose attentions are switched on and whose batch norms have statistics."""
    torch.manual_seed(0)
    net = create_net("guided-attention", **(TINY | options))
    for module in net.modules():
        if isinstance(module, PositionAttention | ChannelAttention):
            nn.init.constant_(module.gamma, 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net


# ----------------------------------------------------------------------------------------------- the released network

load = functools.cache(golden.load)


@pytest.fixture
def reference():
    """Our network with the weights of the reference file, and the file."""
    if not PATHS:
        pytest.skip("the reference file is not beside this checkout")
    meta, state, arrays = load(PATHS[0])
    name, options = FORM.recognise({key: tuple(value.shape) for key, value in state.items()})
    net = create_net(name, **options)
    net.load_state_dict(FORM.map_state(state, options))
    return SimpleNamespace(net=net, meta=meta, state=state, arrays=arrays, x=torch.from_numpy(arrays["input"]))


def test_evaluation_equals_reference(reference):
    expected = reference.arrays["out_eval_f64"]
    with torch.inference_mode():
        single = reference.net.eval()(reference.x).numpy()
        double = reference.net.double()(reference.x.double()).numpy()
    assert np.abs(double - expected).max() <= 1e-9 * expected.std()
    assert np.abs(single - expected).max() <= 1e-4 * expected.std()


def test_training_step_equals_reference(reference):
    net, arrays = reference.net.double().train(), reference.arrays
    outputs = net(reference.x.double())
    loss = net.loss(outputs, torch.from_numpy(arrays["target"]), F.cross_entropy)
    loss.backward()
    assert loss.item() == pytest.approx(arrays["train_loss_f64"][0], rel=1e-9)
    for name, output in (
        ("predict1", outputs.coarse[3]),
        ("predict4", outputs.coarse[0]),
        ("predict1_2", outputs.refined[3]),
        ("predict4_2", outputs.refined[0]),
    ):
        np.testing.assert_allclose(output[:1].detach(), arrays[f"train:{name}"], rtol=0, atol=1e-9, err_msg=name)
    parameters, norms = dict(net.named_parameters()), arrays["grad_l2_f64"]
    assert {our_key(str(name)) for name in arrays["grad_names"]} == set(parameters)
    for name, norm, total in zip(arrays["grad_names"], norms, arrays["grad_sum_f64"], strict=True):
        if norm > 1e-6 * norms.max():  # biases before a batch norm have none but rounding
            grad = parameters[our_key(str(name))].grad
            assert grad.norm().item() == pytest.approx(norm, rel=1e-6), name
            assert grad.sum().item() == pytest.approx(total, rel=1e-6, abs=1e-6 * norm), name


def test_all_thirty_two_outputs_of_training_equal_reference(reference):
    """Latents alternate by step from scale 4 on; the other outputs of a step come from scale 1 on."""
    with torch.no_grad():
        outputs = reference.net.double().train()(reference.x.double())
    found = {f"predict{scale}": value for scale, value in zip(SCALES, outputs.coarse, strict=True)}
    found |= {f"predict{scale}_2": value for scale, value in zip(SCALES, outputs.refined, strict=True)}
    for step in (0, 1):
        for index, scale in enumerate(SCALES):
            found[f"semVector_{step + 1}_{index + 1}"] = outputs.latents[step][index::4]
            found[f"inp_enc{4 * step + scale - 1}"] = outputs.inputs[step][index::4]
            found[f"out_enc{4 * step + scale - 1}"] = outputs.reconstructions[step][index::4]
    assert set(found) == set(reference.meta["train_output_order"])
    for name, value in found.items():
        expected = reference.arrays[f"train_sum:{name}"]
        assert value.norm().item() == pytest.approx(expected[1], rel=1e-9), name
        assert value.sum().item() == pytest.approx(expected[0], rel=1e-9, abs=1e-9 * expected[1]), name


def test_attention_equals_reference(reference):
    arrays = reference.arrays
    with torch.inference_mode(), capture(reference.net.eval()) as seen:
        reference.net(reference.x)
    for step in (1, 2):
        for scale in SCALES:
            (position,), (channel,) = (seen[f"step{step}.scale{scale}.{kind}"] for kind in ("position", "channel"))
            assert position.grid == (32, 24)
            rows = np.stack([position.row(divmod(index, 24))[0].flatten() for index in QUERIES])
            np.testing.assert_allclose(rows, arrays[f"attnrows:pam_attention_{step}_{scale}"][0], atol=1e-6)
            mean = arrays[f"attncolmean:pam_attention_{step}_{scale}"][0]
            np.testing.assert_allclose(position.received()[0].flatten(), mean, atol=1e-7)
            np.testing.assert_allclose(channel.full()[0], arrays[f"attn:cam_attention_{step}_{scale}"][0], atol=2e-5)
    for key, source in (("conv8_1", "step1.scale4"), ("conv8_4", "step1.scale1"), ("conv8_11", "step2.scale4")):
        strength = np.sqrt((arrays[f"feat:{key}"][0] ** 2).mean(0))
        np.testing.assert_allclose(seen[f"{source}.guided"][0].values[0, 0], strength / strength.max(), atol=1e-5)


QUERIES = (0, 256, 767)  # stored rows of the reference


def test_only_tensors_that_never_learn_are_dropped(reference):
    dropped = {key.split(".")[0] for key in reference.state if our_key(key) is None}
    assert dropped == set(reference.meta["params_without_grad"])
    ours = sum(p.numel() for p in reference.net.parameters())
    assert ours == reference.meta["params_total"] - reference.meta["n_params_without_grad"]


def test_unknown_key_is_named(reference):
    with pytest.raises(KeyError, match="conv9_1.weight"):
        FORM.map_state(reference.state | {"conv9_1.weight": torch.zeros(1)}, {})


def test_other_forms_are_not_recognised():
    assert FORM.recognise({"conv1.weight": (8, 3, 7, 7)}) is None


def test_parameter_count_is_the_published_one():
    """The released network has 104,511,475, of which 955,412 never learn; its encoder has 86,736,064."""
    with torch.device("meta"):
        net = create_net("guided-attention", preset="paper", num_classes=5)
    assert sum(p.numel() for p in net.parameters()) == 104_511_475 - 955_412
    assert sum(p.numel() for p in net.backbone.parameters()) == 86_736_064


def test_small_preset_is_small():
    assert 300_000 < sum(p.numel() for p in create_net("guided-attention", preset="small").parameters()) < 1_500_000


# ------------------------------------------------------------------------------------------------------ the same numbers


def test_plain_form_gives_the_same_numbers():
    net = make().double().eval()
    x = torch.rand(2, 2, 96, 64).double()
    with torch.inference_mode():
        torch.testing.assert_close(net(x), plain(net)(x), rtol=1e-10, atol=1e-12)


def test_batched_autoencoder_equals_one_scale_after_the_other():
    torch.manual_seed(0)
    batched = AutoEncoder(4).double()
    looped = copy.deepcopy(batched)
    for module in looped.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.groups = 1
    x = torch.rand(3, 4, 4, 8, 12).double()
    latent, out = (tensor.unflatten(0, (3, 4)) for tensor in batched(x.flatten(0, 1)))
    for scale in range(4):
        expected_latent, expected = looped(x[:, scale])
        torch.testing.assert_close(latent[:, scale], expected_latent, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(out[:, scale], expected, rtol=1e-10, atol=1e-12)
    for (name, ours), theirs in zip(batched.named_buffers(), looped.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, msg=name)


def test_gradients_of_position_attention_equal_the_written_out_form():
    torch.manual_seed(0)
    net = PositionAttention(16).double()
    nn.init.constant_(net.gamma, 0.7)
    x = torch.randn(2, 16, 9, 7, dtype=torch.float64, requires_grad=True)
    q, k, v = (conv(x).flatten(2) for conv in (net.query, net.key, net.value))
    expected = (v @ (q.mT @ k).softmax(-1).mT).view_as(x) * net.gamma + x
    leaves = [x, *net.parameters()]
    torch.testing.assert_close(net(x), expected)
    for ours, theirs in zip(
        torch.autograd.grad(net(x).square().sum(), leaves),
        torch.autograd.grad(expected.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_training_never_holds_the_matrix(dtype):
    """4,160 places: the matrix would have 17 million elements."""
    net = PositionAttention(8).to(dtype)
    x = torch.rand(1, 8, 65, 64, dtype=dtype, requires_grad=True)
    with Largest() as seen:
        net(x).sum().backward()
    assert 0 < seen.elements <= 10 * x.numel()


def test_the_whole_network_holds_no_matrix():
    """256 x 288: 4,608 places in every attention."""
    net = make().eval()
    with torch.inference_mode(False), torch.no_grad(), Largest() as seen, capture(net) as captured:
        net(torch.rand(1, 2, 256, 288))
    assert captured["step2.scale1.position"][0].grid == (64, 72)
    assert 0 < seen.elements < 64 * 72 * 64 * 72 / 10


# -------------------------------------------------------------------------------------------------- what attention says


def test_position_attention_shows_where_a_place_looks():
    """Places of channel 0 are looked at, by places of channel 1 alone."""
    net = PositionAttention(8)
    for conv in (net.query, net.key, net.value):
        nn.init.zeros_(conv.weight), nn.init.zeros_(conv.bias)
    net.key.weight.data[0, 0], net.query.weight.data[0, 1], net.value.weight.data[5, 0] = 30.0, 1.0, 1.0
    nn.init.ones_(net.gamma)
    x = torch.zeros(2, 8, 5, 11)
    x[1, 0, 3, 9] = x[1, 1, 1, 2] = 1.0
    net.seen = []
    with torch.inference_mode():
        out = net(x)
    looking, idle = net.seen[0].row((1, 2), 1)[0], net.seen[0].row((2, 1), 1)[0]
    assert looking.shape == (5, 11)
    assert looking[3, 9] > 0.999
    torch.testing.assert_close(idle, torch.full((5, 11), 1 / 55))
    assert out[1, 5, 1, 2] > 0.999
    assert out[1, 5, 2, 1] == pytest.approx(1 / 55)


def test_channel_attention_turns_to_the_least_alike():
    x = torch.zeros(1, 8, 4, 4)
    x[:, :7] = 1.0  # seven equal channels and an empty one
    net = ChannelAttention()
    nn.init.ones_(net.gamma)
    net.seen = []
    out = net(x)
    weights = net.seen[0].full()[0]
    assert (weights[:7, 7] > 0.999).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(8))
    assert net.seen[0].received()[0, 7] > 0.8
    torch.testing.assert_close(out[0, 0], torch.ones(4, 4))  # 1 of itself, next to nothing of the empty channel


def test_channel_attention_does_not_overflow_in_half_precision():
    x = (torch.rand(1, 8, 32, 32) * 100).half()  # sums of squares beyond 65,504
    net = ChannelAttention().half()
    nn.init.ones_(net.gamma)
    assert torch.isfinite(net(x)).all()


def test_every_kind_is_shown_at_every_scale_and_step():
    net = make().eval()
    x = torch.rand(2, 2, 70, 40)
    with torch.inference_mode():
        expected = net(x)
        with capture(net, query=(69, 0)) as rows:
            torch.testing.assert_close(net(x), expected, rtol=0, atol=0)
    sources = list_attention_sources(net)
    assert [source.name for source in sources] == list(rows)
    assert len(rows) == 2 * 4 * 3
    shapes = {"position": (2, 1, 24, 16), "channel": (2, 1, 8), "gate": (2, 1, 24, 16)}
    for source in sources:
        (row,) = rows[source.name]
        assert row.shape == shapes[source.kind]
        total = row.flatten(1).amax(1) if source.kind == "gate" else row.flatten(1).sum(1)
        torch.testing.assert_close(total, torch.ones(2), rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- sizes and loss


@pytest.mark.parametrize("size", [(1, 1), (33, 65), (96, 32)])
@pytest.mark.parametrize("n", [1, 2])
def test_any_size_trains_and_predicts(size, n):
    net = make()
    x = torch.rand(n, 2, *size)
    outputs = net.train()(x)
    assert isinstance(outputs, GuidedOutputs)
    assert {tuple(o.shape) for o in (outputs.logits, *outputs.coarse, *outputs.refined)} == {(n, 3, *size)}
    net.loss(outputs, torch.zeros(n, *size, dtype=torch.int64), F.cross_entropy).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    with torch.inference_mode():
        logits = net.eval()(x)
    assert logits.shape == (n, 3, *size)
    assert torch.isfinite(logits).all()


def test_training_and_evaluation_agree_on_the_mean_of_the_scales():
    net = make().double().train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = torch.rand(1, 2, 70, 40).double()
    with torch.no_grad():
        outputs = net(x)
        torch.testing.assert_close(net.eval()(x), outputs.logits)
        torch.testing.assert_close(torch.stack(outputs.refined).mean(0), outputs.logits)


def test_loss_sums_the_guided_and_the_reconstruction_terms_of_every_scale():
    net = make().train()
    outputs = net(torch.rand(2, 2, 64, 64))
    target = torch.zeros(2, 64, 64, dtype=torch.int64)
    expected = sum(10.0 + 0.25 * F.mse_loss(outputs.latents[0][k::4], outputs.latents[1][k::4]) for k in range(4))
    for made, wanted in zip(outputs.reconstructions, outputs.inputs, strict=True):
        expected = expected + sum(0.1 * F.mse_loss(made[k::4], wanted[k::4]) for k in range(4))
    torch.testing.assert_close(net.loss(outputs, target, lambda logits, _: logits.sum() * 0 + 5), expected)


def test_it_learns():
    net = make().train()
    x = torch.rand(2, 2, 32, 32)
    x[:, :, 8:20, 12:24] += 1
    target = (x[:, 0] > 1).long()
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(10):
        optimiser.zero_grad()
        net.loss(net(x), target, F.cross_entropy).backward()
        optimiser.step()
    agreement = (net(x).logits.argmax(1) == target).float().mean()
    assert agreement > 0.97


# --------------------------------------------------------------------------------------------------------------- options


class TwoStrides(nn.Module):
    """Five features, as the residual networks of timm give them, and what timm tells of them."""

    def __init__(self, in_chans, reductions=(2, 4, 8, 16, 32)):
        super().__init__()
        self.channels = [4 + level for level in range(len(reductions))]
        self.reductions = reductions
        before = [in_chans, *self.channels[:-1]]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(before, self.channels, strict=True))
        self.feature_info = SimpleNamespace(reduction=lambda: list(reductions), channels=lambda: self.channels)

    def forward(self, x):
        features = []
        for conv in self.convs:
            x = conv(x)
            features.append(x)
        return features


def fake_timm(monkeypatch, **more):
    def create_model(name, *, features_only, in_chans):
        assert features_only
        if name != "known":
            raise RuntimeError(f"Unknown model ({name})")
        return TwoStrides(in_chans, **more)

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))


def test_encoder_of_timm_gives_the_four_scales(monkeypatch):
    fake_timm(monkeypatch)
    net = create_net("guided-attention", backbone="timm:known", width=8, in_channels=2).eval()
    assert net.backbone.channels == (5, 6, 7, 8)
    with torch.inference_mode():
        assert net(torch.rand(1, 2, 40, 50)).shape == (1, 2, 40, 50)


def test_encoder_without_four_scales_is_refused(monkeypatch):
    """known of timm gives features at 1/2, 1/4, 1/8, not at 1/4, 1/8, 1/16 and 1/32."""
    fake_timm(monkeypatch, reductions=(2, 4, 8))
    with pytest.raises(BadModel, match="gives features at 1/2, 1/4, 1/8, not at"):
        create_net("guided-attention", backbone="timm:known")


def test_encoder_unknown_to_timm_is_refused(monkeypatch):
    """timm cannot make an encoder of 'other' (Unknown model (other)); choose one of timm.list_models()."""
    fake_timm(monkeypatch)
    with pytest.raises(BadModel, match="cannot make an encoder of 'other'"):
        create_net("guided-attention", backbone="timm:other")


def test_missing_timm_is_said_with_the_way_out(monkeypatch):
    """The encoder timm:resnet34 needs timm, which cannot be imported; install it with: pip install timm."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadModel, match="install it with: pip install timm"):
        create_net("guided-attention", backbone="timm:resnet34")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 12}, "width must be a multiple of 8, not 12"),
        ({"backbone": "vgg"}, "backbone must be 'resnext' or 'timm:<name>', not 'vgg'"),
        ({"blocks": (1, 2)}, "four stages of at least one block, not (1, 2)"),
        ({"stem": 4, "base_width": 8}, "a stem of 4 channels leaves groups of base width 8 without a channel"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(BadModel) as error:
        create_net("guided-attention", **options)
    assert message in str(error.value)
