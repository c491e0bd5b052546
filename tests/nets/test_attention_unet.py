"""Attention U-Net against the numbers of three implementations, and what its gates say."""

from __future__ import annotations

import copy
import functools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.plain.attention_unet import plain
from napari_medt.core import BadModel
from napari_medt.nets import attention_unet, capture, create_net, list_attention_sources
from napari_medt.nets.grid_attention_unet import GridGate
from napari_medt.nets.layers import BatchNormNd
from napari_medt.zoo.forms.attention_unet import FORMS

from . import golden

COMMON = golden.shared_files("attunet2d_w8.npz", "attunet2d_w64_recipe.npz")
FILES = COMMON + golden.shared_files("monai_attunet3d.npz", "oktay3d_grid.npz")
GATES = golden.shared_files("oktay2d_gate_concatenation.npz", "oktay2d_gate_concatenation_residual.npz")
NAMES = ["attunet2d_w8", "attunet2d_w64_recipe", "monai_attunet3d", "oktay3d_grid"]
OURS = {"single": 3, "multi": 3, "grid": 3, "additive": 2, "monai": 3}  # form to axes
TINY = {"in_channels": 2, "num_classes": 3, "channels": (4, 6, 8)}


@pytest.fixture(params=NAMES)
def reference(request):
    return Reference(next(iter(golden.shared_files(f"{request.param}.npz")), None))


load = functools.cache(golden.load)


class Reference:
    """Our network with the weights of a reference file, in float64, and the file's arrays."""

    def __init__(self, path):
        if path is None:
            pytest.skip("the reference files are not beside this checkout")
        self.meta, self.state, self.arrays = load(path)
        shapes = {key: tuple(value.shape) for key, value in self.state.items()}
        hits = [(form, found) for form in FORMS if (found := form.recognise(shapes))]
        assert len(hits) == 1
        self.form, (name, self.options) = hits[0]
        self.net = create_net(name, **self.options)
        self.net.load_state_dict(self.form.map_state(self.state, self.options), assign=True)
        self.turned = self.options["form"] == "grid"  # theirs is (x, y, z)
        made = golden.recipe_input((1, 3, 64, 64), 7) * 2 - 1 if path in COMMON[1:] else self.arrays["input"]
        self.x = self.turn(torch.from_numpy(made)).contiguous()

    def turn(self, x):
        return x.movedim((-3, -2, -1), (-1, -2, -3)) if self.turned else x

    def our_key(self, key):
        return next(iter(self.form.map_state({key: self.state[key]}, self.options)))

    def loss(self, logits):
        """The loss the reference gradients are of, and the logits in the reference's axes."""
        logits = self.turn(logits)
        if self.options["num_classes"] == 1:
            stored = "target" in self.arrays.files
            target = self.arrays["target"] if stored else golden.recipe_input((1, 1, 64, 64), 8) > 0.6
            return F.binary_cross_entropy_with_logits(logits, torch.from_numpy(target).double()), logits
        return F.cross_entropy(logits, torch.from_numpy(self.arrays["target"]).long()), logits


def test_evaluation_equals_reference(reference):
    exact = "out_eval_f64" in reference.arrays.files
    expected = reference.arrays["out_eval_f64" if exact else "out_eval"]
    with torch.inference_mode():
        single = reference.turn(reference.net.eval()(reference.x)).numpy()
        double = reference.turn(reference.net.double()(reference.x.double())).numpy()
    assert np.abs(double - expected).max() <= (1e-9 if exact else 1e-6) * expected.std()
    assert np.abs(single - expected).max() <= 1e-4 * expected.std()


def test_training_step_equals_reference(reference):
    net, arrays = reference.net.double().train(), reference.arrays
    loss, logits = reference.loss(net(reference.x.double()))
    loss.backward()
    stored = arrays["train_loss_f64"] if "train_loss_f64" in arrays.files else reference.meta["train_loss_f64"]
    assert loss.item() == pytest.approx(float(stored), rel=1e-9)
    if "out_train_f64" in arrays.files:
        expected = arrays["out_train_f64"]
        assert np.abs(logits.detach().numpy() - expected).max() <= 1e-9 * expected.std()
    parameters, norms = dict(net.named_parameters()), arrays["grad_l2_f64"]
    assert len(arrays["grad_names"]) == len(parameters)
    compared = 0
    for name, norm, total in zip(arrays["grad_names"], norms, arrays["grad_sum_f64"], strict=True):
        if norm > 1e-6 * norms.max():  # biases before a batch norm have none but rounding
            grad = parameters[reference.our_key(str(name))].grad
            assert grad.norm().item() == pytest.approx(norm, rel=1e-6), name
            assert grad.sum().item() == pytest.approx(total, rel=1e-6, abs=1e-6 * norm), name
            compared += 1
    assert compared > 0.55 * len(parameters)


