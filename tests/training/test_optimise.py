"""Loss, weight decay, learning rate, moving average, and the statistics of batch norms."""

from __future__ import annotations

import builtins
import copy
import math
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from napari_medt.core import DeviceError, MedtError
from napari_medt.nets import create_net
from napari_medt.training.optimise import (
    MovingAverage,
    background_at,
    dice_and_cross_entropy,
    frozen_norms,
    launch,
    learning_rate_at,
    net_loss,
    parameter_groups,
    refresh_norms,
    training_device,
)


def test_loss_is_dice_of_the_foreground_plus_cross_entropy():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 2, 8, 8), torch.randint(0, 2, (2, 8, 8))
    p, t = logits.softmax(1)[:, 1], labels.float()
    dice = 1 - (2 * (p * t).sum() + 1e-5) / (p.sum() + t.sum() + 1e-5)
    expected = dice + nn.functional.cross_entropy(logits, labels)
    assert dice_and_cross_entropy()(logits, labels).item() == pytest.approx(expected.item(), abs=1e-6)


def test_background_counts_as_much_as_it_is_told():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    each = nn.functional.cross_entropy(logits, labels, reduction="none")
    weight = torch.where(labels == 0, 0.1, 1.0)
    dice = dice_and_cross_entropy()(logits, labels) - each.mean()
    expected = dice + (weight * each).sum() / weight.sum()
    assert dice_and_cross_entropy(background=0.1)(logits, labels).item() == pytest.approx(expected.item(), abs=1e-6)


def test_background_rises_to_one_over_a_share_of_the_steps():
    at = [background_at(step, steps=100, start=0.01, rises=0.5) for step in (0, 25, 50, 99)]
    assert at == pytest.approx([0.01, 0.1, 1, 1])
    assert background_at(99, steps=100, start=0.01, rises=0) == 0.01


@pytest.mark.parametrize("background", [1.0, 0.05])
def test_loss_of_nothing_but_background_is_finite(background):
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    loss = dice_and_cross_entropy(background=background)(logits, torch.zeros(1, 4, 4, dtype=torch.long))
    loss.backward()
    assert math.isfinite(loss.item())
    assert torch.isfinite(logits.grad).all()


