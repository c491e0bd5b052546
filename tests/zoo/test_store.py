"""Models on disk: found, verified, versioned, never overwritten."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_medt.core import BadModel, BadWeights, DeviceError, StorageError
from napari_medt.nets import create_net, list_nets
from napari_medt.zoo import check_model, list_models, load_model, models_folder, save_model, save_version, versions
from napari_medt.zoo.devices import choose_device, list_devices


def change_card(folder, **changes):
    values = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(values | changes))


def test_saved_model_gives_the_same_logits(card, net, tmp_path):
    x = torch.rand(1, 3, 32, 32)
    exact = save_model(tmp_path / "exact", card(), net, half=False)
    save_model(tmp_path / "half", card(), net)
    with torch.inference_mode():
        expected = net(x)
        assert torch.equal(load_model(tmp_path / "exact", device="cpu").net(x), expected)
        rounded = load_model(tmp_path / "half", device="cpu").net(x)
    assert (rounded - expected).abs().max() < 0.01 * expected.std()
    size = [(tmp_path / kind / "weights.safetensors").stat().st_size for kind in ("half", "exact")]
    assert size[0] < 0.6 * size[1]
    assert exact.sha256
    assert exact.created.endswith("+00:00")
    assert load_model(tmp_path / "exact", device="cpu").card == exact


@pytest.mark.parametrize("info", [i for i in list_nets() if 2 in i.spatial_dims and not i.extra], ids=lambda i: i.name)
def test_every_network_is_kept_and_passes_its_selftest(card, info):
    name = info.name
    options = {"img_size": (64, 128), "in_channels": 2, "num_classes": 3, "spatial_dims": 2}
    options = info.presets["small"] | {key: value for key, value in options.items() if key in info.defaults}
    made = card(
        architecture=name, net_options=options, classes=("background", "a", "b"), channels=("x", "y"), window=(64, 128)
    )
    save_model(models_folder() / "tiny" / "v1", made, create_net(name, **options))
    result = check_model("tiny")
    assert result.passed, result.problem
    model = load_model("tiny", device="cpu")
    assert not model.net.training
    assert model.device == torch.device("cpu")


def test_name_is_the_first_version_and_at_chooses_others(folder, net):
    first = load_model("tiny", device="cpu")
    second = save_version(first, net, notes=("Learnt.",))
    third = save_version(second, net)
    assert [second.card.key, third.card.key] == ["tiny@2", "tiny@3"]
    assert second.card.base == f"tiny@1 {first.card.sha256}"
    assert third.card.base == f"tiny@2 {second.card.sha256}"
    assert load_model("tiny", device="cpu").card.key == "tiny@1"
    assert load_model("tiny@2", device="cpu").card.notes == ("Learnt.",)
    assert [found.version for found in versions("tiny")] == [1, 2, 3]
    assert check_model("tiny@3").passed


def test_version_gives_exactly_what_the_trained_network_gave(folder, net):
    first = load_model("tiny", device="cpu")
    x = torch.rand(1, 3, 40, 24)
    with torch.inference_mode():
        assert torch.equal(save_version(first, net).net(x), net(x))


def test_version_of_a_checkpoint_file_is_found_by_its_name(folder, net):
    """There is no version 1 in any folder of ours, so the bare name means the first there is."""
    model = load_model("tiny", device="cpu")
    stranger = replace(model, card=model.card.model_copy(update={"name": "final_model"}))
    assert save_version(stranger, net).card.key == "final_model@2"
    assert load_model("final_model", device="cpu").card.key == "final_model@2"


@pytest.mark.parametrize("taken", ["v2", "v7"])
def test_number_of_a_damaged_version_is_not_given_again(folder, net, taken):
    (folder.with_name(taken)).mkdir()
    assert save_version(load_model("tiny", device="cpu"), net).card.version == int(taken[1:]) + 1


def _save_versions(home, count):
    os.environ["NAPARI_MEDT_HOME"] = home
    model = load_model("tiny", device="cpu")
    return [save_version(model, model.net).card.key for _ in range(count)]


def test_two_processes_never_get_the_same_version(folder, medt_home):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.starmap(_save_versions, [(str(medt_home), 4)] * 2)
    assert sorted([*first, *second]) == [f"tiny@{number}" for number in range(2, 10)]
    assert [found.version for found in versions("tiny")] == list(range(1, 10))
    assert sorted(path.name for path in folder.parent.iterdir()) == [f"v{number}" for number in range(1, 10)]


def test_number_taken_at_the_last_moment_is_left_to_the_other(folder, net, monkeypatch):
    """Another process takes version 2 between our look and our rename."""
    rename = Path.rename

    def late(path, target):
        if Path(target).name == "v2" and not Path(target).exists():
            Path(target).mkdir()
            (Path(target) / "theirs").write_text("first")
        return rename(path, target)

    model = load_model("tiny", device="cpu")
    monkeypatch.setattr(Path, "rename", late)
    assert save_version(model, net).card.key == "tiny@3"
    assert [path.name for path in folder.with_name("v2").iterdir()] == ["theirs"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["v1", "v2", "v3"]


def test_nothing_is_overwritten(folder, card, net):
    before = (folder / "weights.safetensors").read_bytes()
    with pytest.raises(BadModel, match=r"There is a model in .* already; choose another folder"):
        save_model(folder, card(), net)
    assert (folder / "weights.safetensors").read_bytes() == before


def test_full_disk_leaves_nothing_behind(folder, net, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    model = load_model("tiny", device="cpu")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device; free some space or choose another folder"):
        save_version(model, net)
    assert [path.name for path in folder.parent.iterdir()] == ["v1"]
    assert [found.version for found in versions("tiny")] == [1]


def test_flipped_byte_is_refused_before_it_is_read(folder, monkeypatch):
    """The weights of tiny@1 are not the ones its card names: their digest differs."""
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr("napari_medt.zoo.weights.parse_safetensors", lambda _data: pytest.fail("it was read"))
    with pytest.raises(BadWeights, match="tiny@1 are not the ones its card names: their digest differs; restore"):
        load_model("tiny")
    assert "digest differs" in check_model("tiny").problem


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"sha256": "0" * 64}, BadWeights, "their digest differs; restore the model's folder from a copy"),
        ({"sha256": ""}, BadWeights, "it names no digest"),
        ({"architecture": "gated-axial-unet"}, BadWeights, "do not fit its network; the first that differs is"),
        ({"architecture": "axial-unit"}, BadModel, "No architecture is called 'axial-unit'; did you mean 'axial-unet'"),
        ({"net_options": {"img_size": None}}, BadModel, "img_size must be whole numbers of at least 1, not None"),
        ({"net_options": {"size": 3}}, BadModel, "axial-unet has no option size"),
        (
            {"classes": ["background", "a", "b"]},
            BadModel,
            "it describes num_classes 3, but the network has 2; give num_classes in net_options, or correct the card",
        ),
        ({"channels": "grey"}, BadModel, "it describes in_channels 1, but the network has 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_card_network_and_weights_must_belong_together(folder, changes, error, sentence):
    change_card(folder, **changes)
    with pytest.raises(error, match=sentence):
        load_model("tiny")


@pytest.mark.parametrize("cut", [0, 5, 5000])
def test_cut_weights_are_refused(folder, cut):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadWeights, match="digest differs" if cut else "is empty"):
        load_model("tiny")


def test_missing_weights_are_said(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(BadWeights, match=r"weights\.safetensors cannot be read: No such file"):
        load_model("tiny")


def test_network_that_is_not_the_cards_is_not_kept(card, tmp_path):
    with pytest.raises(BadWeights, match="The weights of tiny@1 do not fit its network"):
        save_model(tmp_path / "new", card(), create_net("gated-axial-unet", img_size=32))
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_numbers_are_not_kept(card, net, tmp_path):
    next(net.parameters()).data.fill_(float("nan"))
    with pytest.raises(BadWeights, match="hold NaN or infinity"):
        save_model(tmp_path / "new", card(), net)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tny", r"No model is called 'tny'; did you mean 'tiny'\? There are: .*tiny@1"),
        ("Tiny", r"No model is called 'Tiny'; did you mean 'tiny'\?"),
        ("zzzz", r"No model is called 'zzzz'; there are: .*tiny@1"),
        ("", r"No model is called ''; there are: .*tiny@1"),
        ("tiny@9", "The model 'tiny' has no version '9'; its versions are 1"),
        ("tiny@new", "The model 'tiny' has no version 'new'; its versions are 1"),
        ("final_model.pth", r"There is no file or folder final_model\.pth; check the path"),
        ("gone/tiny", "There is no file or folder gone/tiny; check the path"),
    ],
)
def test_unknown_name_says_what_there_is(folder, name, sentence):
    with pytest.raises(BadModel, match=sentence):
        load_model(name)


def test_folder_of_the_same_name_does_not_hide_a_model(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert load_model("tiny", device="cpu").card.key == "tiny@1"
    with pytest.raises(BadModel, match=r"tiny is not a model folder: its card\.json cannot be read"):
        load_model(Path("tiny"))


@pytest.mark.parametrize("file", ["", "card.json", "weights.safetensors"])
def test_folder_and_the_files_in_it_are_taken(folder, file):
    assert load_model(str(folder / file), device="cpu").card.key == "tiny@1"


def test_options_belong_to_checkpoint_files(folder):
    with pytest.raises(BadModel, match="Architecture and options are for checkpoint files only; leave them out"):
        load_model("tiny", img_size=64)


@pytest.mark.parametrize("name", ["cuda:7", "quantum", "CPU", ""])
def test_missing_device_lists_those_that_are_there(folder, name):
    with pytest.raises(DeviceError, match=rf"no device '{name}' on this computer; choose auto or .*cpu"):
        load_model("tiny", device=name)


def test_auto_takes_the_first_device():
    assert choose_device() == torch.device(list_devices()[0])
    assert list_devices()[-1] == "cpu"


@pytest.mark.parametrize(
    ("cuda", "mps", "there", "chosen"),
    [
        (2, True, ["cuda:0", "cuda:1", "mps", "cpu"], "cuda:0"),
        (0, True, ["mps", "cpu"], "mps"),
        (0, False, ["cpu"], "cpu"),
    ],
)
def test_fastest_device_is_first(monkeypatch, cuda, mps, there, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert list_devices() == there
    assert choose_device("auto") == torch.device(chosen)
    if cuda:
        assert choose_device("cuda") == torch.device("cuda:0")


def test_device_that_cannot_take_the_network_is_said(folder, monkeypatch):
    def fail(_net, _device):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(torch.nn.Module, "to", fail)
    with pytest.raises(
        DeviceError, match=r"cpu could not take the model tiny@1: CUDA out of memory; choose the device cpu"
    ):
        load_model("tiny", device="cpu")


def test_own_models_follow_the_home_variable(medt_home):
    assert models_folder() == medt_home / "models"
    assert "tiny" not in {found.name for found in list_models()}
