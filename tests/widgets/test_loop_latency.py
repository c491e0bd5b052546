"""How long the window is away at most while the whole loop is walked on scans; reported, as other programs steal time too."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from napari_medt.core import Geometry, Volume
from napari_medt.io import write
from napari_medt.widgets.answers import Doubt

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path, rng):
    """Two scans of 96 x 256 x 256 with a bright ball."""
    z, y, x = np.ogrid[:96, :256, :256]
    ball = (z - 48) ** 2 + (y - 128) ** 2 + (x - 128) ** 2 < 30**2
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
    folder, worker, open_dock, viewer, walk, probe, slowdown, capsys, record_property
):
    dock = open_dock(worker)
    dock.wait()
    worker.session.doubtful = (Doubt((96.0, 128.0, 128.0), 30.0, 0.6, "cell"),)
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
    measured("brush", lambda: walk.paint(dock, (48, 100, 100)))
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
