"""The demonstration writes a picture of the finished window, or says in a sentence why not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from napari_medt._system import display_answers
from napari_medt.widgets.demo import sample_layers

pytestmark = pytest.mark.skipif(not display_answers(), reason="needs a display; `make test` brings a virtual one")


def run_demo(*options):
    command = [sys.executable, "-m", "napari_medt.widgets.demo", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def test_the_sample_is_a_picture_without_its_mask():
    assert [kind for _, _, kind in sample_layers()] == ["image"]


def test_a_screenshot_of_the_finished_window(tmp_path):
    ended = run_demo("--screenshot", tmp_path / "demo.png")
    assert ended.returncode == 0, ended.stderr
    with Image.open(tmp_path / "demo.png") as picture:
        assert picture.size == (1440, 900)
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500, "a window with a picture in it"


def test_a_picture_that_cannot_be_written(tmp_path):
    ended = run_demo("--screenshot", tmp_path / "nowhere" / "demo.png")
    assert ended.returncode == 1
    assert "the folder does not exist" in ended.stderr.strip().splitlines()[-1]


def test_wrong_options_are_told():
    ended = run_demo("--colour", "blue")
    assert ended.returncode == 2
    assert "--colour" in ended.stderr