def test_without_monai_the_remedy_is_one_line(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name.startswith("monai"):
            raise ImportError("No module named 'monai'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MedtError, match=r'pip install "napari-medt\[train\]"'):
        dice_and_cross_entropy()


def test_network_with_a_loss_of_its_own_is_taught_by_it():
    def criterion(logits, labels):
        return torch.nn.functional.cross_entropy(logits, labels)

    images, labels = torch.rand(2, 3, 32, 32), torch.randint(2, (2, 32, 32))
    guided = create_net("guided-attention", preset="small", in_channels=3, num_classes=2).train()
    torch.manual_seed(0)
    expected = guided.loss(guided(images), labels, criterion)
    torch.manual_seed(0)
    torch.testing.assert_close(net_loss(guided, images, labels, criterion), expected)
    plain = create_net("attention-unet", preset="small", in_channels=3, num_classes=2).train()
    assert net_loss(plain, images, labels, criterion) == criterion(plain(images), labels)


def test_single_output_is_taught_as_a_class_against_the_background():
    def criterion(logits, labels):
        return torch.nn.functional.cross_entropy(logits, labels)

    images, labels = torch.rand(2, 1, 16, 16), torch.randint(2, (2, 16, 16))
    net = create_net("attention-unet", preset="small", num_classes=1).train()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(net(images)[:, 0], labels.float())
    torch.testing.assert_close(net_loss(net, images, labels, criterion), expected)


def test_only_convolutions_decay():
    """Gates, position tables, norms and biases are left where the data put them."""
    net = create_net("medt", img_size=64)
    decayed, free = parameter_groups(net, 0.1)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    kept = {names[id(p)] for p in free["params"]}
    for part in ("gates", "table", "norm", "bias"):
        there = {name for name in names.values() if part in name and net.get_parameter(name).requires_grad}
        assert there
        assert there <= kept
    assert all(p.ndim == 4 for p in decayed["params"])  # this one has no matrices
    learnt = sum(p.requires_grad for p in net.parameters())
    assert len(decayed["params"]) + len(free["params"]) == learnt


def test_learning_rate_rises_then_falls_to_a_thousandth():
    rates = [learning_rate_at(step, steps=100, peak=1.0, warmup=10) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1, abs=0.05)
    assert rates[-1] == pytest.approx(1e-3)


class TestMovingAverage:
    def test_forgets_the_first_weights(self):
        net = nn.Linear(1, 1, bias=False)
        nn.init.constant_(net.weight, 100.0)
        average = MovingAverage(net, 0.99)
        nn.init.constant_(net.weight, 1.0)
        for _ in range(60):
            average.update(net)
        # A plain average of this decay would still hold 100 * 0.99^60 = 55.
        assert average.state["weight"].item() == pytest.approx(1, abs=0.01)

    def test_in_the_long_run_it_is_an_exponential_average(self):
        net = nn.Linear(1, 1, bias=False)
        average = MovingAverage(net, 0.5)
        average.updates = 1000
        average.state["weight"].zero_()
        for value in (1.0, 2.0, 3.0):
            nn.init.constant_(net.weight, value)
            average.update(net)
        assert average.state["weight"].item() == pytest.approx(1 / 8 + 2 / 4 + 3 / 2)

    def test_gives_a_copy(self):
        net = nn.Linear(2, 2)
        averaged = MovingAverage(net, 0.9).network(net)
        nn.init.zeros_(net.weight)
        assert averaged.weight.abs().sum() > 0


class TestNorms:
    def test_refreshed_statistics_are_plain_means_over_batches(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3))
        nn.init.constant_(net[0].running_mean, 77)
        batches = [torch.randn(4, 3, 5, 5) * (i + 1) + i for i in range(6)]
        refresh_norms(net, [(batch, None) for batch in batches])
        means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
        variances = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches]).mean(0)
        torch.testing.assert_close(net[0].running_mean, means)
        torch.testing.assert_close(net[0].running_var, variances)
        assert net[0].momentum == 0.3
        assert not net.training

    @pytest.mark.parametrize("statistics", ["patch", "batch"])
    def test_refreshed_statistics_fit_changed_weights(self, statistics):
        """In evaluation MedT then does nearly what it does in training; with the old statistics it does not."""
        torch.manual_seed(0)
        net = create_net("medt", img_size=64, local_statistics=statistics)
        batch = torch.rand(4, 3, 64, 64)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(1.5)
            wanted = net.train()(batch)
            stale = net.eval()(batch)
            found = refresh_norms(net, [(batch, None)] * 3)(batch)
        error, error_before = ((x - wanted).std() / wanted.std() for x in (found, stale))
        assert error < 0.5 * error_before
        if statistics == "batch":  # the batch's own statistics, up to the unbiased variance
            assert error < 0.1

    def test_weights_do_not_move(self):
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        before = copy.deepcopy(dict(net.named_parameters()))
        refresh_norms(net, [(torch.randn(2, 1, 8, 8), None)])
        assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())

    def test_frozen_norms_use_and_keep_their_statistics(self):
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
        x = torch.randn(2, 1, 8, 8) + 5
        with frozen_norms(net):
            assert net[2].training
            net(x)
        assert not net.training
        assert torch.equal(net[1].running_mean, torch.zeros(2))


class TestDevice:
    def test_auto_is_cuda_or_the_processor(self):
        assert training_device().type == ("cuda" if torch.cuda.is_available() else "cpu")

    def test_apples_gpu_is_refused_with_a_reason(self, monkeypatch):
        monkeypatch.setattr("napari_medt.training.optimise.choose_device", torch.device)
        with pytest.raises(DeviceError, match="choose cpu"):
            training_device("mps")


@pytest.mark.parametrize(
    ("told", "asked", "here", "computers"),
    [
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, 2, 2, 1),  # started by Fabric
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}, 1, 2, 2),  # by torchrun on two computers
        ({}, 2, 2, 1),
    ],
)
def test_every_process_knows_how_many_there_are(monkeypatch, told, asked, here, computers):
    given = {}
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lightning_fabric.Fabric", lambda **options: given.update(options) or MagicMock())
    launch("cpu", processes=asked)
    assert (given["devices"], given["num_nodes"], given["strategy"]) == (here, computers, "ddp")
