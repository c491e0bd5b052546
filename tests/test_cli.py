"""The command `napari-medt`, called as a shell calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from imageio.v3 import imwrite
from typer.testing import CliRunner

import napari_medt
from napari_medt import cli, doctor
from napari_medt._cli.jobs import plan_outputs
from napari_medt.cli import app
from napari_medt.core import BadImage, BadModel, Geometry, Volume
from napari_medt.io import read_labels

runner = CliRunner()


def call(*arguments: object, code: int = 0) -> str:
    """Run a command, insist on its exit code and return all it said, on one line."""
    result = runner.invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model of a few thousand weights, saved as any other."""
    import torch

    from napari_medt.nets import create_net
    from napari_medt.zoo import ModelCard, save_model
    from napari_medt.zoo.card import Intensity

    torch.manual_seed(1)
    options = {"img_size": 32, "in_channels": 1, "num_classes": 2}
    card = ModelCard(
        name="tiny",
        version=1,
        title="Tiny",
        description="Random weights.",
        architecture="axial-unet",
        net_options=options,
        classes=("background", "thing"),
        channels="grey",
        spatial_dims=2,
        window=(32, 32),
        intensity=Intensity(kind="percentile"),
        modality="none",
        training_data="none",
        recipe="none",
        attribution="none",
        licence="BSD-3-Clause",
        citation="none",
        intended_use="tests",
        limits="knows nothing",
        scores=(),
        sha256="",
        created="2026-01-01T00:00:00+00:00",
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, card, create_net("axial-unet", **options).eval())
    return folder


@pytest.fixture
def image(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, rng.integers(0, 4000, (40, 52), dtype=np.uint16), resolution=(2.0, 2.0), imagej=True)
    return path


def test_version():
    assert call("--version") == f"napari-medt {napari_medt.__version__}"


def test_help_names_every_command_and_is_quick(tmp_path):
    code = "import sys; from napari_medt.cli import app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not {"torch", "napari", "qtpy", "monai", "skimage", "scipy", "pandas"} & set(loaded.stdout.split())
    text = call("--help")
    assert all(
        name in text
        for name in ("demo", "models", "predict", "attention", "train", "evaluate", "export", "compare", "doctor")
    )


