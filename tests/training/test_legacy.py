"""The published command line and folder layout: what it takes, what it leaves behind, and how it complains."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
from imageio.v3 import imwrite

from napari_medt.core import BadModel, BadTrainingData, Cancel, Cancelled
from napari_medt.engine import predict
from napari_medt.measure import dice
from napari_medt.training import legacy
from napari_medt.training.legacy import _batches, read_pairs, train_from_original_arguments
from napari_medt.zoo import load_model


@pytest.fixture
def folder(tmp_path, make_discs):
    """Six images in the published layout."""
    (tmp_path / "train" / "img").mkdir(parents=True)
    (tmp_path / "train" / "labelcol").mkdir()
    for number in range(6):
        picture, ids = make_discs(number, size=(40, 48))
        imwrite(tmp_path / "train" / "img" / f"{number}.png", np.stack([picture] * 3, -1))
        imwrite(tmp_path / "train" / "labelcol" / f"{number}.png", ((ids > 0) * 255).astype(np.uint8))
    return tmp_path / "train"


@pytest.fixture
def train(folder, tmp_path, monkeypatch):
    """Train the small network under the name of a published one."""
    monkeypatch.setitem(legacy.NETS, "small", "small")

    def run(**options):
        given = {"modelname": "small", "imgsize": 32, "batch_size": 2, "epoch": 3, "train_dataset": folder}
        return train_from_original_arguments(**given | {"direc": tmp_path / "out", "device": "cpu"} | options)

    return run


@pytest.fixture
def card(make_model):
    return make_model().card


class TestTraining:
    def test_it_learns_and_leaves_a_model_and_plain_state_dicts(self, train, folder, tmp_path, make_discs):
        messages = []
        model_folder = train(
            epoch=25,
            save_freq=10,
            learning_rate=2e-2,
            val_dataset=folder,
            progress=lambda *report: messages.append(report),
        )
        model = load_model(model_folder, device="cpu")
        picture, ids = make_discs(77)
        assert dice(predict(model, picture).labels, ids) > 0.9
        assert (model.card.channels, model.card.intensity.kind, model.card.window) == ("rgb", "unit", (32, 32))
        assert model.card.training_data == "6 images of train"
        assert re.fullmatch(r"Best Dice on 6 validation images: (0\.9\d*|1\.0+)\.", model.card.notes[0])
        kept = torch.load(tmp_path / "out" / "final_model.pth", weights_only=True)
        assert all(torch.equal(value, kept[name]) for name, value in model.net.state_dict().items())
        assert set(torch.load(tmp_path / "out" / "last.pth", weights_only=True)) == set(kept)
        assert [report[:2] for report in messages] == [(number, 25) for number in range(1, 26)]
        validated = [number for number, _, message in messages if "validation Dice" in message]
        assert validated == [10, 20, 25]

    def test_the_same_call_gives_the_same_weights(self, train, tmp_path):
        one, two = (load_model(train(direc=tmp_path / name), device="cpu").net.state_dict() for name in "ab")
        assert all(torch.equal(value, two[name]) for name, value in one.items())

    def test_the_best_validated_weights_are_kept(self, train, folder, monkeypatch, tmp_path):
        given, seen = iter([0.2, 0.9, 0.4]), []

        def score(school, cancel):
            seen.append({name: value.clone() for name, value in school.model.net.state_dict().items()})
            return next(given)

        monkeypatch.setattr(legacy._School, "_dice", score)
        kept = load_model(train(val_dataset=folder, save_freq=1), device="cpu").net.state_dict()
        assert all(torch.equal(value, seen[1][name]) for name, value in kept.items())

    def test_validation_neither_learns_nor_moves_statistics(self, train, folder, tmp_path):
        """A run that looks after every epoch goes the same way as one that never looks."""
        train(val_dataset=folder, save_freq=1, direc=tmp_path / "looks")
        train(save_freq=100, direc=tmp_path / "never")
        one, two = (torch.load(tmp_path / name / "last.pth", weights_only=True) for name in ("looks", "never"))
        assert all(torch.equal(value, two[name]) for name, value in one.items())

    def test_gates_are_held_still_at_first(self, train, tmp_path, monkeypatch):
        monkeypatch.setattr(legacy, "GATES_HELD", 1)
        start = torch.tensor([0.1, 0.1, 1.0, 0.1])
        for epochs, moved in ((1, False), (2, True)):
            out = tmp_path / f"{epochs}"
            train(modelname="gatedaxialunet", epoch=epochs, direc=out)
            state = torch.load(out / "last.pth", weights_only=True)
            gates = [value for name, value in state.items() if name.endswith("gates")]
            assert len(gates) == 16
            assert any(not torch.equal(gate, start) for gate in gates) == moved

    def test_grey(self, train, make_discs):
        model = load_model(train(gray=True), device="cpu")
        assert (model.card.channels, model.net.in_channels) == ("grey", 1)
        assert predict(model, make_discs(1)[0]).labels.shape == (48, 48)

    def test_it_stops_when_the_minutes_are_over(self, train):
        seen = []
        train(epoch=10**6, max_minutes=1e-6, progress=lambda *report: seen.append(report[0]))
        assert seen == [1]

    def test_cancel(self, train, tmp_path):
        cancel = Cancel()
        with pytest.raises(Cancelled):
            train(epoch=50, cancel=cancel, progress=lambda done, *_: cancel.set() if done == 2 else None)
        assert not (tmp_path / "out" / "model").exists()


class TestReading:
    def test_hidden_and_system_files_are_passed_over(self, folder, card):
        for name in ("Thumbs.db", ".DS_Store", "._0.png", "desktop.ini"):
            (folder / "img" / name).write_bytes(b"no image")
        (folder / "img" / "subfolder").mkdir()
        assert [pair.name for pair in read_pairs(folder, card)] == [f"{n}.png" for n in range(6)]

    def test_masks_are_white_above_127_or_hold_zeros_and_ones(self, folder, card):
        imwrite(folder / "labelcol" / "0.png", np.tile(np.array([0, 126, 127, 128, 200, 255], np.uint8), (40, 8)))
        imwrite(folder / "labelcol" / "1.png", np.tile(np.array([0, 1], np.uint8), (40, 24)))
        imwrite(folder / "labelcol" / "2.png", np.full((40, 48, 3), 255, np.uint8))
        imwrite(folder / "labelcol" / "3.png", np.zeros((40, 48), np.uint8))
        pairs = read_pairs(folder, card)
        assert pairs[0].inside[0, :6].tolist() == [False, False, False, True, True, True]
        assert pairs[1].inside[0, :2].tolist() == [False, True]
        assert pairs[2].inside.all()
        assert not pairs[3].inside.any()

    def test_images_of_another_kind_find_their_mask_by_name(self, folder, card):
        (folder / "img" / "5.png").unlink()
        imwrite(folder / "img" / "5.tif", np.zeros((40, 48), np.uint16))
        assert [pair.name for pair in read_pairs(folder, card)][-1] == "5.tif"

    def test_windows_are_scaled_as_the_model_will_see_them(self, train, folder, monkeypatch):
        """Divided by 255, of the size asked for, image and mask turned alike, also of images smaller than the window."""
        seen = []
        inner = legacy._School._window
        monkeypatch.setattr(legacy._School, "_window", lambda *given: seen.append(inner(*given)) or seen[-1])
        white = np.zeros((40, 48, 3), np.uint8)
        white[5:20, 10:30] = 255
        for number in range(6):
            size = (slice(0, 20), slice(0, 25)) if number else (slice(None), slice(None))
            imwrite(folder / "img" / f"{number}.png", white[size])
            imwrite(folder / "labelcol" / f"{number}.png", white[size][..., 0])
        train(epoch=4)
        assert {tuple(image.shape) for image, _ in seen} == {(3, 32, 32)}
        assert all(torch.equal(image[0], labels.float()) for image, labels in seen)


class TestBatches:
    @pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
    @pytest.mark.parametrize("count", range(1, 10))
    def test_everything_once_and_no_one_left_alone(self, count, size):
        parts = list(_batches(np.arange(count), size))
        assert Counter(np.concatenate(parts).tolist()) == Counter(range(count))
        assert all(len(part) <= size + 1 for part in parts)
        assert size == 1 or count == 1 or min(map(len, parts)) > 1


class TestRefused:
    def test_unknown_network(self, train):
        with pytest.raises(
            BadTrainingData, match="No network is called 'unet'; choose axialunet, gatedaxialunet, logo"
        ):
            train(modelname="unet")

    def test_no_folder_given(self, train):
        with pytest.raises(BadTrainingData, match="No training images were given; give --train_dataset"):
            train(train_dataset=None)

    @pytest.mark.parametrize("name", ["img", "labelcol"])
    def test_a_folder_is_missing(self, train, folder, name):
        (folder / name).rename(folder / "elsewhere")
        with pytest.raises(BadTrainingData, match=f"has no folder {name}/; give a folder with img/ and labelcol/"):
            train()

    def test_no_images(self, train, folder):
        for path in (folder / "img").iterdir():
            path.unlink()
        with pytest.raises(BadTrainingData, match="holds no images"):
            train()

    def test_a_mask_is_missing_or_of_another_size(self, train, folder):
        imwrite(folder / "labelcol" / "2.png", np.zeros((9, 9), np.uint8))
        with pytest.raises(BadTrainingData, match=r"2\.png has \(40, 48\) pixels but its mask has \(9, 9\)"):
            train()
        (folder / "labelcol" / "2.png").unlink()
        with pytest.raises(BadTrainingData, match=r"2\.png has no mask: .*2\.png is missing"):
            train()

    def test_a_size_the_network_cannot_have(self, train):
        with pytest.raises(BadModel, match="multiple of 64, not 100 x 100"):
            train(modelname="MedT", imgsize=100)

    def test_a_finished_folder_is_not_written_over(self, train):
        train()
        with pytest.raises(BadTrainingData, match="holds a finished model already"):
            train()
