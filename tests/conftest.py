"""What every room's tests share: a home of their own, the images beside the checkout, and calm threads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# How long an example takes depends on what else the computer does.
settings.register_profile("any computer", deadline=None)
settings.load_profile("any computer")

# Before anything reads them: napari's settings and our models must never come from, or go to, the user's own folders.
_HOME = tempfile.TemporaryDirectory(prefix="napari-medt-tests-")
os.environ["NAPARI_CONFIG"] = str(Path(_HOME.name) / "napari" / "settings.yaml")
os.environ["NAPARI_MEDT_HOME"] = str(Path(_HOME.name) / "napari-medt")


@pytest.fixture(autouse=True)
def medt_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty folder for models and cases, also in the processes it starts."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NAPARI_MEDT_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of real images: that of NAPARI_MEDT_DATA, or `../shared/data` beside the checkout."""
    candidates = [ROOT.parent / "shared" / "data"]
    if wanted := os.environ.get("NAPARI_MEDT_DATA"):
        candidates[:0] = [Path(wanted), Path(wanted) / "data"]
    for folder in candidates:
        if (folder / "nuclei_dsb2018").is_dir():
            return folder
    pytest.skip("needs the real images: set NAPARI_MEDT_DATA to the folder that holds nuclei_dsb2018")


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator of the same random numbers in every run."""
    return np.random.default_rng(20210519)


@pytest.fixture(scope="session", autouse=True)
def _remove_home() -> Iterator[None]:
    yield
    _HOME.cleanup()
