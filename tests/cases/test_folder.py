from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from napari_medt.cases import CaseFolder, Journal, cases_folder, image_digest
from napari_medt.core import BadCase, Geometry, StorageError, Volume
from napari_medt.io import read_labels


def kept(case: CaseFolder) -> list[str]:
    return sorted(path.name for path in case.path.iterdir())


# ------------------------------------------------------------------------------------------------------------- identity


def test_the_folder_says_nothing_of_the_patient(image, medt_home):
    with CaseFolder.open(image) as case:
        assert case.path.parent == medt_home / "cases" == cases_folder()
        assert case.path.name == image_digest(image)
        card = json.loads((case.path / "case.json").read_text())
    assert card.pop("created").startswith(str(datetime.now(UTC).year))
    assert card == {
        "schema_version": 1,
        "image": "slide 7.tif",
        "digest": image_digest(image),
        "shape": [40, 50],
        "spacing": [0.5, 0.25],
        "units": "um",
        "status": "draft",
        "sign_off": None,
    }


def test_the_digest_is_that_of_the_values(image):
    same = Volume.from_array(np.asfortranarray(image.array[0]), source="copy of it.tif")
    assert image_digest(same) == image_digest(image)
    other = image.array[0].copy()
    other[-1, -1] ^= 1
    assert image_digest(Volume.from_array(other)) != image_digest(image)
    assert image_digest(Volume.from_array(image.array[0].reshape(50, 40))) != image_digest(image)
    assert image_digest(Volume.from_array(image.array[0].astype(np.uint16))) != image_digest(image)
    swapped = image.array[0].astype(">u2")
    assert image_digest(Volume.from_array(swapped)) == image_digest(Volume.from_array(swapped.astype("<u2")))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_one_voxel_anywhere_changes_the_digest_of_a_large_image(dtype, monkeypatch, rng):
    monkeypatch.setattr("napari_medt.cases.identity.AT_ONCE", 1000)
    values = (rng.random((12, 30, 20)) * 1000).astype(dtype)
    digest = image_digest(Volume.from_array(values, rgb=False))
    for place in ((0, 0, 0), (5, 7, 3), (11, 29, 19)):
        other = values.copy()
        other[place] += 1
        assert image_digest(Volume.from_array(other, rgb=False)) != digest


@pytest.mark.parametrize("limit", [0, 10**9])
def test_an_image_is_the_same_read_lazily_or_at_once(limit, monkeypatch, rng):
    """Whether a scan is read at once depends on the memory that is free: its draft must be found again all the same."""
    monkeypatch.setattr("napari_medt.cases.identity.WHOLE_BYTES", limit)
    monkeypatch.setattr("napari_medt.cases.identity.AT_ONCE", 5000)
    values = rng.integers(-1000, 1000, (2, 70, 65, 80)).astype(np.int16)
    geometry = Geometry.from_spacing((3.0, 1.0, 1.0))
    lazy = da.from_array(values, chunks=(1, 8, 30, 80))
    assert image_digest(Volume(lazy, geometry)) == image_digest(Volume(values, geometry))


def test_of_a_large_image_on_disk_only_boxes_are_read(monkeypatch, rng):
    monkeypatch.setattr("napari_medt.cases.identity.WHOLE_BYTES", 1000)
    values = rng.integers(0, 200, (1, 9000, 12000), dtype=np.uint8)
    lazy = da.from_array(values, chunks=(1, 1000, 1000))
    geometry = Geometry.from_spacing((1.0, 1.0))
    digest = image_digest(Volume(lazy, geometry))
    assert image_digest(Volume(lazy.rechunk((1, 300, 4000)), geometry)) == digest
    other = values.copy()
    other[0, -1, -1] ^= 1
    assert image_digest(Volume(da.from_array(other), geometry)) != digest


# -------------------------------------------------------------------------------------------------------- what is kept


def test_a_new_case_has_nothing_to_offer(image):
    with CaseFolder.open(image) as case:
        assert case.recover() is None
        assert (case.edits, case.read_only, case.notice) == (0, False, "")