def test_gates_equal_reference(reference):
    net = reference.net.double().eval()
    with torch.inference_mode(), capture(net) as seen:
        net(reference.x.double())
    stored = [key for key in reference.arrays.files if key.startswith("attn:")]
    found = [reference.turn(states[0].values).numpy() for states in seen.values()]
    assert len(stored) == len(found)
    # Both run from the deepest gate to the finest; the reference was stored by a float32 run.
    for key, values in zip(stored, found, strict=True):
        np.testing.assert_allclose(values, reference.arrays[key], atol=1e-5, err_msg=key)


def test_three_dimensional_model_of_monai_equals_reference():
    folder = golden.FIXTURES.parents[3] / "shared" / "golden" / "3d" / "models" / "monai_attentionunet"
    if not folder.is_dir():
        pytest.skip("the reference files are not beside this checkout")
    config = json.loads((folder / "manifest.json").read_text())["config"]
    with np.load(folder / "state.npz") as stored:
        state = {key: torch.from_numpy(stored[key]) for key in stored.files}
    form = next(form for form in FORMS if form.recognise({k: tuple(v.shape) for k, v in state.items()}))
    name, options = form.recognise({k: tuple(v.shape) for k, v in state.items()})
    assert options["channels"] == tuple(config["channels"])
    net = create_net(name, **options).eval()
    net.load_state_dict(form.map_state(state, options))
    io = np.load(folder / "io.npz")
    with torch.inference_mode(), capture(net) as seen:
        logits = net(torch.from_numpy(io["input"])).numpy()
    assert np.abs(logits - io["output0"]).max() <= 1e-4 * np.abs(io["output0"]).max()
    for level in range(3):
        key = f"attn_model_1_{'submodule_1_' * level}attention"
        np.testing.assert_allclose(seen[f"level{level}"][0].values, io[key], atol=1e-5)


@pytest.mark.parametrize("weights", ["sigmoid", "softmax"])
def test_grid_gate_equals_reference(weights):
    name = {"sigmoid": "oktay2d_gate_concatenation.npz", "softmax": "oktay2d_gate_concatenation_residual.npz"}[weights]
    paths = golden.shared_files(name)
    if not paths:
        pytest.skip("the reference files are not beside this checkout")
    _, state, arrays = golden.load(paths[0])
    gate = GridGate(2, 16, 32, (2, 2), weights).double().eval()
    gate.load_state_dict({key.replace("W.", "out."): value for key, value in state.items()})
    gate.seen = []
    x, g = (torch.from_numpy(arrays[key]).double() for key in "xg")
    with torch.inference_mode():
        out = gate(x, g).numpy()
    assert np.abs(out - arrays["out_eval_f64"]).max() <= 1e-9 * arrays["out_eval_f64"].std()
    np.testing.assert_allclose(gate.seen[0].values.numpy(), arrays["attn_f64"], atol=1e-12)


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        (6_473_322, {"preset": "paper"}),
        (6_214_151, {"preset": "paper", "form": "single"}),
        (2_135_799, {"preset": "paper", "form": "grid"}),
        (34_878_573, {"channels": (64, 128, 256, 512, 1024), "in_channels": 3, "num_classes": 1}),
        (494_278, {"form": "monai", "channels": (16, 32, 64, 128), "in_channels": 3}),
        (
            5_910_443,
            {
                "form": "monai",
                "channels": (16, 32, 64, 128, 256),
                "preset": "paper",
                "in_channels": 4,
                "num_classes": 3,
            },
        ),
        (542_931, {"preset": "small"}),
    ],
)
def test_parameter_counts_are_the_published_ones(parameters, options):
    assert sum(p.numel() for p in create_net("attention-unet", **options).parameters()) == parameters


@pytest.fixture(params=[(form, dims) for form in OURS for dims in (2, 3)], ids=lambda p: f"{p[0]}-{p[1]}d")
def net(request):
    form, dims = request.param
    torch.manual_seed(0)
    net = create_net("attention-unet", form=form, spatial_dims=dims, **TINY)
    for module in net.modules():
        if isinstance(module, BatchNormNd):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net


