"""From a recipe to a model folder: trained, measured on held-out images as it is stored, and loadable."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from imageio.v3 import imread, imwrite

from napari_medt.core import BadTrainingData, Cancel, Cancelled
from napari_medt.engine import predict
from napari_medt.engine.prepare import prepare
from napari_medt.io import read
from napari_medt.training import bundle, train
from napari_medt.training.data import find_data, load_samples
from napari_medt.training.recipe import read_recipe, read_split
from napari_medt.zoo import load_model


def test_a_recipe_becomes_a_model_with_the_scores_it_has(recipe_file, data, tmp_path):
    """The scores on the card are those that anyone measures again with the stored weights."""
    messages = []
    folder = train(
        recipe_file, out=tmp_path / "run", data=data, device="cpu", progress=lambda *report: messages.append(report)
    )
    model = load_model(folder, device="cpu")
    assert (model.card.name, model.card.licence, model.card.classes) == ("discs", "CC0-1.0", ("background", "disc"))
    assert "80 steps, seed 1" in model.card.recipe
    counts = {}
    for number, group in ((10, "bright"), (11, "dark")):
        found = predict(model, read(data / "discs" / "images" / f"{number}.png")).labels > 0
        true = imread(data / "discs" / "labels" / f"{number}.png") > 0
        counts[group] = (found & true).sum(), (found ^ true).sum()
    scores = {score.group: score for score in model.card.scores}
    assert set(scores) == {"bright", "dark", "all"}
    for group, (both, wrong) in counts.items():
        assert scores[group].images == 1
        assert scores[group].dice == pytest.approx(2 * both / (2 * both + wrong), abs=1e-4)
        assert scores[group].iou == pytest.approx(both / (both + wrong), abs=1e-4)
    both, wrong = np.sum(list(counts.values()), axis=0)
    assert scores["all"].f1 == pytest.approx(2 * both / (2 * both + wrong), abs=1e-4)
    assert scores["all"].dice == pytest.approx((scores["bright"].dice + scores["dark"].dice) / 2, abs=1e-4)
    assert scores["all"].dice > 0.85
    table = pd.read_csv(tmp_path / "run" / "held_out.csv", dtype={"name": str})
    assert list(table["name"]) == ["10.png", "11.png"]
    assert any("loss" in message for _, _, message in messages)


def test_weights_are_measured_as_rounded_for_storage(recipe_file, data, tmp_path, monkeypatch):
    measured = []

    def spy(model, *rest, **options):
        measured.append({name: value.clone() for name, value in model.net.state_dict().items()})
        return real(model, *rest, **options)

    real = bundle.evaluate
    monkeypatch.setattr(bundle, "evaluate", spy)
    recipe_file.write_text(
        recipe_file.read_text().replace("steps = 30", "steps = 2").replace("steps = 50", "steps = 2")
    )
    folder = train(recipe_file, out=tmp_path / "run", data=data, device="cpu")
    stored = load_model(folder, device="cpu").net.state_dict()
    assert all(torch.equal(value, measured[0][name]) for name, value in stored.items())


def test_held_out_images_are_not_read_before_the_end(recipe_file, data, tmp_path):
    """With the test images gone, the training itself still runs."""
    for number in (10, 11):
        (data / "discs" / "images" / f"{number}.png").unlink()
    recipe_file.write_text(
        recipe_file.read_text().replace("steps = 30", "steps = 2").replace("steps = 50", "steps = 2")
    )
    with pytest.raises(Exception, match=r"10\.png"):
        train(recipe_file, out=tmp_path / "run", data=data, device="cpu")
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["step"] == 4


def test_a_finished_run_is_measured_again_without_training(recipe_file, data, tmp_path):
    """A run whose end was cut off becomes a model by going on with it."""
    recipe_file.write_text(
        recipe_file.read_text().replace("steps = 30", "steps = 2").replace("steps = 50", "steps = 2")
    )
    cancel = Cancel()
    with pytest.raises(Cancelled):
        train(
            recipe_file,
            out=tmp_path / "run",
            data=data,
            device="cpu",
            cancel=cancel,
            progress=lambda done, total, message="": cancel.set() if "validation" in message and done == 4 else None,
        )
    assert not (tmp_path / "run" / "model").exists()
    folder = train(recipe_file, out=tmp_path / "run", data=data, device="cpu", resume=True)
    assert json.loads((folder / "card.json").read_text())["scores"]
    with pytest.raises(BadTrainingData, match="holds a finished model already"):
        train(recipe_file, out=tmp_path / "run", data=data, device="cpu", resume=True)


class TestData:
    def test_missing_images_say_where_to_get_them(self, recipe_file, tmp_path, monkeypatch):
        monkeypatch.delenv("NAPARI_MEDT_DATA", raising=False)
        recipe = read_recipe(recipe_file)
        with pytest.raises(BadTrainingData, match=r"get the image collection DISCS and give its folder with --data"):
            find_data(recipe)
        with pytest.raises(BadTrainingData, match=r"holds no discs with images/ and labels/; get the image collection"):
            find_data(recipe, tmp_path)

    def test_root_or_folder_by_option_or_environment(self, recipe_file, data, monkeypatch):
        recipe = read_recipe(recipe_file)
        assert find_data(recipe, data) == find_data(recipe, data / "discs") == data / "discs"
        monkeypatch.setenv("NAPARI_MEDT_DATA", str(data))
        assert find_data(recipe) == data / "discs"

    @pytest.mark.parametrize("channels", ["rgb", "grey"])
    def test_images_are_held_as_the_model_will_see_them(self, recipe_file, data, make_model, channels):
        """Training and prediction share one intensity treatment, for grey and colour files."""
        recipe = read_recipe(recipe_file).model_copy(update={"channels": channels, "net_options": {}})
        rows = read_split(recipe_file.parent / recipe.data.split)[:4]
        colour = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        imwrite(data / "discs" / "images" / "1.png", colour)
        model = make_model(intensity=recipe.intensity, channels=channels)
        for row, sample in zip(rows, load_samples(data / "discs", rows, recipe), strict=True):
            expected, _ = prepare(read(data / "discs" / "images" / row.file), model.card)
            np.testing.assert_array_equal(sample.image, expected.astype(np.float16))
            assert (sample.group, sample.unit, sample.name) == (row.group, row.field, row.file)

    def test_a_mask_of_another_size_is_named(self, recipe_file, data):
        recipe = read_recipe(recipe_file)
        imwrite(data / "discs" / "labels" / "0.png", np.zeros((5, 7), np.uint8))
        rows = read_split(recipe_file.parent / recipe.data.split)[:1]
        with pytest.raises(BadTrainingData, match=r"0\.png has \(48, 48\) samples but its mask has \(5, 7\)"):
            load_samples(data / "discs", rows, recipe)
