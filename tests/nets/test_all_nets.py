"""What every architecture must do, whatever it is: run over the registry."""

from __future__ import annotations

import copy

import pytest
import torch

from napari_medt.core import BadModel
from napari_medt.nets import create_net, list_nets
from napari_medt.nets.capture import AttentionNet, capture_attention

NETS = [info.name for info in list_nets()]
ATTENTION_NETS = [name for name in NETS if isinstance(create_net(name), AttentionNet)]


@pytest.fixture(params=NETS)
def net(request):
    torch.manual_seed(0)
    return create_net(request.param, img_size=64, in_channels=2, num_classes=3).eval()


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (50, 71), (1, 1)])
def test_any_size_gives_logits_of_the_same_size(net, size):
    x = torch.rand(2, 2, *size)
    with torch.inference_mode():
        logits = net(x)
    assert logits.shape == (2, 3, *size)
    assert torch.isfinite(logits).all()


def test_samples_do_not_influence_each_other_in_evaluation(net):
    x = torch.rand(3, 2, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)


def test_every_trainable_parameter_gets_a_gradient(net):
    net.train()
    net(torch.rand(2, 2, 64, 64)).square().mean().backward()
    trainable = {name: p.grad for name, p in net.named_parameters() if p.requires_grad}
    assert [name for name, grad in trainable.items() if grad is None or not torch.isfinite(grad).all()] == []


def test_state_dict_round_trip_is_exact(net):
    other = create_net_like(net)
    other.load_state_dict(net.state_dict())
    x = torch.rand(1, 2, 64, 64)
    with torch.inference_mode():
        assert torch.equal(net(x), other.eval()(x))


def create_net_like(net):
    other = copy.deepcopy(net)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    return other


def test_training_is_deterministic(net):
    def step():
        trained = copy.deepcopy(net).train()
        torch.manual_seed(1)
        loss = trained(torch.rand(2, 2, 64, 64)).square().mean()
        loss.backward()
        return [p.grad for p in trained.parameters() if p.requires_grad]

    assert all(torch.equal(a, b) for a, b in zip(step(), step(), strict=True))


def test_half_precision_weights_barely_change_the_result(net):
    x = torch.rand(1, 2, 64, 64)
    rounded = copy.deepcopy(net)
    rounded.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in net.state_dict().items()})
    with torch.inference_mode():
        expected = net(x)
        assert (rounded(x) - expected).abs().max() < 0.05 * expected.std() + 1e-3


@pytest.mark.parametrize("name", ATTENTION_NETS)
def test_attention_is_kept_only_while_captured(name):
    net = create_net(name, img_size=64).eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        plain = net(x)
        with capture_attention(net) as captured:
            seen = net(x)
        assert torch.equal(plain, seen)
        assert set(captured) == set(net.attention_blocks())
        for state in (s for block in captured.values() for s in (*block.height, *block.width)):
            rows = state.full()
            assert (rows >= 0).all()
            torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]), rtol=0, atol=1e-5)
        net(x)
    assert all(len(block.height) == len(block.width) == 1 for block in captured.values())
    assert all(block.height.recorder is None for block in net.attention_blocks().values())


def test_unknown_name_suggests_the_nearest():
    """No architecture is called 'metd'; did you mean 'medt'."""
    with pytest.raises(BadModel, match="did you mean 'medt'"):
        create_net("metd")


def test_unknown_option_lists_the_known_ones():
    with pytest.raises(BadModel, match="no option classes; its options are img_size, in_channels, num_classes"):
        create_net("axial-unet", classes=3)


def test_size_that_no_table_can_have_is_refused():
    with pytest.raises(BadModel, match="multiple of 64, not 100 x 100"):
        create_net("medt", img_size=100)