def image(net, n, *size):
    return torch.rand(n, 2, *size[-net.spatial_dims :])


def test_plain_form_gives_the_same_numbers(net):
    net.double().eval()
    x = image(net, 2, 5, 10, 13).double()
    with torch.inference_mode():
        torch.testing.assert_close(net(x), plain(net)(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1, 1), (9, 17, 6), (33, 65, 47)])
def test_any_size_in_and_out(net, size):
    x = image(net, 2, *size)
    with torch.inference_mode():
        both, one = net.eval()(x), net(x[1:])
    assert both.shape == (2, 3, *x.shape[2:])
    torch.testing.assert_close(both[1:], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1, 1), (9, 18, 6)])
def test_training_reaches_every_parameter_even_from_one_voxel(net, size):
    net.train()
    net(image(net, 1, *size)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_training_twice_is_the_same(net):
    def gradients():
        trained = copy.deepcopy(net).train()
        torch.manual_seed(1)
        trained(image(net, 2, 8, 8, 8)).square().mean().backward()
        return [p.grad for p in trained.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(net, dtype):
    x = image(net, 1, 9, 17, 6)
    with torch.inference_mode():
        full = net.eval()(x)
        half = copy.deepcopy(net).to(dtype)(x.to(dtype)).float()
    assert (full - half).abs().max() < 0.1 * full.abs().max()


def test_state_dict_round_trip(net):
    other = copy.deepcopy(net)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(net.state_dict())
    x = image(net, 1, 8, 8, 8)
    with torch.inference_mode():
        assert torch.equal(net.eval()(x), other.eval()(x))


def test_gates_are_kept_only_while_captured_and_change_nothing(net):
    x = image(net, 2, 9, 10, 13)
    with torch.inference_mode():
        plain_logits = net.eval()(x)
        with capture(net) as seen:
            assert torch.equal(net(x), plain_logits)
        net(x)
    sources = list_attention_sources(net)
    assert [source.name for source in sources] == list(seen)
    levels = [source.level for source in sources]
    assert levels == sorted(levels, reverse=True)
    assert {source.kind for source in sources} == {"gate"}
    assert all(len(states) == 1 for states in seen.values())
    padded = np.array(x.shape[2:]) + [-n % m for n, m in zip(x.shape[2:], multiples(net), strict=True)]
    for source in sources:
        values = seen[source.name][0].values
        assert values.shape[:2] == (2, 1)
        assert 0 <= values.min() <= values.max() <= 1
        halved = [1 if m == 1 else 2**source.level for m in multiples(net)]
        assert values.shape[2:] == tuple(padded // halved)
    assert all(module.seen is None for module in net.attention_sources().values())


def multiples(net):
    return (net.multiple,) * net.spatial_dims if isinstance(net.multiple, int) else net.multiple


def test_two_gates_a_skip_have_two_names():
    net = create_net("attention-unet", form="multi", channels=(2, 2, 2, 2, 2))
    assert [s.name for s in list_attention_sources(net)] == [f"level{n}.{k}" for n in (3, 2, 1) for k in (1, 2)]


def test_maps_lie_where_the_image_is_bright(net):
    """Convolutions that pass their first channel on make every gate follow the brightness of its own place."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            nn.init.zeros_(module.weight)
            module.weight.data[(slice(None), 0, *(k // 2 for k in module.kernel_size))] = 1
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, BatchNormNd):
            module.reset_parameters()
    size = (16, 24, 36)[-net.spatial_dims :]
    block = [slice(n // 4, n // 4 + 4) for n in size]
    x = torch.zeros(1, 2, *size)
    x[(0, 0, *block)] = 1
    query = tuple(where.start + 1 for where in block)
    with torch.inference_mode(), capture(net.eval(), query=query) as rows:
        net(x)
    with torch.inference_mode(), capture(net) as seen:
        net(x)
    for name, states in seen.items():
        values = states[0].values
        where = np.unravel_index(int(values.argmax()), values.shape)[2:]
        for place, cells, pixels, inside in zip(where, values.shape[2:], size, block, strict=True):
            assert inside.start <= (place + 0.5) * pixels / cells <= inside.stop, name
        assert torch.equal(rows[name][0], values)


def test_softmax_gates_share_one_weight_among_all_places():
    net = create_net("attention-unet", form="single", gate_weights="softmax", **TINY).eval()
    with torch.inference_mode(), capture(net) as seen:
        net(image(net, 2, 16, 24))
    values = seen["level1"][0].values
    # Interpolated from half the size, where the weights sum to one.
    torch.testing.assert_close(values.sum((1, 2, 3)), torch.full((2,), 4.0), rtol=0, atol=0.1)


def test_strides_may_differ_by_axis():
    net = create_net("attention-unet", spatial_dims=3, strides=[(1, 2, 2), 2], **TINY)
    assert net.multiple == (2, 4, 4)
    with torch.inference_mode(), capture(net.eval()) as seen:
        assert net(torch.rand(1, 2, 3, 8, 9)).shape == (1, 3, 3, 8, 9)
    assert seen["level1"][0].grid == (4, 4, 6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"form": "dot"}, "form is one of additive, monai, single, multi, grid, not 'dot'"),
        ({"spatial_dims": 4}, "spatial_dims is 2 or 3, not 4"),
        ({"channels": (8,)}, "needs at least two levels, not 1"),
        ({"channels": (8, 16), "form": "grid"}, "needs at least three levels, not 2"),
        ({"strides": (2, 2)}, "5 levels need 4 strides, not 2"),
        ({"channels": (4, 8), "strides": [(2, 2, 2)]}, "stride must be one positive number or 2 of them"),
        ({"gate_weights": "softmax"}, "the form 'additive' has sigmoid gates only"),
    ],
)
def test_options_that_do_not_fit_say_why(options, text):
    with pytest.raises(BadModel, match=text.replace("(", r"\(")):
        create_net("attention-unet", **options)


def test_no_loss_of_its_own():
    """The published loss is of the final logits alone, whatever the form."""
    assert not any(hasattr(create_net("attention-unet", form=form, **TINY), "loss") for form in attention_unet.FORMS)


@pytest.mark.parametrize("count", [1, 2], ids=["single", "multi"])
def test_authors_supervised_networks_are_recognised_and_mapped(count):
    """Keys of their networks with one or two gates a skip, with weights of our own: every key must come back."""
    options = {"form": {1: "single", 2: "multi"}[count], "channels": (4, 6, 8, 10, 12), "spatial_dims": 3}
    net = create_net("attention-unet", in_channels=1, num_classes=4, **options)
    theirs = {_authors_key(key): value for key, value in net.state_dict().items()}
    theirs = {key: v.movedim((2, 3, 4), (4, 3, 2)) if v.ndim == 5 else v for key, v in theirs.items()}
    form = next(form for form in FORMS if "ozan-oktay" in form.name)
    name, found = form.recognise({key: tuple(value.shape) for key, value in theirs.items()})
    assert (name, found) == ("attention-unet", {"in_channels": 1, "num_classes": 4, **options})
    mapped = form.map_state(theirs, found)
    assert mapped.keys() == net.state_dict().keys()
    assert all(torch.equal(mapped[key], value) for key, value in net.state_dict().items())


def _authors_key(ours):
    first, *rest = ours.split(".")
    blocks = ["conv1", "conv2", "conv3", "conv4", "center"]
    double = {"0": "conv1.0", "1": "conv1.1", "3": "conv2.0", "4": "conv2.1"}
    match first, rest:
        case "encoder", (level, place, leaf):
            return f"{blocks[int(level)]}.{double[place]}.{leaf}"
        case "bridge", (place, leaf):
            return f"gating.conv1.{place}.{leaf}"
        case "merges", (level, place, leaf):
            return f"up_concat{int(level) + 1}.conv.{double[place]}.{leaf}"
        case "gates", (level, "combine", *inner):
            return f"attentionblock{int(level) + 2}.combine_gates.{'.'.join(inner)}"
        case "gates", (level, "gates", number, *inner):
            inside = ".".join(inner).replace("out.", "W.")
            return f"attentionblock{int(level) + 2}.gate_block_{int(number) + 1}.{inside}"
        case "scales", ("0", leaf):
            return f"dsv1.{leaf}"
        case "scales", (level, leaf):
            return f"dsv{int(level) + 1}.dsv.0.{leaf}"
    return ours.replace("head", "final")


def test_unknown_key_is_named(reference):
    with pytest.raises(KeyError, match="surprise.weight"):
        reference.form.map_state(reference.state | {"surprise.weight": torch.zeros(1)}, reference.options)