def test_every_change_is_there_at_once_and_after_reopening(image, stroke):
    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    case = CaseFolder.open(image, snapshot_every=4)
    for number in range(1, 11):
        case.record(stroke(labels, journal, number))
        found = case.recover()
        np.testing.assert_array_equal(found.labels, labels)
        assert (found.edits, found.notes) == (number, ())
        assert abs(found.when.timestamp() - time.time()) < 60
    case.record(journal.undo(labels))
    case.record(journal.undo(labels))
    case.record(journal.redo(labels))
    case.close()
    with CaseFolder.open(image) as again:
        found = again.recover()
        np.testing.assert_array_equal(found.labels, labels)
        assert found.labels.dtype == np.uint8
        assert found.edits == again.edits == 13
        again.record(stroke(labels, journal, 77))
        np.testing.assert_array_equal(again.recover().labels, labels)


def test_the_mask_is_an_ordinary_tiff_with_its_scale(image, stroke):
    labels = np.zeros((40, 50), np.uint16)
    with CaseFolder.open(image) as case:
        case.record(stroke(labels, Journal(), 3))
        path = case.save()
        np.testing.assert_array_equal(tifffile.imread(path), labels)
        found, geometry = read_labels(path)
        assert geometry == Geometry.from_spacing((0.5, 0.25), units="um")
        np.testing.assert_array_equal(found, labels)
        assert kept(case) == ["case.json", "journal.bin", "lock", "log.jsonl", "mask.tif"]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "uint32", "int32", "int64"])
def test_the_type_of_the_mask_comes_back(image, dtype):
    labels = np.zeros((40, 50), dtype)
    labels[3, 4] = 1
    with CaseFolder.open(image) as case:
        case.save(labels)
    with CaseFolder.open(image) as case:
        found = case.recover().labels
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, labels)


def test_a_scan_and_a_mask_that_grew_to_a_wider_type(rng, stroke):
    scan = Volume.from_array(rng.integers(0, 99, (6, 30, 20), dtype=np.int16), rgb=False)
    labels, journal = np.zeros((6, 30, 20), np.uint8), Journal()
    with CaseFolder.open(scan) as case:
        case.record(stroke(labels, journal, 1))
        labels = labels.astype(np.uint16)
        before = labels.copy()
        labels[2, 3, 4] = 40_000
        case.record(journal.record("brush", before, labels))
        found = case.recover()
    assert found.labels.dtype == np.uint16
    np.testing.assert_array_equal(found.labels, labels)


def test_save_takes_a_mask_made_elsewhere(image, stroke, rng):
    labels = rng.integers(0, 4, (40, 50), dtype=np.uint8)
    with CaseFolder.open(image) as case:
        case.save(labels)
        case.record(stroke(labels, Journal(), 2))
        np.testing.assert_array_equal(case.recover().labels, labels)
        with pytest.raises(BadCase, match=r"shape \(3, 3\) .* does not belong to an image of shape \(40, 50\)"):
            case.save(np.zeros((3, 3), np.uint8))
        np.testing.assert_array_equal(case.recover().labels, labels)


def test_a_change_of_another_mask_is_refused(image):
    before = np.zeros((90, 90), np.uint8)
    after = before.copy()
    after[80, 80] = 1
    with CaseFolder.open(image) as case:
        with pytest.raises(BadCase, match="does not fit a mask of shape"):
            case.record(Journal().record("brush", before, after))
        assert case.recover() is None


def test_discarding_starts_blank_and_keeps_the_last_draft(image, stroke):
    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    with CaseFolder.open(image) as case:
        for number in range(11):
            case.record(stroke(labels, journal, number))
        case.discard()
        assert case.recover() is None
        assert case.edits == 0
        np.testing.assert_array_equal(tifffile.imread(case.path / "discarded.tif"), labels)
        fresh = np.zeros_like(labels)
        case.record(stroke(fresh, Journal(), 40))
        np.testing.assert_array_equal(case.recover().labels, fresh)
        case.discard()
        np.testing.assert_array_equal(tifffile.imread(case.path / "discarded.tif"), labels)
        np.testing.assert_array_equal(tifffile.imread(case.path / "discarded-2.tif"), fresh)


