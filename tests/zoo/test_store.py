"""Models on disk: found, verified, versioned, never overwritten, never half-written."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from napari_medt.core import BadModel, BadWeights, DeviceError, StorageError
from napari_medt.nets import create_net
from napari_medt.zoo import (
    Intensity,
    ModelCard,
    broken_models,
    check_model,
    list_models,
    load_model,
    models_folder,
    save_model,
    save_version,
    versions,
)


def card(**changes):
    values = {
        "name": "tiny",
        "title": "Tiny model",
        "architecture": "axial-unet",
        "net_options": {"img_size": 32},
        "classes": ("background", "thing"),
        "channels": "rgb",
        "window": (32, 32),
        "intensity": Intensity(kind="unit"),
    }
    return ModelCard(**values | changes)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return create_net("axial-unet", img_size=32).eval()


@pytest.fixture
def folder(net, medt_home):
    place = models_folder() / "tiny" / "v1"
    save_model(place, card(), net)
    return place


def own_models():
    return [found.key for found in list_models() if found.name == "tiny"]


def test_saved_model_gives_the_same_logits(net, tmp_path):
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
    assert exact.created


def test_name_is_the_first_version_and_at_chooses_others(folder, net):
    first = load_model("tiny", device="cpu")
    second = save_version(first, net, notes=("Learnt.",))
    third = save_version(first, net)
    assert [second.card.key, third.card.key] == ["tiny@2", "tiny@3"]
    assert second.card.base == f"tiny@1 {first.card.sha256}"
    assert load_model("tiny", device="cpu").card.key == "tiny@1"
    assert load_model("tiny@2", device="cpu").card.notes == ("Learnt.",)
    assert [found.version for found in versions("tiny")] == [1, 2, 3]


def _save_versions(home, count):
    os.environ["NAPARI_MEDT_HOME"] = home
    model = load_model("tiny", device="cpu")
    return [save_version(model, model.net).card.key for _ in range(count)]


def test_two_processes_never_get_the_same_version(folder, medt_home):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        made = [key for keys in pool.starmap(_save_versions, [(str(medt_home), 3)] * 2) for key in keys]
    assert sorted(made) == [f"tiny@{number}" for number in range(2, 8)]
    assert len(own_models()) == 7


def test_nothing_is_overwritten(folder, net):
    before = (folder / "weights.safetensors").read_bytes()
    with pytest.raises(BadModel, match="There is a model in .* already"):
        save_model(folder, card(), create_net("axial-unet", img_size=32))
    assert (folder / "weights.safetensors").read_bytes() == before


def test_flipped_byte_is_refused(folder):
    """The weights of tiny@1 are not the ones its card names: their digest differs."""
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadWeights, match="tiny@1 are not the ones its card names"):
        load_model("tiny")
    assert "digest differs" in check_model("tiny").problem


def test_weights_of_another_network_are_refused(folder):
    """The digest is right, but the tensors are not those of the architecture."""
    text = json.loads((folder / "card.json").read_text())
    text["architecture"] = "gated-axial-unet"
    (folder / "card.json").write_text(json.dumps(text))
    with pytest.raises(BadWeights, match="do not fit its network; the first that differs is"):
        load_model("tiny")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": 9}, r"of a format this version does not know \(9\); update napari-medt"),
        ({"classes": ["background"]}, r"classes: Tuple should have at least 2 items"),
        (
            {"net_options": {"img_size": 32, "num_classes": 5}},
            "num_classes of the network is 5, but the card describes 2",
        ),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
    ],
)
def test_card_that_does_not_fit_says_what_and_spares_the_others(folder, net, change, sentence):
    save_model(models_folder() / "other" / "v1", card(name="other"), net)
    text = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(text | change))
    with pytest.raises(BadModel, match=sentence):
        load_model("tiny")
    assert "other@1" in [found.key for found in list_models()]
    assert len(broken_models()) == 1


def test_unknown_name_suggests_the_nearest(folder):
    with pytest.raises(BadModel, match="No model is called 'tny'; did you mean 'tiny'"):
        load_model("tny")
    with pytest.raises(BadWeights, match=r"no file or folder .*final_model\.pth"):
        load_model("final_model.pth")


def test_missing_device_lists_those_that_are_there(folder):
    with pytest.raises(DeviceError, match="no device 'cuda:7' on this computer; choose auto or .*cpu"):
        load_model("tiny", device="cuda:7")


class Harmful:
    def __reduce__(self):
        return (Path("harmed").touch, ())


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"evil{suffix}"
    torch.save({"weight": Harmful()}, path)
    with pytest.raises(BadWeights, match="could harm this computer; it was not opened"):
        load_model(path)
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(BadWeights):
        load_model(path)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken"], ids=["empty", "text", "zip"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_checkpoint_gets_one_sentence(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadWeights, match="is empty|is damaged or is not"):
        load_model(path)


def test_truncated_checkpoint_gets_one_sentence(tmp_path, net):
    path = tmp_path / "cut.pth"
    torch.save(net.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadWeights, match="cut.pth is damaged"):
        load_model(path)


def test_weights_that_are_not_numbers_are_not_saved(net, tmp_path):
    next(net.parameters()).data.fill_(float("nan"))
    with pytest.raises(BadWeights, match="hold NaN or infinity"):
        save_model(tmp_path / "new", card(), net)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing_behind(folder, net, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    model = load_model("tiny", device="cpu")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        save_version(model, net)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["v1"]


def test_selftest_notices_changed_behaviour(folder, monkeypatch):
    result = check_model("tiny")
    assert result.passed
    assert result.difference < 1e-3
    monkeypatch.setattr("napari_medt.nets.axial.HEADS", 8)
    monkeypatch.setattr(torch.nn.functional, "relu", torch.nn.functional.gelu)
    assert "other results on this computer" in check_model("tiny").problem


def test_listing_models_loads_no_torch(folder):
    code = "import sys, napari_medt.zoo as z; assert z.list_models(); assert 'torch' not in sys.modules, 'torch was loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("key", [found.key for found in list_models()])
def test_bundled_model_gives_what_it_gave_when_it_was_stored(key):
    result = check_model(key)
    assert result.passed, result.problem
