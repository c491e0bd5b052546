"""What every architecture must do, whatever it is: run over the registry, in two dimensions and in three."""

from __future__ import annotations

import copy

import pytest
import torch

from napari_medt.core import BadModel
from napari_medt.nets import capture, create_net, list_attention_sources, list_nets

NETS = [(info.name, dims) for info in list_nets() for dims in info.spatial_dims]
SIZES = {2: [(64, 64), (50, 71), (97, 130), (1, 1)], 3: [(32, 32, 32), (33, 65, 47), (1, 1, 1)]}


def options_of(name, dims, **others):
    """Options that this architecture has, of the small preset."""
    defaults = next(info.defaults for info in list_nets() if info.name == name)
    wanted = {"in_channels": 2, "num_classes": 3, "spatial_dims": dims, "img_size": 64 if dims == 2 else 32, **others}
    return {key: value for key, value in wanted.items() if key in defaults}


def build(name, dims, **others):
    torch.manual_seed(0)
    return create_net(name, preset="small", **options_of(name, dims, **others)).eval()


def usual(dims, n=2, channels=2):
    torch.manual_seed(1)
    return torch.rand(n, channels, *SIZES[dims][0])


@pytest.fixture(params=NETS, ids=lambda p: f"{p[0]}-{p[1]}d")
def case(request):
    if next(info.extra for info in list_nets() if info.name == request.param[0]):
        pytest.importorskip("monai")
    return request.param


@pytest.fixture
def net(case):
    return build(*case)


def logits_of(outputs):
    return outputs if isinstance(outputs, torch.Tensor) else outputs.logits


def loss_of(net, outputs, x):
    """The net's own loss where it has one."""
    target = (x[:, 0] > 0.5).long()
    criterion = torch.nn.functional.cross_entropy
    return net.loss(outputs, target, criterion) if hasattr(net, "loss") else criterion(outputs, target)


@pytest.mark.parametrize("index", range(4))
def test_any_size_gives_logits_of_the_same_size(case, net, index):
    sizes = SIZES[case[1]]
    if index >= len(sizes):
        pytest.skip("three sizes in three dimensions")
    with torch.inference_mode():
        logits = net(torch.rand(1, 2, *sizes[index]))
    assert logits.shape == (1, 3, *sizes[index])
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("channels", [1, 5])
def test_any_number_of_channels(case, channels):
    net = build(*case, in_channels=channels)
    with torch.inference_mode():
        assert logits_of(net(usual(case[1], 1, channels))).shape[1] == 3


def test_samples_do_not_influence_each_other_in_evaluation(case, net):
    x = usual(case[1])
    with torch.inference_mode():
        expected = net(x)[1:]
        torch.testing.assert_close(expected, net(x[1:]), rtol=1e-3, atol=1e-4 * float(expected.std()))


def test_every_trainable_parameter_gets_a_gradient(case, net):
    net.train()
    x = usual(case[1])
    loss_of(net, net(x), x).backward()
    trainable = {name: p.grad for name, p in net.named_parameters() if p.requires_grad}
    assert [name for name, grad in trainable.items() if grad is None or not torch.isfinite(grad).all()] == []


def test_state_dict_round_trip_is_exact(case, net):
    other = copy.deepcopy(net)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(net.state_dict())
    with torch.inference_mode():
        assert torch.equal(net(usual(case[1])), other(usual(case[1])))


def test_training_is_deterministic(case, net):
    def step():
        trained = copy.deepcopy(net).train()
        torch.manual_seed(1)
        x = usual(case[1])
        loss_of(trained, trained(x), x).backward()
        return [p.grad for p in trained.parameters() if p.requires_grad]

    assert all(torch.equal(a, b) for a, b in zip(step(), step(), strict=True))


def test_half_precision_weights_barely_change_the_result(case, net):
    rounded = copy.deepcopy(net)
    rounded.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in net.state_dict().items()})
    with torch.inference_mode():
        expected = net(usual(case[1]))
        assert (rounded(usual(case[1])) - expected).abs().max() < 0.05 * expected.std() + 1e-3


def test_attention_is_kept_only_while_captured(case, net):
    sources = list_attention_sources(net)
    if not sources:
        pytest.skip("shows no attention")
    assert len({source.name for source in sources}) == len(sources)
    x = usual(case[1])
    with torch.inference_mode():
        plain = net(x)
        with capture(net) as captured:
            seen = net(x)
        torch.testing.assert_close(seen, plain, rtol=1e-4, atol=1e-5 * float(plain.std()) + 1e-6)
        net(x)
    assert set(captured) == {source.name for source in sources}
    assert all(len(states) == 1 for states in captured.values())
    assert all(module.seen is None for module in net.attention_sources().values())


def test_rows_of_a_query_sum_to_one_and_gates_lie_between_zero_and_one(case, net):
    sources = list_attention_sources(net)
    if not sources:
        pytest.skip("shows no attention")
    query = tuple(size // 3 for size in SIZES[case[1]][0])
    with torch.inference_mode(), capture(net, query=query) as captured:
        net(usual(case[1]))
    for source in sources:
        (rows,) = captured[source.name]
        assert len(rows) == 2, source
        if source.kind == "gate":
            assert 0 <= rows.min() <= rows.max() <= 1, source
            continue
        assert rows.shape[1] == source.heads, source
        sums = rows.flatten(2).sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-4, msg=source.name)


def test_query_outside_the_input_and_unknown_source_are_refused(case, net):
    if not list_attention_sources(net):
        pytest.skip("shows no attention")
    with pytest.raises(ValueError, match="outside the input"), capture(net, query=(999,) * case[1]):
        net(usual(case[1], 1))
    with pytest.raises(ValueError, match="no attention source nowhere"), capture(net, ["nowhere"]):
        pass


def test_registry_tells_sizes_presets_and_sources():
    for info in list_nets():
        if info.extra:
            pytest.importorskip("monai")
        assert info.title
        assert info.paper
        assert set(info.presets) == {"small", "standard", "paper"}
        assert info.parameters > 1000
        assert info.attention
        assert info.sources or info.extra == "baselines", info.name


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