def test_module_form_is_the_same(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-m", "napari_medt", "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert answer.stdout.strip() == f"napari-medt {napari_medt.__version__}"


class TestModels:
    def test_lists_the_bundled_model(self):
        assert "medt-nuclei@1" in call("models")

    def test_json_is_the_whole_card(self):
        card = next(card for card in json.loads(call("models", "--json")) if card["name"] == "medt-nuclei")
        assert card["classes"][0] == "background"
        assert len(card["sha256"]) == 64

    def test_check_passes_for_what_is_bundled(self):
        checked = json.loads(call("models", "--json", "--check"))
        assert [card["check"]["ok"] for card in checked] == [True] * len(checked)
        assert all(card["check"]["difference"] < 1e-2 for card in checked)

    def test_unreadable_card_is_told(self, medt_home):
        folder = medt_home / "models" / "mine" / "v2"
        folder.mkdir(parents=True)
        (folder / "card.json").write_text("{}")
        assert "mine" in call("models")
        call("models", "--check", code=1)

    def test_check_finds_a_damaged_version(self, medt_home):
        from napari_medt.zoo import load_model, models_folder, save_version

        model = load_model("medt-nuclei", device="cpu")
        stored = save_version(model, model.net)
        (weights,) = models_folder().rglob("*.safetensors")
        content = bytearray(weights.read_bytes())
        content[-1] ^= 0xFF
        weights.write_bytes(content)
        text = call("models", "--check", code=1)
        assert stored.card.key in text
        assert "good" in text

    def test_card_of_one_is_for_people(self):
        text = call("models", "medt-nuclei")
        for words in (
            "Intended use",
            "Research use; not a medical device.",
            "Limits",
            "Licence",
            "fluorescence",
            "Dice",
        ):
            assert words in text
        assert "No model is called 'medt-nuclie'" in call("models", "medt-nuclie", code=2)

    def test_own_model_is_added_checked_and_carried_on(self, tiny_model, tmp_path):
        assert "Kept as tiny@1" in call("models", "--add", tiny_model)
        assert "good" in call("models", "tiny", "--check")
        assert "good" in call("models", tiny_model, "--check")
        assert "is there already" in call("models", "--add", tiny_model, code=2)
        file = tmp_path / "tiny.medt"
        assert f"tiny -> {file}" in call("export", "tiny", "-o", file)
        call("export", file, "-o", tmp_path / "again")
        assert (tmp_path / "again" / "card.json").read_bytes() == (tiny_model / "card.json").read_bytes()
        assert "does not say in which form" in call("export", "tiny", "-o", tmp_path / "tiny.keras", code=2)


class TestPredict:
    def test_an_image_that_does_not_suit_the_model_is_told(self, tmp_path, rng):
        scan = Volume(
            rng.integers(0, 140, (1, 16, 20, 16), dtype=np.uint8), Geometry.from_spacing((1.0,) * 3, units="mm")
        )
        napari_medt.write(scan, tmp_path / "scan.nii.gz")
        text = call("predict", tmp_path / "scan.nii.gz", "-m", "unet-headneck", "-o", tmp_path / "mask.nii.gz")
        assert "Note: The values lie between 0 and 139, but the model was trained on -1024 to 2952" in text

    def test_writes_a_mask_with_its_pixel_size(self, tiny_model, image, tmp_path):
        mask, doubt = tmp_path / "mask.tif", tmp_path / "doubt.tif"
        text = call("predict", image, "-m", tiny_model, "-o", mask, "--device", "cpu", "--uncertainty", doubt)
        labels, geometry = read_labels(mask)
        assert labels.shape == (40, 52)
        assert geometry.spacing == pytest.approx(napari_medt.read(image).geometry.spacing)
        expected = napari_medt.predict(napari_medt.load_model(tiny_model, device="cpu"), napari_medt.read(image))
        np.testing.assert_array_equal(labels, expected.labels)
        values = tifffile.imread(doubt)
        assert values.shape == (40, 52)
        assert 0 <= values.min() < values.max() <= 1
        assert f"{np.count_nonzero(labels) / labels.size:.1%}" in text

    def test_several_images_go_into_a_folder(self, tiny_model, image, tmp_path):
        twin = tmp_path / "other" / "cells.tif"
        twin.parent.mkdir()
        twin.write_bytes(image.read_bytes())
        call("predict", image, twin, "-m", tiny_model, "-o", tmp_path / "masks")
        assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == sorted(
            [f"{tmp_path.name}_cells_mask.tif", "other_cells_mask.tif"]
        )

    def test_one_bad_image_does_not_stop_the_others(self, tiny_model, image, tmp_path):
        (tmp_path / "text.tif").write_text("no picture")
        text = call("predict", tmp_path / "text.tif", image, "-m", tiny_model, "-o", tmp_path / "masks", code=2)
        assert "text.tif" in text
        assert [path.name for path in (tmp_path / "masks").iterdir()] == ["cells_mask.tif"]

    @pytest.mark.parametrize("content", [None, b"", b"just text"])
    def test_bad_file_gives_one_sentence(self, content, tiny_model, tmp_path):
        path = tmp_path / "bad.tif"
        if content is not None:
            path.write_bytes(content)
        text = call("predict", path, "-m", tiny_model, "-o", tmp_path / "mask.tif", code=2)
        assert text.startswith("Error: ")
        assert "bad.tif" in text
        assert "Traceback" not in text
        assert not (tmp_path / "mask.tif").exists()

    def test_unknown_model_and_device(self, tiny_model, image, tmp_path):
        assert "no-such-model" in call("predict", image, "-m", "no-such-model", "-o", tmp_path / "m.tif", code=2)
        text = call("predict", image, "-m", tiny_model, "-o", tmp_path / "m.tif", "--device", "cuda:77", code=2)
        assert "cpu" in text

    def test_image_is_never_overwritten(self, image):
        before = image.read_bytes()
        assert "overwrite" in call("predict", image, "-o", image, code=2)
        assert image.read_bytes() == before

    def test_bundled_model_finds_the_nuclei_of_the_sample(self, tmp_path):
        from napari_medt.sample_data import fluorescence

        (picture, *_), (truth, *_) = fluorescence()[:2]
        crop = np.s_[:128, :128]
        tifffile.imwrite(tmp_path / "field.tif", np.asarray(picture)[crop])
        call("predict", tmp_path / "field.tif", "-o", tmp_path / "mask.tif")
        found, wanted = tifffile.imread(tmp_path / "mask.tif") > 0, np.asarray(truth)[crop] > 0
        assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.7

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupt_stops_politely(self, number, tiny_model, tmp_path, rng, monkeypatch):
        """Ctrl-C after the first windows: one sentence, nothing written, and Python's own handler is back."""
        seen = []

        @contextmanager
        def interrupting_bar():
            def report(done: int, total: int, message: str = "", /) -> None:
                if total > 1 and done >= 1:
                    seen.append((done, total))
                    if len(seen) == 1:
                        signal.raise_signal(number)

            yield report

        monkeypatch.setattr(cli, "progress_bar", interrupting_bar)
        tifffile.imwrite(tmp_path / "big.tif", rng.integers(0, 255, (1200, 1200), dtype=np.uint8))
        before = signal.getsignal(number)
        text = call("predict", tmp_path / "big.tif", "-m", tiny_model, "-o", tmp_path / "m.tif", code=130)
        assert "Stopping after this step" in text
        assert "Cancelled" in text
        assert seen[-1][0] < seen[-1][1], "it ran to the end"
        assert not (tmp_path / "m.tif").exists()
        assert signal.getsignal(number) is before


class TestOutputs:
    def test_one_image_one_file(self, tmp_path):
        (job,) = plan_outputs([tmp_path / "a.png"], output=tmp_path / "m.tif")
        assert (job.image, job.mask, job.uncertainty) == (tmp_path / "a.png", tmp_path / "m.tif", None)

    def test_folder_by_its_missing_ending_or_because_it_is_there(self, tmp_path):
        (tmp_path / "made.already").mkdir()
        for folder in (tmp_path / "new", tmp_path / "made.already"):
            (job,) = plan_outputs([tmp_path / "a.png"], output=folder)
            assert job.mask == folder / "a_mask.tif"

    def test_alike_names_stay_apart(self, tmp_path):
        images = [tmp_path / name for name in ("p/x.png", "q/x.png", "q/x.tif", "y.png")]
        names = [job.mask.name for job in plan_outputs(images, output=tmp_path / "out")]
        assert names == ["p_x_mask.tif", "q_x_png_mask.tif", "q_x_tif_mask.tif", "y_mask.tif"]

    def test_the_same_image_twice_is_done_once(self, tmp_path):
        assert len(plan_outputs([tmp_path / "a.png"] * 2, output=tmp_path / "m.tif")) == 1

    def test_several_images_in_one_file_are_refused(self, tmp_path):
        with pytest.raises(BadImage, match="give a folder"):
            plan_outputs([tmp_path / "a.png", tmp_path / "b.png"], output=tmp_path / "m.tif")

    def test_mask_and_uncertainty_in_one_file_are_refused(self, tmp_path):
        with pytest.raises(BadImage, match="same file"):
            plan_outputs([tmp_path / "a.png"], output=tmp_path / "m.tif", uncertainty=tmp_path / "m.tif")
        with pytest.raises(BadImage, match=r"m\.jpg has an ending that results cannot be written with"):
            plan_outputs([tmp_path / "a.png"], output=tmp_path / "m.jpg")


class TestTrain:
    def test_needs_exactly_one_source(self, tmp_path):
        assert "one thing to go by" in call("train", code=2)

    def test_a_plan_says_what_is_to_be_learnt(self, tmp_path):
        for side in ("images", "labels"):
            (tmp_path / "data" / side).mkdir(parents=True)
        for number in range(6):
            picture = np.zeros((40, 40), np.uint8)
            picture[8:30, 4 + number : 20] = 1
            imwrite(tmp_path / "data" / "images" / f"{number}.png", picture * 200 + number)
            imwrite(tmp_path / "data" / "labels" / f"{number}.png", picture)
        told = call(
            "train", tmp_path / "data", "--plan-only", "--classes", "background,disc", "--out", tmp_path / "run"
        )
        assert "unet is to learn disc: 3000 steps of " in " ".join(told.split())

    def test_several_processes_do_not_plan_each_for_itself(self, tmp_path):
        assert "plan first with --plan-only" in call("train", tmp_path, "--processes", 2, code=2)

    def test_every_option_reaches_the_training(self, tmp_path, monkeypatch):
        from napari_medt import training

        given = {}
        monkeypatch.setattr(training, "train", lambda recipe, **options: given.update(options) or tmp_path)
        (tmp_path / "a.toml").touch()
        options = ["--data", tmp_path / "images", "--out", tmp_path / "run", "--max-minutes", 3, "--resume"]
        monkeypatch.setattr("napari_medt._cli.train._score_of", lambda folder: f"How well {folder.name} does")
        told = call("train", "--recipe", tmp_path / "a.toml", *options)
        assert f"How well {tmp_path.name} does" in told
        assert (given["data"], given["out"], given["max_minutes"], given["resume"]) == (
            tmp_path / "images",
            tmp_path / "run",
            3,
            True,
        )

    def test_original_names_alone_are_not_enough(self, tmp_path):
        recipe = tmp_path / "r.toml"
        assert "one thing to go by" in call("train", "--recipe", recipe, "--train_dataset", tmp_path, code=2)

    def test_missing_recipe_is_one_sentence(self, tmp_path):
        assert "nowhere.toml" in call("train", "--recipe", tmp_path / "nowhere.toml", code=2)

    def test_a_comparison_prints_its_table_and_what_is_left(self, tmp_path, monkeypatch):
        from napari_medt import training
        from napari_medt.training.study_tables import Comparison

        given = {}
        (tmp_path / "table.md").write_text("| Dice [0] |\n")
        found = Comparison(tmp_path, rows=("row",), seeds=(1,), cases=2, unfinished=("medt-1", "medt-2"))
        monkeypatch.setattr(training, "run_study", lambda study, **options: given.update(options) or found)
        text = call("compare", tmp_path / "axial.toml", "--only", "medt", "--only", "logo", "--max-minutes", 3)
        assert "| Dice [0] |" in text
        assert "2 trainings are not finished (medt-1, medt-2)" in text
        assert (given["out"], given["only"], given["max_minutes"]) == (Path("runs/axial"), ["medt", "logo"], 3)
        monkeypatch.undo()
        assert "nowhere.toml cannot be read" in call("compare", tmp_path / "nowhere.toml", code=2)

    def test_names_of_the_original_command_line(self, tmp_path, rng):
        """A folder with img/ and labelcol/ becomes a model that predict takes."""
        for split in ("train", "val"):
            for kind in ("img", "labelcol"):
                (tmp_path / split / kind).mkdir(parents=True)
            for number in range(2):
                mask = np.zeros((32, 32), np.uint8)
                mask[8:20, 4 + number : 24] = 255
                picture = (mask // 2 + rng.integers(0, 60, mask.shape)).astype(np.uint8)
                imwrite(tmp_path / split / "img" / f"{number}.png", np.stack([picture] * 3, -1))
                imwrite(tmp_path / split / "labelcol" / f"{number}.png", mask)
        options = "--modelname gatedaxialunet --imgsize 32 --batch_size 1 --epoch 1 --save_freq 1 --learning_rate 0.001"
        train, val, results = tmp_path / "train", tmp_path / "val", tmp_path / "out"
        folders = ["--train_dataset", train, "--val_dataset", val, "--direc", results]
        text = call("train", *options.split(), "--gray", "no", *folders)
        assert "The model lies in" in text
        folder = text.split("The model lies in ")[1].split(";")[0]
        call("predict", val / "img" / "0.png", "-m", folder, "-o", tmp_path / "mask.tif")
        assert tifffile.imread(tmp_path / "mask.tif").shape == (32, 32)


class TestDoctor:
    def test_report_has_versions_device_and_folders(self, medt_home):
        report = json.loads(runner.invoke(app, ["doctor", "--json"]).output)
        by_subject = {finding["subject"]: finding for finding in report["findings"]}
        assert by_subject["napari-medt"]["detail"].startswith(napari_medt.__version__)
        assert by_subject["torch"]["state"] == "ok"
        assert "cpu" in by_subject["devices"]["detail"]
        assert str(medt_home) in by_subject["models folder"]["detail"]
        assert str(medt_home) in by_subject["cases folder"]["detail"]
        assert "medt-nuclei@1" in by_subject["models"]["detail"]
        assert {"display", "OpenGL and Qt libraries", "memory", "napari plugin"} <= set(by_subject)

    def test_healthy_where_the_tests_run(self):
        assert "good" in call("doctor")

    def test_missing_package_is_named_with_its_remedy(self, monkeypatch):
        real = doctor.version

        def pretend(package: str) -> str:
            if package == "safetensors":
                raise doctor.PackageNotFoundError(package)
            return real(package)

        monkeypatch.setattr(doctor, "version", pretend)
        text = call("doctor", code=1)
        assert "missing safetensors not installed > pip install 'safetensors" in text

    def test_old_package_is_named_with_both_versions(self, monkeypatch):
        real = doctor.version
        monkeypatch.setattr(doctor, "version", lambda package: "2.0.1" if package == "torch" else real(package))
        findings = {finding.subject: finding for finding in doctor.examine()}
        assert findings["torch"].state == "missing"
        assert "2.0.1" in findings["torch"].detail
        assert ">=2.4" in findings["torch"].detail

    def test_without_napari_it_is_healthy_but_says_so(self, monkeypatch):
        real = doctor.version

        def pretend(package: str) -> str:
            if package in ("napari", *doctor.QT_BINDINGS):
                raise doctor.PackageNotFoundError(package)
            return real(package)

        monkeypatch.setattr(doctor, "version", pretend)
        assert "note napari" in call("doctor")

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the administrator may write anywhere")
    def test_locked_folder_is_missing(self, medt_home):
        medt_home.chmod(0o500)
        try:
            findings = {finding.subject: finding for finding in doctor.examine()}
        finally:
            medt_home.chmod(0o700)
        assert findings["models folder"].state == "missing"

    def test_folder_that_is_a_file_is_missing(self, tmp_path, monkeypatch):
        blocked = tmp_path / "file"
        blocked.touch()
        monkeypatch.setenv("NAPARI_MEDT_HOME", str(blocked / "home"))
        findings = {finding.subject: finding for finding in doctor.examine()}
        assert findings["models folder"].state == "missing"
        assert "NAPARI_MEDT_HOME" in findings["models folder"].remedy

    def test_unreadable_models_are_told(self, monkeypatch):
        from napari_medt import zoo

        def fail() -> list[object]:
            raise BadModel("The card of tiny@1 is damaged")

        monkeypatch.setattr(zoo, "list_models", fail)
        findings = {finding.subject: finding for finding in doctor.examine()}
        assert findings["models"].state == "missing"
        assert "damaged" in findings["models"].detail


def test_demo_without_a_display_says_what_to_do(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    text = call("demo", code=2)
    assert "No window can be opened" in text
    assert "make demo" in text
