"""Our rearranged networks against the same formulas written down plainly, on sizes no reference file covers."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks.plain.medt import Plain
from napari_medt.nets import create_net

CASES = [("axial-unet", 32, 48), ("gated-axial-unet", 48, 32), ("logo", 64, 64), ("medt", 64, 128)]


@pytest.fixture(params=CASES, ids=lambda case: case[0])
def pair(request):
    name, *size = request.param
    torch.manual_seed(0)
    net = create_net(name, img_size=tuple(size), in_channels=1, num_classes=4).double()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.rand(4, 1, *size, dtype=torch.float64)
    return net, Plain(net), x


def test_evaluation(pair):
    net, plain, x = pair
    torch.testing.assert_close(net.eval()(x), plain.eval()(x), rtol=1e-8, atol=1e-8)


def test_training_with_gradients_and_running_statistics(pair):
    net, plain, x = pair
    ours, theirs = net.train()(x), plain.train()(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)
    ours.square().mean().backward()
    theirs.square().mean().backward()
    reference = dict(plain.net.named_parameters())
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, reference[name].grad, rtol=1e-5, atol=1e-8, msg=name)
    buffers = dict(plain.net.named_buffers())
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], rtol=1e-8, atol=1e-10, msg=name)


def test_tables_of_another_size_are_the_same_function_stretched():
    """At the size the tables were made for, feeding that size and interpolating to it must agree."""
    torch.manual_seed(0)
    small = create_net("gated-axial-unet", img_size=32).eval()
    large = create_net("gated-axial-unet", img_size=64).eval()
    state = copy.deepcopy(small.state_dict())
    for name, value in large.state_dict().items():
        if name.endswith(".table"):
            size = value.shape[-1]
            state[name] = torch.nn.functional.interpolate(state[name][None], size, mode="linear", align_corners=True)[0]
    large.load_state_dict(state)
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(small(x), large(x), rtol=1e-4, atol=1e-5)
