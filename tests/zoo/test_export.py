"""Models for other programs: what is written gives the same logits, or a sentence says why nothing was written."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy.special import softmax

from napari_medt.core import BadModel, MedtError
from napari_medt.engine.channels import Channels
from napari_medt.engine.intensity import find_scale
from napari_medt.nets import create_net, registry
from napari_medt.zoo import check_model, export_model, load_model, save_model
from napari_medt.zoo.card import Intensity

ONNX = all(map(find_spec, ("onnx", "onnxscript", "onnxruntime")))
BIOIMAGE = ONNX and bool(find_spec("bioimageio"))


@pytest.fixture
def model(card, tmp_path):
    """The folder of a small U-Net."""
    options = {"in_channels": 3, "num_classes": 2, "channels": (8, 16)}
    torch.manual_seed(0)
    save_model(tmp_path / "unet", card(architecture="unet", net_options=options), create_net("unet", **options))
    return tmp_path / "unet"


@pytest.fixture
def image():
    return torch.rand(1, 3, 32, 32)


def logits(folder, *inputs):
    with torch.inference_mode():
        return load_model(folder, device="cpu").net(*inputs).numpy()


def test_folder_to_file_and_back_is_the_same(model, tmp_path):
    file = export_model(model, tmp_path / "m.medt")
    again = export_model(file, tmp_path / "again")
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in model.iterdir()}
    assert check_model(str(again)).passed


def test_exported_program_gives_the_same_logits_and_holds_the_card(model, tmp_path, image):
    file = export_model(model, tmp_path / "m.pt2")
    extra = {"card.json": ""}
    program = torch.export.load(file, extra_files=extra)
    with torch.inference_mode():
        found = program.module()(image).numpy()
    np.testing.assert_allclose(found, logits(model, image), atol=1e-4)
    assert json.loads(extra["card.json"])["title"] == "Tiny model"


@pytest.mark.skipif(not ONNX, reason="needs the extra export: onnx, onnxscript, onnxruntime")
def test_onnx_gives_the_same_logits_and_holds_the_card(model, tmp_path, image):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(export_model(model, tmp_path / "m.onnx")))
    (found,) = session.run(["logits"], {"image": image.numpy()})
    np.testing.assert_allclose(found, logits(model, image), atol=1e-4)
    card = json.loads(session.get_modelmeta().custom_metadata_map["card.json"])
    assert card["intensity"]["kind"] == "unit"


@pytest.mark.skipif(ONNX, reason="the packages for ONNX are installed")
def test_missing_packages_are_told(model, tmp_path):
    with pytest.raises(
        MedtError, match=r"ONNX needs packages .*; install them with: pip install \"napari-medt\[export\]"
    ):
        export_model(model, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.skipif(not BIOIMAGE, reason="needs the extra export")
@pytest.mark.parametrize(
    "changes",
    [
        {"intensity": Intensity(kind="percentile", low=1, high=99)},
        {"intensity": Intensity(kind="percentile", per_channel=True)},
        {"intensity": Intensity(kind="clip", low=20, high=200), "spacing": (0.5, 0.25)},
        {"intensity": Intensity(kind="unit"), "licence": "CC0-1.0 (images), BSD-3-Clause (weights)"},
    ],
    ids=["percentiles", "percentiles of each channel", "clip", "unit"],
)
def test_a_package_for_the_bioimage_model_zoo_is_valid_and_holds_what_predict_does(card, model, tmp_path, changes):
    from bioimageio.spec import load_model_description

    options = {"in_channels": 3, "num_classes": 2, "channels": (8, 16)}
    given = card(architecture="unet", net_options=options, **changes)
    save_model(tmp_path / "changed", given, load_model(model, device="cpu").net)
    described = load_model_description(export_model(tmp_path / "changed", tmp_path / "m.zip"))
    image, expected = (np.load(tensor[0].test_tensor.get_reader()) for tensor in (described.inputs, described.outputs))
    scale, _ = find_scale(image[0].astype(np.uint8), given.intensity, Channels((0, 1, 2)))
    found = softmax(logits(tmp_path / "changed", torch.from_numpy(scale.apply(image[0]))[None]), axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert described.outputs[0].axes[1].channel_names == list(given.classes)
    assert given.title in described.documentation.get_reader().read().decode()
    assert described.inputs[0].axes[2].scale == (0.5 if given.spacing else 1)


@pytest.mark.skipif(not BIOIMAGE, reason="needs the extra export")
def test_what_the_bioimage_format_cannot_say_is_refused(card, model, tmp_path):
    folder = tmp_path / "changed"
    options = {"in_channels": 3, "num_classes": 2, "channels": (8, 16)}
    given = card(architecture="unet", net_options=options, intensity=Intensity(kind="zscore"))
    save_model(folder, given, load_model(model, device="cpu").net)
    with pytest.raises(BadModel, match=r"scales by what is not 0.*write it as \.onnx"):
        export_model(folder, tmp_path / "m.zip")
    assert not (tmp_path / "m.zip").exists()


def test_form_goes_before_the_ending(model, tmp_path):
    assert export_model(model, tmp_path / "m.zip", form="file").read_bytes()[:2] == b"PK"


@pytest.mark.parametrize(
    ("name", "form", "sentence"),
    [
        (
            "m.tar",
            None,
            r"m\.tar does not say in which form to write; choose one of folder, file, onnx, torch, bioimageio, or an",
        ),
        ("m.pt2", "keras", "No form of models is called 'keras'; choose one of"),
        ("unet", None, "There is .*unet already; choose another name"),
    ],
)
def test_what_cannot_be_written_is_said(model, tmp_path, name, form, sentence):
    with pytest.raises(MedtError, match=sentence):
        export_model(model, tmp_path / name, form=form)


def test_networks_that_cannot_be_exported_say_so(model, tmp_path, monkeypatch):
    info, build = registry._NETS["unet"]
    monkeypatch.setitem(registry._NETS, "unet", (replace(info, exports=False), build))
    with pytest.raises(BadModel, match=r"The network unet cannot be exported; write it as a folder or a \.medt file"):
        export_model(model, tmp_path / "m.pt2")


def test_an_exporter_that_fails_leaves_a_sentence_and_no_file(model, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such operator: aten::odd\nand much more")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(BadModel, match=r"cannot be written in this form \(no such operator: aten::odd\); write it"):
        export_model(model, tmp_path / "m.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["unet"]


def test_what_gives_other_results_is_not_written(model, tmp_path, monkeypatch):
    other = create_net("unet", in_channels=3, num_classes=2, channels=(8, 16)).eval()
    export = torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda _, inputs: export(other, inputs))
    with pytest.raises(BadModel, match="tiny@1 was not exported: in this form it gives other results, by"):
        export_model(model, tmp_path / "m.pt2")
    assert not (tmp_path / "m.pt2").exists()


def test_a_network_that_knows_where_a_window_lies_has_a_second_input(card, tmp_path):
    options = {"in_channels": 1, "num_classes": 2}
    net = create_net("fine", preset="small", **options).eval()
    window = (16, 32, 32)
    made = card(
        architecture="fine",
        net_options=registry._NETS["fine"][0].presets["small"] | options,
        channels="grey",
        spatial_dims=3,
        window=window,
    )
    save_model(tmp_path / "fine", made, net)
    inputs = torch.rand(1, 1, *window), torch.tensor([[3.0, -8.0, 0.0]])
    program = torch.export.load(export_model(tmp_path / "fine", tmp_path / "m.pt2")).module()
    with torch.inference_mode():
        np.testing.assert_allclose(program(*inputs).numpy(), logits(tmp_path / "fine", *inputs), atol=1e-4)
