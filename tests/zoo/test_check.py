"""The self-test: passes where nothing changed, and says what is wrong where something did."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from napari_medt.zoo import check_model, list_models, models_folder, save_model
from napari_medt.zoo.check import shortcomings


def write_selftest(folder, **arrays):
    np.savez_compressed(folder / "selftest.npz", **arrays)


def read_selftest(folder):
    with np.load(folder / "selftest.npz") as stored:
        return dict(stored)


def test_selftest_passes_and_is_small(folder):
    result = check_model("tiny")
    assert result.passed
    assert result.key == "tiny@1"
    assert result.difference < 5e-3  # the rounding of float16
    stored = read_selftest(folder)
    assert stored["input"].dtype == np.uint8
    assert stored["input"].shape == (3, 32, 32)
    assert stored["expected"].shape == (2, 32, 32)


def test_selftest_notices_a_changed_layer(folder, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "relu", torch.nn.functional.gelu)
    result = check_model("tiny")
    assert not result.passed
    assert result.difference > 0.05
    assert "tiny@1 gives other results on this computer than when it was stored (they differ by" in result.problem


@pytest.mark.parametrize("moved", [0.003, 0.03])
def test_selftest_draws_the_line_at_a_hundredth_of_the_spread(folder, moved):
    stored = read_selftest(folder)
    expected = stored["expected"].astype(np.float32)
    expected[0, 0, 0] += moved * expected.std()
    write_selftest(folder, input=stored["input"], expected=expected)
    assert check_model("tiny").passed == (moved < 0.01)


@pytest.mark.parametrize(("gain", "offset"), [(1, 300.0), (1e6, 0.0)], ids=["far from zero", "beyond float16"])
def test_logits_of_any_size_pass(card, net, gain, offset):
    """Rounding to float16 is allowed for where logits lie far from zero, and not done where it overflows."""
    with torch.no_grad():
        net.head.weight.mul_(gain)
        net.head.bias.add_(offset)
    folder = models_folder() / "tiny" / "v1"
    save_model(folder, card(), net, half=False)
    assert np.isfinite(read_selftest(folder)["expected"]).all()
    result = check_model("tiny")
    assert result.passed, result.problem


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "The self-test of tiny@1 is missing or damaged; restore the model's folder from a copy."),
        (b"", "is missing or damaged"),
        (b"PK\x03\x04 broken", "is missing or damaged"),
        (archive(input=np.zeros((3, 32, 32), np.uint8)), "is missing or damaged"),
        (archive(input=np.array([{}]), expected=np.zeros(1)), "is missing or damaged"),
        (archive(input=np.zeros((1, 32, 32), np.uint8), expected=np.zeros((2, 32, 32))), "does not fit its card"),
        (archive(input=np.zeros((3, 32, 32), np.uint8), expected=np.zeros((2, 16, 32))), "does not fit its card"),
        (archive(input=np.zeros((3, 32, 32)), expected=np.zeros((2, 32, 32))), "does not fit its card"),
    ],
    ids=["gone", "empty", "cut", "half", "pickled", "channels", "size", "type"],
)
def test_selftest_that_cannot_be_used_is_said(folder, content, sentence):
    (folder / "selftest.npz").unlink()
    if content is not None:
        (folder / "selftest.npz").write_bytes(content)
    result = check_model("tiny")
    assert result.difference is None
    assert sentence in result.problem


def test_result_that_is_no_number_does_not_pass(folder):
    stored = read_selftest(folder)
    write_selftest(folder, input=stored["input"], expected=np.full_like(stored["expected"], np.nan))
    assert not check_model("tiny").passed


def test_unknown_model_is_a_result_too():
    assert "No model is called 'nothing-like-it'" in check_model("nothing-like-it").problem


@pytest.mark.parametrize("key", [found.key for found in list_models()])
def test_bundled_model_gives_what_it_gave_when_it_was_stored(key):
    result = check_model(key)
    assert result.passed, result.problem


def test_what_is_given_to_everybody_says_all_it_must(card):
    lacks = shortcomings(card(licence="CC0-1.0", limits="few"), 9_000_000)
    assert lacks[:2] == ["its card says nothing of modality", "its card says nothing of training_data"]
    assert "its intended use does not say 'Research use; not a medical device.'" in lacks
    assert lacks[-1] == "its weights take 9.0 MB, more than 8"
    assert not any("licence" in lack or "limits" in lack for lack in lacks)


def test_a_bundled_model_that_lacks_something_does_not_pass(folder, monkeypatch):
    assert check_model("tiny").passed
    monkeypatch.setattr("napari_medt.zoo.check.bundled_folder", models_folder)
    assert "tiny@1 cannot be bundled as it is: its card says nothing of modality; " in check_model("tiny").problem


def test_a_model_is_checked_in_any_folder(folder, tmp_path):
    place = folder.rename(tmp_path / "model")
    assert check_model(str(place)).key == "tiny@1"
    assert check_model(str(place)).passed
