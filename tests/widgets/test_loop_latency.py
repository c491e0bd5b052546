"""How long the window is away at most while the whole loop is walked on scans; reported, as other programs steal time too."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from napari_medt.core import Geometry, Volume
from napari_medt.io import write
from napari_medt.widgets.answers import Doubt

pytestmark = pytest.mark.slow


@pytest.fixture(params=[(96, 256, 256), (200, 512, 512)], ids=["96x256x256", "200x512x512"])
def shape(request):
    """Voxels of the scans along z, y and x."""
    return request.param


@pytest.fixture
def folder(tmp_path, rng, shape):
    """Two scans with a bright ball."""
    z, y, x = (np.arange(n) - n // 2 for n in shape)
    ball = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < 30**2
    place = tmp_path / "scans"
    place.mkdir()
    for name in ("first", "second"):
        scan = (rng.normal(0, 20, ball.shape) + 300 * ball).astype(np.int16)
        write(
            Volume.from_array(scan, rgb=False, geometry=Geometry.from_spacing((2, 1, 1), units="mm")),
            place / f"{name}.nii",
        )
    return place


def test_the_longest_gap_of_every_action(
    folder, shape, worker, open_dock, viewer, walk, probe, slowdown, capsys, record_property
):
    dock = open_dock(worker)
    dock.wait()
    z, y, x = (n // 2 for n in shape)
    worker.session.doubtful = (Doubt((2.0 * z, y, x), 30.0, 0.6, "cell"),)
    gaps = {}

    def measured(what, act):
        probe.restart()
        act()
        dock.wait()
        gaps[what] = probe.longest_s * 1000
        record_property(what, round(gaps[what]))

    measured("open a folder", lambda: dock.open_case(folder))
    measured("run", dock.run)
    measured("next doubtful place", dock.next_doubtful)
    measured("brush", lambda: walk.paint(dock, (z, y - 28, x - 28)))
    measured("undo", dock.undo)
    measured("redo", dock.redo)
    measured("accept", dock.accept)
    measured("learn and compare", lambda: dock.learn(1))
    measured("accept the new version", dock.compare_step.accept_new)
    measured("next case", lambda: dock.opened.step(1))
    with capsys.disabled():
        share = slowdown()
        lines = [f"  {gap:6.0f} ms  {what}" for what, gap in sorted(gaps.items(), key=lambda pair: -pair[1])]
        sys.stdout.write(
            f"\nLongest gaps, on a computer {share:.1f} times slower than alone:\n" + "\n".join(lines) + "\n"
        )
    assert len(gaps) == 10
    assert dock.opened.place == 1
