"""From a recipe to a model folder: trained, measured on held-out images as it is stored, and loadable."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from imageio.v3 import imread, imwrite

from napari_medt.core import BadTrainingData, Cancel, Cancelled, MedtError
from napari_medt.engine import predict
from napari_medt.engine.prepare import prepare
from napari_medt.io import read
from napari_medt.training import bundle, train
from napari_medt.training.card_entries import learnt_from, name_of
from napari_medt.training.data import find_data, load, load_samples, to_classes, to_sample
from napari_medt.training.datasets import find_cases
from napari_medt.training.recipe import read_recipe
from napari_medt.zoo import Intensity, load_model


def test_a_recipe_becomes_a_model_with_the_scores_it_has(recipe_file, data, tmp_path):
    """The scores on the card are those that anyone measures again with the stored weights."""
    messages = []
    folder = train(
        recipe_file, out=tmp_path / "run", data=data, device="cpu", progress=lambda *report: messages.append(report)
    )
    model = load_model(folder, device="cpu")
    assert (model.card.name, model.card.licence, model.card.classes) == ("discs", "CC0-1.0", ("background", "disc"))
    assert model.card.recipe == "discs.toml, which is none of the project's own recipes, 80 steps, seed 1"
    assert model.card.intended_use == "tests Research use; not a medical device."
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
    assert list(table["name"]) == ["10", "11"]
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
    """With the test images damaged, the training itself still runs."""
    for number in (10, 11):
        (data / "discs" / "images" / f"{number}.png").write_bytes(b"no picture")
    recipe_file.write_text(
        recipe_file.read_text().replace("steps = 30", "steps = 2").replace("steps = 50", "steps = 2")
    )
    with pytest.raises(BadTrainingData, match="The case 10 cannot be used"):
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


def test_held_out_images_that_are_missing_are_told_at_once(recipe_file, data, tmp_path):
    (data / "discs" / "images" / "10.png").unlink()
    with pytest.raises(BadTrainingData, match=r"10\.png stands in split\.csv, but there is no image"):
        train(recipe_file, out=tmp_path / "run", data=data, device="cpu")


class TestData:
    def test_missing_images_say_where_to_get_them(self, recipe_file, tmp_path, monkeypatch):
        monkeypatch.delenv("NAPARI_MEDT_DATA", raising=False)
        recipe, beside = read_recipe(recipe_file), recipe_file.parent
        with pytest.raises(BadTrainingData, match=r"get the image collection DISCS and give its folder with --data"):
            find_data(recipe, beside=beside)
        with pytest.raises(
            BadTrainingData, match=r"holds no discs: .*no layout that is understood; get the image coll"
        ):
            find_data(recipe, tmp_path, beside=beside)

    def test_root_or_folder_by_option_or_environment(self, recipe_file, data, monkeypatch):
        recipe, beside = read_recipe(recipe_file), recipe_file.parent
        found = find_data(recipe, data, beside=beside)
        assert found.folder == find_data(recipe, data / "discs", beside=beside).folder == data / "discs"
        assert [len(found.on(side)) for side in ("train", "validation", "test")] == [8, 2, 2]
        monkeypatch.setenv("NAPARI_MEDT_DATA", str(data))
        assert find_data(recipe, beside=beside).folder == data / "discs"

    @pytest.mark.parametrize("channels", ["rgb", "grey"])
    def test_images_are_held_as_the_model_will_see_them(self, recipe_file, data, make_model, channels):
        """Training and prediction share one intensity treatment, for grey and colour files."""
        recipe = read_recipe(recipe_file).model_copy(update={"channels": channels, "net_options": {}})
        colour = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        imwrite(data / "discs" / "images" / "1.png", colour)
        model = make_model(intensity=recipe.intensity, channels=channels)
        found = find_data(recipe, data, beside=recipe_file.parent)
        for case, sample in zip(found.on("train"), load_samples(found, "train", recipe), strict=True):
            expected, _ = prepare(read(case.images[0]), model.card)
            np.testing.assert_array_equal(sample.image, expected.astype(np.float16))
            assert (sample.group, sample.unit, sample.name) == (case.group, f"patient {case.patient}", case.name)

    def test_scans_are_held_on_the_grid_of_the_model(self, recipe_file, tmp_path):
        """Turned, resampled and cropped to the body, image and mask alike."""
        import nibabel

        changes = {
            'channels = "rgb"': 'channels = "grey"',
            "in_channels = 3": "in_channels = 1",
            "window = [32, 32]": "window = [16, 16, 16]\nspacing = [2.0, 2.0, 2.0]",
            "seed = 1": 'orientation = "SPL"\ncrop = "foreground"\nseed = 1',
        }
        text = recipe_file.read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        recipe_file.write_text(text)
        recipe = read_recipe(recipe_file)
        ct = np.full((80, 70, 30), -1000, np.int16)
        ct[20:60, 20:50, 5:25] = 40
        mask = np.zeros(ct.shape, np.uint8)
        mask[30:50, 30:40, 10:20] = 1
        affine = np.diag([1.0, 1.0, 4.0, 1.0])
        (tmp_path / "ct" / "images").mkdir(parents=True)
        (tmp_path / "ct" / "labels").mkdir()
        for folder, array in (("images", ct), ("labels", mask)):
            nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "ct" / folder / "a.nii.gz")
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"folder": "ct", "split": ""})})
        (case,) = find_data(recipe, tmp_path, beside=tmp_path).cases
        sample = to_sample(*load(case, recipe), recipe.to_card(), case=case)
        assert sample.labels.shape == sample.shape
        assert sample.shape < (60, 35, 40)  # smaller than the scan at 2 mm
        assert sample.labels.sum() * 8 == pytest.approx(mask.sum() * 4, rel=0.15)
        assert sample.image[0][sample.labels > 0].min() == 1

    def test_a_mask_of_another_size_is_named(self, recipe_file, data):
        recipe = read_recipe(recipe_file)
        imwrite(data / "discs" / "labels" / "0.png", np.zeros((5, 7), np.uint8))
        with pytest.raises(MedtError, match="The case 0 cannot be used: The mask of 5 x 7"):
            load_samples(find_data(recipe, data, beside=recipe_file.parent), "train", recipe)

    def test_masks_that_do_not_show_what_is_to_be_learnt(self, recipe_file, data):
        """As black and white masks, where a recipe wants 1."""
        recipe = read_recipe(recipe_file)
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"values": {"disc": (255,)}})})
        found = find_data(recipe, data, beside=recipe_file.parent)
        with pytest.raises(BadTrainingData, match=r"shows the class disc; say under data\.values"):
            load_samples(found, "train", recipe)
        assert len(load_samples(found, "validation", recipe)) == 2


class TestClasses:
    def test_by_place_by_value_and_by_anything(self, recipe_file):
        recipe = read_recipe(recipe_file)
        mask = np.array([0, 1, 2, 4], np.uint8)
        assert to_classes(mask, recipe).tolist() == [0, 1, 1, 1]
        two = {"classes": ("background", "core", "rim"), "net_options": {}}
        plain = recipe.model_copy(update={**two, "data": recipe.data.model_copy(update={"values": {}})})
        assert to_classes(mask, plain).tolist() == [0, 1, 2, 0]
        chosen = plain.model_copy(
            update={"data": recipe.data.model_copy(update={"values": {"core": (4,), "rim": (1, 2)}})}
        )
        assert not chosen.overlapping
        assert to_classes(mask, chosen).tolist() == [0, 2, 2, 1]

    def test_overlapping_classes_get_a_channel_each(self, recipe_file):
        """Whole tumour and tumour core, as of the brain tumour challenge."""
        recipe = read_recipe(recipe_file)
        values = {"whole": (1, 2, 4), "core": (1, 4)}
        recipe = recipe.model_copy(
            update={
                "classes": ("background", "whole", "core"),
                "data": recipe.data.model_copy(update={"values": values}),
            }
        )
        assert recipe.overlapping
        assert to_classes(np.array([0, 1, 2, 4], np.uint8), recipe).tolist() == [[0, 1, 1, 1], [0, 1, 0, 1]]


class TestCardEntries:
    def test_only_the_project_s_own_recipes_are_called_so(self, recipe_file, root):
        own = root / "recipes" / "unet-nuclei.toml"
        recipe = read_recipe(own)
        assert name_of(own, recipe, steps=recipe.steps) == f"recipes/unet-nuclei.toml, {recipe.steps} steps, seed 2021"
        assert f"100 of its {recipe.steps} steps" in name_of(own, recipe, steps=100)
        assert name_of(recipe_file, recipe, steps=9).startswith("discs.toml, which is none of the project's own")

    def test_pictures_without_a_scale_have_no_lengths_and_percentiles_no_range(self, recipe_file, data):
        recipe = read_recipe(recipe_file)
        images = find_data(recipe, data, beside=recipe_file.parent)
        assert learnt_from(images, recipe) == {}
        counted = recipe.model_copy(update={"card": recipe.card.model_copy(update={"training_data": ""})})
        assert learnt_from(images, counted) == {"training_data": "discs, 8 images"}

    def test_scans_say_their_usual_values_spacing_and_extent_along_the_axes_of_the_model(self, recipe_file, tmp_path):
        """Medians over the training side alone, whichever way the files run."""
        import nibabel

        recipe = read_recipe(recipe_file).model_copy(
            update={
                "window": (8, 8, 8),
                "spacing": (2.0, 2.0, 2.0),
                "orientation": "SPL",
                "channels": "grey",
                "net_options": {},
                "intensity": Intensity(kind="clip", low=-200, high=500),
            }
        )
        for part in ("images", "labels"):
            (tmp_path / part).mkdir()
        cases = {"a": (1.0, -1000, 900), "b": (1.5, -1024, 1000), "c": (2.0, -1024, 30000), "held out": (9.0, 0, 1)}
        for name, (spacing, low, high) in cases.items():
            ct = np.full((20, 10, 6), low, np.int16)
            ct[0, 0, 0] = high
            for part, array in (("images", ct), ("labels", np.ones_like(ct, np.uint8))):
                path = tmp_path / part / f"{name}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(array, np.diag([spacing, 1.0, 5.0, 1.0])), path)
        found = find_cases(tmp_path)
        sided = tuple(replace(case, split="test" if case.name == "held out" else "train") for case in found.cases)
        assert learnt_from(replace(found, cases=sided), recipe) == {
            "value_range": (-1024.0, 1000.0),
            "training_spacing": (5.0, 1.0, 1.5),
            "field_of_view_mm": (30.0, 10.0, 30.0),
        }


class TestBundling:
    """`recipes/bundle.py`, on a run of the discs."""

    @pytest.fixture(scope="class")
    def script(self):
        path = Path(__file__).parents[2] / "recipes" / "bundle.py"
        spec = importlib.util.spec_from_file_location("bundle_script", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    @pytest.fixture
    def run(self, recipe_file, data, tmp_path):
        recipe_file.write_text(
            recipe_file.read_text().replace("steps = 30", "steps = 2").replace("steps = 50", "steps = 2")
        )
        train(recipe_file, out=tmp_path / "run", data=data, device="cpu")
        return tmp_path / "run"

    def test_what_a_run_left_is_bundled_as_it_is(self, script, run, recipe_file, data, tmp_path):
        """A second time in place of the first; words of the recipe that were changed since are on the card."""
        recipe_file.write_text(recipe_file.read_text().replace('limits = "discs only"', 'limits = "only discs"'))
        for _ in range(2):
            card = script.bundle(run, data=data, into=tmp_path / "bundled", recipes=recipe_file.parent)
        kept = tmp_path / "bundled" / "discs"
        for name in ("weights.safetensors", "selftest.npz"):
            assert (kept / name).read_bytes() == (run / "model" / name).read_bytes()
        first = load_model(run / "model", device="cpu").card
        assert load_model(kept, device="cpu").card == card == first.model_copy(update={"limits": "only discs"})
        assert sorted(path.name for path in (tmp_path / "bundled").iterdir()) == ["discs"]

    @pytest.mark.parametrize(
        ("old", "new", "sentence"),
        [
            ("seed = 1", "seed = 2", r"run does not follow .*discs\.toml; train it again by that recipe"),
            ("steps = 2", "steps = 3", r"run does not follow .*discs\.toml; train it again by that recipe"),
            ('citation = "none"', 'citation = ""', "cannot be bundled: its card says nothing of citation"),
        ],
    )
    def test_what_may_not_be_bundled_is_said(self, script, run, recipe_file, data, tmp_path, old, new, sentence):
        recipe_file.write_text(recipe_file.read_text().replace(old, new))
        with pytest.raises(MedtError, match=sentence):
            script.bundle(run, data=data, into=tmp_path / "bundled", recipes=recipe_file.parent)
        assert not (tmp_path / "bundled").exists()

    def test_a_run_measured_on_other_images_is_refused(self, script, run, recipe_file, data, tmp_path):
        lines = (run / "held_out.csv").read_text().splitlines(keepends=True)
        (run / "held_out.csv").write_text("".join(lines[:-1]))
        with pytest.raises(BadTrainingData, match="was measured on other images than the split holds out"):
            script.bundle(run, data=data, into=tmp_path / "bundled", recipes=recipe_file.parent)