def test_a_draft_nobody_asked_for_is_put_aside_and_not_painted_over(image, stroke):
    old, new = np.zeros((40, 50), np.uint8), np.zeros((40, 50), np.uint8)
    with CaseFolder.open(image) as case:
        case.record(stroke(old, Journal(), 3))
    with CaseFolder.open(image) as case:
        case.record(stroke(new, Journal(), 4))
        np.testing.assert_array_equal(case.recover().labels, new)
        np.testing.assert_array_equal(tifffile.imread(case.path / "discarded.tif"), old)


def test_status(image):
    with CaseFolder.open(image) as case:
        case.set_status("accepted")
    with CaseFolder.open(image) as case:
        assert case.card.status == "accepted"


def test_the_history_spills_into_the_folder_and_is_gone_with_it(image, rng):
    with CaseFolder.open(image) as case:
        journal, labels = case.journal(budget_bytes=1000), np.zeros((40, 50), np.uint8)
        for _ in range(4):
            before, labels = labels, rng.integers(0, 255, (40, 50), dtype=np.uint8)
            journal.record("run", before, labels)
        assert "history.bin" in kept(case)
        while journal.undo(labels):
            pass
        assert not labels.any()
    assert "history.bin" not in kept(case)


def test_threads_may_record_in_turn(image):
    case = CaseFolder.open(image)
    journal = Journal()

    def work(row: int) -> None:
        for value in range(1, 10):
            box = (slice(row, row + 1), slice(0, 50))
            old, new = np.full((1, 50), value - 1, np.uint8), np.full((1, 50), value, np.uint8)
            case.record(journal.record_box("brush", box, old, new))

    threads = [threading.Thread(target=work, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    labels = case.recover().labels
    assert (labels[:4] == 9).all()
    assert not labels[4:].any()
    case.close()


# ---------------------------------------------------------------------------------------------------------- two windows


def test_a_second_window_may_look_but_not_write(image, stroke):
    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    first = CaseFolder.open(image)
    first.record(stroke(labels, journal, 1))
    second = CaseFolder.open(image)
    assert second.read_only
    assert "open a second time here" in second.notice
    np.testing.assert_array_equal(second.recover().labels, labels)
    for forbidden in (
        lambda: second.record(stroke(labels.copy(), Journal(), 2)),
        lambda: second.save(labels),
        second.discard,
        lambda: second.set_status("accepted"),
    ):
        with pytest.raises(StorageError, match="open a second time here"):
            forbidden()
    second.close()
    np.testing.assert_array_equal(first.recover().labels, labels)
    first.close()
    with CaseFolder.open(image) as third:
        assert not third.read_only


HOLD = """
import sys, time
import numpy as np
from napari_medt.cases import CaseFolder
from napari_medt.core import Geometry, Volume
image = Volume.from_array(np.arange(400, dtype=np.uint16).reshape(20, 20))
case = CaseFolder.open(image)
print(case.read_only, case.notice, flush=True)
sys.stdin.read()
"""


def test_another_process_has_the_case_until_it_is_killed():
    image = Volume.from_array(np.arange(400, dtype=np.uint16).reshape(20, 20))
    child = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline().startswith("False")
        case = CaseFolder.open(image)
        assert case.read_only
        assert f"process {child.pid} on" in case.notice
        case.close()
        answer = subprocess.run([sys.executable, "-c", HOLD], input="", capture_output=True, text=True, check=True)
        assert answer.stdout.startswith("True This image is open in another window")
    finally:
        child.kill()
        child.communicate()
    with CaseFolder.open(image) as case:
        assert not case.read_only


def test_where_the_disk_knows_no_locks_the_file_says_who(image, monkeypatch):
    from napari_medt.cases import lock

    monkeypatch.setattr(lock, "_try_lock", lambda handle: None)
    first = CaseFolder.open(image)
    assert not first.read_only
    assert CaseFolder.open(image).read_only
    for gone in (
        lock.Holder(os.getpid(), lock.Holder.me().host, time.time() - 10**6),  # the number was given to another process
        lock.Holder(2**22 + 1, lock.Holder.me().host, 0.0),
    ):
        (first.path / "lock").write_text(json.dumps(vars(gone)))
        second = CaseFolder.open(image)
        assert not second.read_only
        second.close()
    (first.path / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": 0.0}))
    assert "process 1 on elsewhere" in CaseFolder.open(image).notice


# -------------------------------------------------------------------------------------------------------------- faults


@pytest.fixture
def disk(monkeypatch):
    """A disk that can be filled: nothing more can be forced onto it then."""

    class Disk:
        full = False

    real = {name: getattr(os, name) for name in ("fsync", "fdatasync") if hasattr(os, name)}

    def guarded(sync):
        def call(handle):
            if Disk.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return sync(handle)

        return call

    for name, sync in real.items():
        monkeypatch.setattr(os, name, guarded(sync))
    return Disk


def test_a_full_disk_is_a_sentence_and_later_strokes_bring_all_back(image, stroke, disk):
    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    with CaseFolder.open(image, snapshot_every=4) as case:
        case.record(stroke(labels, journal, 1))
        good = labels.copy()
        disk.full = True
        for number in range(2, 8):
            with pytest.raises(StorageError, match="the disk is full; free some space"):
                case.record(stroke(labels, journal, number))
            np.testing.assert_array_equal(case.recover().labels, good)
        with pytest.raises(StorageError, match="the disk is full"):
            case.save(labels)
        assert case.pending == 6
        np.testing.assert_array_equal(case.recover().labels, good)
        disk.full = False
        case.record(stroke(labels, journal, 8))
        assert case.pending == 0
        np.testing.assert_array_equal(case.recover().labels, labels)
        assert [name for name in kept(case) if name.endswith(".tmp")] == []
    with CaseFolder.open(image) as case:
        np.testing.assert_array_equal(case.recover().labels, labels)


def test_a_disk_full_from_the_first_stroke(image, stroke, disk):
    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    case = CaseFolder.open(image)
    disk.full = True
    for number in (1, 2):
        with pytest.raises(StorageError, match="the disk is full"):
            case.record(stroke(labels, journal, number))
    disk.full = False
    case.record(stroke(labels, journal, 3))
    np.testing.assert_array_equal(case.recover().labels, labels)
    case.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sets no limit to a file's size")
def test_a_disk_that_takes_a_part_of_a_stroke(image, rng):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    labels, journal = np.zeros((40, 50), np.uint8), Journal()

    def run() -> None:
        before = labels.copy()
        labels[...] = rng.integers(0, 255, labels.shape, dtype=np.uint8)
        case.record(journal.record("run", before, labels))

    case = CaseFolder.open(image, snapshot_every=100)
    run()
    good = labels.copy()
    size = (case.path / "journal.bin").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 700, hard))
        with pytest.raises(StorageError, match="larger than this disk allows"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    np.testing.assert_array_equal(case.recover().labels, good)
    assert (case.path / "journal.bin").stat().st_size == size
    run()
    np.testing.assert_array_equal(case.recover().labels, labels)
    case.close()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs permissions that count")
def test_a_folder_that_may_not_be_written(image, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="you may not write there"):
        CaseFolder.open(image, root=tmp_path / "cases")


def test_a_file_where_the_folder_should_be(image, tmp_path):
    (tmp_path / "cases").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        CaseFolder.open(image, root=tmp_path / "cases")


def test_a_card_of_a_newer_version_of_another_image_or_damaged(image):
    with CaseFolder.open(image) as case:
        card = case.path / "case.json"
    good = card.read_text()
    card.write_text(good.replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(BadCase, match="newer version of napari-medt; update napari-medt"):
        CaseFolder.open(image)
    card.write_text(good.replace('"digest": "', '"digest": "0'))
    with pytest.raises(BadCase, match="belongs to another image"):
        CaseFolder.open(image)
    for damaged in ("", "{", "[]", good.replace("draft", "lost"), "\udcff"):
        card.write_bytes(damaged.encode(errors="surrogateescape"))
        with CaseFolder.open(image) as case:
            assert case.card.image == "slide 7.tif"
        assert json.loads(card.read_text())["digest"] == image_digest(image)


def test_a_closed_case_takes_nothing_more(image, stroke):
    case = CaseFolder.open(image)
    case.close()
    case.close()
    with pytest.raises(StorageError, match="was closed"):
        case.record(stroke(np.zeros((40, 50), np.uint8), Journal(), 1))


# --------------------------------------------------------------------------------------------------------- any sequence


class Review(RuleBasedStateMachine):
    """Whatever is painted, undone, saved, refused by the disk, closed or crashed: the folder gives the mask back."""

    @initialize(every=st.integers(1, 6), shape=st.sampled_from([(9, 8), (3, 5, 4)]))
    def start(self, every, shape):
        self.folder = tempfile.TemporaryDirectory()
        self.every = every
        self.image = Volume.from_array(np.ones(shape, np.uint8), rgb=False)
        self.labels, self.journal = np.zeros(shape, np.uint8), Journal()
        self.touched = False
        self._open()

    def _open(self):
        self.case = CaseFolder.open(self.image, root=Path(self.folder.name), snapshot_every=self.every)
        assert not self.case.read_only

    def teardown(self):
        if hasattr(self, "folder"):
            self.case.close()
            self.folder.cleanup()

    def _check(self):
        found = self.case.recover()
        if self.touched:
            np.testing.assert_array_equal(found.labels, self.labels)
            assert found.notes == ()
        else:
            assert found is None

    def _record(self, entry, fails=False):
        if entry is None:
            return
        if fails:
            with pytest.MonkeyPatch.context() as patch:
                for name in ("fsync", "fdatasync"):
                    patch.setattr(os, name, _full, raising=False)
                with pytest.raises(StorageError):
                    self.case.record(entry)
            self.unsure = True
        else:
            self.case.record(entry)
        self.touched = True

    @rule(seed=st.integers(0, 9999), fails=st.booleans())
    def paint(self, seed, fails):
        rng = np.random.default_rng(seed)
        before = self.labels.copy()
        start = [int(rng.integers(0, size)) for size in before.shape]
        self.labels[tuple(slice(a, a + int(rng.integers(1, 4))) for a in start)] = rng.integers(0, 4)
        entry = self.journal.record("brush", before, self.labels)
        self._record(entry, fails=fails)
        if fails:
            self.case.save() if seed % 2 else self.paint(seed + 1, False)
        self._check() if self.case.pending == 0 else None

    @rule()
    def undo(self):
        self._record(self.journal.undo(self.labels))
        self._check() if self.case.pending == 0 else None

    @rule()
    def redo(self):
        self._record(self.journal.redo(self.labels))
        self._check() if self.case.pending == 0 else None

    @precondition(lambda self: self.touched)
    @rule(given=st.booleans())
    def save(self, given):
        self.case.save(self.labels if given else None)
        self._check()

    @precondition(lambda self: self.case.pending == 0)
    @rule(crashed=st.booleans())
    def reopen(self, crashed):
        if crashed:
            self.case._lock.release()
        else:
            self.case.close()
        self._open()
        self._check()

    @rule()
    def discard(self):
        self.case.discard()
        self.labels[...] = 0
        self.journal.clear()
        self.touched = False
        self._check()


def _full(_: int) -> None:
    raise OSError(errno.ENOSPC, "full")


TestReview = Review.TestCase
TestReview.settings = settings(max_examples=25, stateful_step_count=20, suppress_health_check=list(HealthCheck))
