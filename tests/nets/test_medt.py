"""The Medical Transformer family against the numbers of its released implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_medt.nets import create_net
from napari_medt.nets.axial import AxialAttention
from napari_medt.nets.capture import capture
from napari_medt.nets.medt import from_patches, to_patches
from napari_medt.zoo.forms.medt import map_state, our_key, recognise

from . import golden

FILES = sorted(golden.FIXTURES.glob("recipe_*.npz")) + golden.shared_files("MedT.npz", "axialunet.npz", "logo.npz")
TRAINING_FILES = [path for path in FILES if "256" not in path.name]


def build(path):
    meta, state, arrays = golden.load(path)
    architecture, options = recognise({key: tuple(value.shape) for key, value in state.items()})
    net = create_net(architecture, **options)
    net.load_state_dict(map_state(state, options))
    return net, meta, arrays


def image(net, arrays):
    size = (
        net.get_submodule("global_encoder" if hasattr(net, "global_encoder") else "encoder").layers[0][0].height.length
        * 2
    )
    made = arrays["input"] if "input" in arrays.files else golden.recipe_input((1, 3, size, size), 7)
    return torch.from_numpy(made)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_evaluation_equals_reference(path):
    net, _, arrays = build(path)
    x = image(net, arrays)
    exact = "out_eval_f64" in arrays.files
    expected = arrays["out_eval_f64" if exact else "out_eval"]
    with torch.inference_mode():
        single = net.eval()(x).numpy()
        double = net.double()(x.double()).numpy()
    # Files made by procedure keep their float64 result rounded to float32.
    assert np.abs(double - expected).max() <= (1e-9 if exact else 1e-6) * expected.std()
    assert np.abs(single - expected).max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("path", TRAINING_FILES, ids=lambda p: p.stem)
def test_training_step_equals_reference(path):
    net, meta, arrays = build(path)
    x = image(net, arrays).double()
    if "target" in arrays.files:
        target = torch.from_numpy(arrays["target"])
        expected_loss = float(arrays["train_loss_f64"])
    else:
        noise = golden.recipe_input((1, *x.shape[-2:]), 8)
        target = torch.from_numpy(np.floor(noise * meta["num_classes"]))
        expected_loss = meta["train_loss_f64"]
    net.double().train()
    loss = nn.functional.cross_entropy(net(x), target.long())
    loss.backward()
    assert loss.item() == pytest.approx(expected_loss, rel=1e-9)

    branches = hasattr(net, "local_encoder")
    parameters = dict(net.named_parameters())
    norms = arrays["grad_l2_f64"]
    compared = 0
    for name, norm in zip(arrays["grad_names"], norms, strict=True):
        key = our_key(str(name), two_branches=branches)
        if key is None or norm <= 1e-6 * norms.max():
            continue
        stem, _, leaf = key.rpartition(".")
        grad = parameters[stem].grad[int(leaf)] if stem.endswith(".gates") else parameters[key].grad
        assert grad.norm().item() == pytest.approx(norm, rel=1e-6), name
        compared += 1
    assert compared > 150

    if "bn_after_sum_f64" in arrays.files:
        buffers = dict(net.named_buffers())
        for name, total in zip(arrays["bn_after_names"], arrays["bn_after_sum_f64"], strict=True):
            found = buffers[our_key(str(name), two_branches=branches)].double().sum().item()
            assert found == pytest.approx(total, rel=1e-9, abs=1e-9), name


@pytest.mark.parametrize("path", golden.shared_files("MedT.npz", "axialunet.npz", "logo.npz"), ids=lambda p: p.stem)
def test_attention_equals_reference(path):
    net, meta, arrays = build(path)
    net.double().eval()
    with torch.inference_mode(), capture(net) as captured:
        net(image(net, arrays).double())
    two_branches = hasattr(net, "local_encoder")
    assert meta["attention"]
    stored = [record for record in meta["attention"] if "key" in record]
    for record in stored:
        name, _, patch = record["name"].partition("@patch")
        layer, axis = name.rsplit(".", 1)
        branch = "" if not two_branches else "local." if "_p" in layer else "global."
        state = captured[f"{branch}{layer.replace('_p', '')}.{'height' if axis == 'hight_block' else 'width'}"][0]
        found = state.full(int(patch or 0))[:, record["rows"]].transpose(0, 1).numpy()  # (lines, heads, K, K)
        np.testing.assert_allclose(found, arrays[record["key"]], atol=1e-5)  # the reference was stored by a float32 run
        np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("axial-unet", 1_326_850), ("gated-axial-unet", 1_326_914), ("logo", 1_529_498), ("medt", 1_524_570)],
)
def test_parameter_counts_are_the_published_ones(name, parameters):
    # Published totals less tensors that take no part: 34 in LoGo, 35,570 in MedT.
    assert sum(p.numel() for p in create_net(name).parameters()) == parameters


def test_patches_are_cut_row_by_row_and_put_back():
    x = torch.arange(2 * 3 * 8 * 16, dtype=torch.float32).view(2, 3, 8, 16)
    patches = to_patches(x)
    assert torch.equal(patches[16 + 4 * 1 + 2], x[1, :, 2:4, 8:12])
    assert torch.equal(from_patches(patches), x)


def test_patch_statistics_equal_a_loop_over_patches():
    """One batched pass of 16 patches must leave outputs and running statistics as 16 passes in a row do."""
    torch.manual_seed(0)
    together = AxialAttention(32, 8, axis="height", kind="gated", groups=4).double().train()
    apart = AxialAttention(32, 8, axis="height", kind="gated").double().train()
    apart.load_state_dict(together.state_dict())
    x = torch.randn(3, 4, 32, 8, 8, dtype=torch.float64)
    batched = together(x.flatten(0, 1)).view_as(x)
    for patch in range(4):
        torch.testing.assert_close(batched[:, patch], apart(x[:, patch]), rtol=1e-10, atol=1e-10)
    for (name, a), b in zip(together.named_buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=name)


def test_positional_kernel_has_the_gradient_of_its_forward(monkeypatch):
    monkeypatch.setattr("napari_medt.nets.axial_kernel.CHUNK_ELEMENTS", {"cpu": 2 * 5**2})
    from napari_medt.nets.axial_kernel import PositionalAttention

    torch.manual_seed(0)
    for channels in (1, 2, 3):
        shapes = [(7, 5, channels)] * 2 + [(7, channels, 5)] * 2 + [(7, 5, 2 * channels)]
        shapes += [(channels, 5, 5)] * 2 + [(2 * channels, 5, 5)]
        inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        assert torch.autograd.gradcheck(PositionalAttention.apply, inputs)
