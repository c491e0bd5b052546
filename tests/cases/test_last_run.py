"""The run a mask began with: kept with the case, gone with the mask, and told where it is damaged."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medt.cases import CaseFolder, DoubtfulPlace, Fix, Journal, LastRun
from napari_medt.core import BadCase, Volume


@pytest.fixture
def image(rng):
    return Volume.from_array(rng.random((6, 20, 24)).astype(np.float32), rgb=False)


@pytest.fixture
def run():
    return LastRun(
        model="organs@3",
        title="Organs",
        weights_sha256="ab" * 32,
        classes=("background", "liver"),
        settings={"plane": "coronal", "roi": [[0, 2], [3, 4], [5, 9]], "flips": True},
        fixes=(Fix(name="shift values", values=(-1024.0,)),),
        doubtful=(DoubtfulPlace(centre=(1.0, 2.5, 3.0), size=12.0, share=0.4, name="liver"),),
    )


def test_a_run_comes_back_with_its_uncertainty(image, run, rng):
    uncertainty = rng.random((6, 20, 24)).astype(np.float32)
    with CaseFolder.open(image) as case:
        assert case.last_run is None
        case.keep_run(run, uncertainty)
    with CaseFolder.open(image) as case:
        kept, values = case.last_run
        assert kept == run
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, uncertainty, atol=0.5 / 255 + 1e-6)
        case.keep_run(run)
        assert case.last_run == (run, None)


def test_it_goes_with_the_mask(image, run):
    journal = Journal()
    with CaseFolder.open(image) as case:
        labels = np.zeros((6, 20, 24), np.uint8)
        case.record(journal.record("run", labels, labels + 1, by="model"))
        case.keep_run(run)
        case.discard()
        assert case.last_run is None


def test_a_damaged_one_is_told_and_nothing_else_suffers(image, run, rng):
    with CaseFolder.open(image) as case:
        case.keep_run(run, rng.random((6, 20, 24)))
        path = case.path / "run.zip"
        data = path.read_bytes()
        for damaged in (b"", data[: len(data) // 2], b"nothing"):
            path.write_bytes(damaged)
            with pytest.raises(BadCase, match="choose the model yourself"):
                _ = case.last_run
        case.keep_run(run, np.zeros((2, 2)))
        with pytest.raises(BadCase, match="damaged"):
            _ = case.last_run
