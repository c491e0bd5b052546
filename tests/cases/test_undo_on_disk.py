"""Undo and redo over restarts and crashes, and what is known of corrections then."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from napari_medt.cases import HAND, TOOL, CaseFolder, Entry, Journal
from napari_medt.cases.framed_log import FramedLog, frame
from napari_medt.core import BadCase, StorageError, Volume
from tests.cases.random_review import IMAGE, random_review


def digest(labels: np.ndarray) -> str:
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def reopened(image: Volume, **options) -> tuple[CaseFolder, np.ndarray, Journal]:
    case = CaseFolder.open(image, **options)
    found = case.recover()
    assert found.notes == ()
    return case, found.labels, case.journal()


# ------------------------------------------------------------------------------------------------------------ restarts


@pytest.mark.parametrize("every", [1, 3, 100])
def test_undo_and_redo_go_on_after_a_restart(image, stroke, every):
    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    masks = [labels.copy()]
    with CaseFolder.open(image, snapshot_every=every) as case:
        for number in range(1, 7):
            case.record(stroke(labels, journal, number))
            masks.append(labels.copy())
        case.record(journal.undo(labels))
        case.record(journal.undo(labels))
    case, labels, journal = reopened(image, snapshot_every=every)
    np.testing.assert_array_equal(labels, masks[4])
    assert journal.position == 4
    assert [entry.name for entry in journal.timeline] == [f"brush {number}" for number in range(1, 7)]
    assert journal.redo_name == "brush 5"
    case.record(journal.redo(labels))
    np.testing.assert_array_equal(labels, masks[5])
    case.record(*journal.jump(1, labels))
    np.testing.assert_array_equal(labels, masks[1])
    case.close()
    case, labels, journal = reopened(image)
    np.testing.assert_array_equal(labels, masks[1])
    case.record(*journal.jump(6, labels))
    np.testing.assert_array_equal(labels, masks[6])
    np.testing.assert_array_equal(case.recover().labels, masks[6])
    case.close()


def test_a_draft_nobody_asked_for_has_no_history(image, stroke):
    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    with CaseFolder.open(image) as case:
        case.record(stroke(labels, journal, 1))
    with CaseFolder.open(image) as case:
        assert case.journal().timeline == ()
        case.recover()
        assert len(case.journal().timeline) == 1
        case.discard()
        assert case.journal().timeline == ()


def test_a_mask_made_elsewhere_is_one_change(image, stroke, rng):
    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    with CaseFolder.open(image) as case:
        case.record(stroke(labels, journal, 1))
        painted = labels.copy()
        other = rng.integers(0, 3, (40, 50), dtype=np.uint8)
        case.save(other)
    case, labels, journal = reopened(image)
    np.testing.assert_array_equal(labels, other)
    case.record(journal.undo(labels))
    np.testing.assert_array_equal(labels, painted)
    case.close()


def test_a_step_the_folder_does_not_know_is_kept_with_its_values(image, stroke):
    """The window's history may reach further back than the folder's."""
    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    stroke(labels, journal, 1)
    with CaseFolder.open(image) as case:
        case.save(labels)
        case.record(stroke(labels, journal, 2))
        case.record(*journal.jump(0, labels))
        assert not case.recover().labels.any()
        case.record(journal.redo(labels))
        np.testing.assert_array_equal(case.recover().labels, labels)
    case, found, again = reopened(image)
    np.testing.assert_array_equal(found, labels)
    assert [entry.title for entry in again.timeline][-2:] == ["undo: brush 1", "redo: brush 1"]
    case.close()


def test_beyond_its_budget_the_journal_forgets_the_oldest_but_not_what_they_corrected(image, rng):
    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    with CaseFolder.open(image, snapshot_every=4, budget_bytes=60_000) as case:
        for number in range(40):
            before = labels.copy()
            labels[rng.integers(0, 40), :] = rng.integers(1, 200, 50)
            labels[:, number] = rng.integers(1, 200, 40)
            labels[:20, :20] = rng.integers(1, 200, (20, 20))
            case.record(journal.record("brush", before, labels, by="hand"))
            assert (case.path / "journal.bin").stat().st_size < 64_000
        case.record(journal.undo(labels))
        wanted = journal.edited_mask((40, 50))
    case, found, again = reopened(image)
    np.testing.assert_array_equal(found, labels)
    assert 4 < len(again.timeline) < 40
    assert again.position == len(again.timeline) - 1
    edited = again.edited_mask((40, 50))
    np.testing.assert_array_equal(edited.by, wanted.by)
    np.testing.assert_array_equal(edited.was, wanted.was)
    masks = [labels.copy()]
    while step := again.undo(found):
        case.record(step)
        masks.append(found.copy())
    for mask in reversed(masks[:-1]):
        case.record(again.redo(found))
        np.testing.assert_array_equal(found, mask)
    np.testing.assert_array_equal(case.recover().labels, labels)
    case.close()


def test_a_mask_changed_by_another_program_begins_a_new_history(image, stroke):
    import tifffile

    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    with CaseFolder.open(image) as case:
        case.record(stroke(labels, journal, 1))
    other = np.full((40, 50), 3, np.uint8)
    tifffile.imwrite(case.path / "mask.tif", other)
    with CaseFolder.open(image) as case:
        found = case.recover()
        np.testing.assert_array_equal(found.labels, other)
        assert "changed by another program" in found.notes[0]
        journal = case.journal()
        assert journal.timeline == ()
        labels = found.labels
        case.record(stroke(labels, journal, 2))
    case, found, journal = reopened(image)
    np.testing.assert_array_equal(found, labels)
    case.record(journal.undo(found))
    np.testing.assert_array_equal(found, other)
    case.close()


def test_a_mask_that_is_gone_is_made_anew_from_its_changes_while_all_are_there(image, stroke):
    labels = np.zeros((40, 50), np.uint8)
    with CaseFolder.open(image) as case:
        journal = case.journal()
        for number in range(5):
            case.record(stroke(labels, journal, number))
    (case.path / "mask.tif").unlink()
    case, found, journal = reopened(image)
    np.testing.assert_array_equal(found, labels)
    assert len(journal.timeline) == 5
    case.close()
    with CaseFolder.open(image, budget_bytes=1) as case:  # so small that every change is forgotten at once
        case.recover()
        case.record(stroke(labels, journal, 7))
    (case.path / "mask.tif").unlink()
    with CaseFolder.open(image) as case:
        assert case.recover() is None
        assert case.journal().timeline == ()
        labels, journal = np.zeros((40, 50), np.uint8), Journal()
        case.record(stroke(labels, journal, 8))
    case, found, journal = reopened(image)
    np.testing.assert_array_equal(found, labels)
    case.close()


def test_a_journal_of_the_first_form_is_read(image, stroke):
    labels, journal = np.zeros((40, 50), np.uint8), Journal()
    entries = [stroke(labels, journal, number) for number in range(3)]
    entries.append(journal.undo(labels))
    with CaseFolder.open(image) as case:
        log = FramedLog.start(case.path / "journal.bin", b'{"version": 1, "base": 0, "blank": true}')
        for number, entry in enumerate(entries, 1):
            log.append(frame(_as_it_was_written(entry, number)))
        log.close()
    case, found, journal = reopened(image)
    np.testing.assert_array_equal(found, labels)
    assert [entry.title for entry in journal.timeline] == ["brush 0", "brush 1", "brush 2", "undo: brush 2"]
    assert not journal.jump(0, found)[-1].after().any()
    assert not found.any()
    case.close()


def _as_it_was_written(entry: Entry, number: int) -> bytes:
    data = entry.to_bytes(number)
    (length,) = struct.unpack_from("<I", data)
    head = json.loads(data[4 : 4 + length])
    old = json.dumps({name: head[name] for name in head if name not in ("by", "value", "id")}).encode()
    return struct.pack("<I", len(old)) + old + data[4 + length :]


# --------------------------------------------------------------------------------------------------------- corrections


def test_the_corrected_voxels_are_those_a_hand_or_a_tool_changed_and_nobody_took_back():
    labels, journal = np.zeros((4, 6), np.uint8), Journal()

    def change(place, value, by):
        before = labels.copy()
        labels[place] = value
        journal.record(by, before, labels, by=by)

    change(np.s_[:, 1:5], 1, "model")
    change(np.s_[0, 1:3], 0, "hand")  # taken away
    change(np.s_[3, :], 2, "tool")  # added, and given to another structure
    change(np.s_[0, 1], 1, "hand")  # and back again
    change(np.s_[1, 0], 3, "hand")
    journal.undo(labels)
    edited = journal.edited_mask(labels.shape)
    wanted = np.zeros((4, 6), int)
    wanted[0, 2] = HAND
    wanted[3, :] = TOOL
    np.testing.assert_array_equal(edited.by, wanted)
    assert edited.was[0, 2] == 1
    assert edited.was[3].tolist() == [0, 1, 1, 1, 1, 0]
    assert edited.by.dtype == np.uint8
    change(np.s_[3, :3], 0, "model")  # a new run takes out what it changes
    wanted[3, :3] = 0
    np.testing.assert_array_equal(journal.edited_mask(labels.shape).by, wanted)
    journal.jump(0, labels)
    assert not journal.edited_mask(labels.shape).by.any()
    journal.jump(5, labels)
    with pytest.raises(BadCase, match="do not fit"):
        journal.edited_mask((2, 2))
    with pytest.raises(BadCase, match="no place 6, only 0 to 5"):
        journal.jump(6, labels)


def test_what_is_forgotten_for_memory_is_still_known_as_corrected(rng):
    """A journal without a file forgets the oldest changes; against it one that forgets nothing."""
    small, large, labels = Journal(budget_bytes=8_000), Journal(), np.zeros((30, 40), np.uint16)
    for number in range(30):
        before = labels.copy()
        y, x = rng.integers(0, 30), rng.integers(0, 40)
        labels[y : y + 12, x : x + 9] = rng.integers(0, 900, labels[y : y + 12, x : x + 9].shape)
        for journal in (small, large):
            journal.record("change", before, labels, by=("hand", "tool", "model")[number % 3])
    assert small.lost > 5
    for got, wanted in zip(*(vars(j.edited_mask((30, 40))).values() for j in (small, large)), strict=True):
        np.testing.assert_array_equal(got, wanted)


# --------------------------------------------------------------------------------------------------------- any sequence


class Everything(RuleBasedStateMachine):
    """Brush, tool, model, undo, redo, jump, save, full disk, restart and crash: a list of copies says what must be there."""

    @initialize(
        every=st.integers(1, 5), budget=st.sampled_from([3_000, 10**6]), shape=st.sampled_from([(9, 8), (3, 5, 4)])
    )
    def start(self, every, budget, shape):
        self.folder = tempfile.TemporaryDirectory()
        self.options = {"root": Path(self.folder.name), "snapshot_every": every, "budget_bytes": budget}
        self.complete = budget > 10**5
        self.image = Volume.from_array(np.ones(shape, np.uint8), rgb=False)
        self.case = CaseFolder.open(self.image, **self.options)
        self.labels, self.journal = np.zeros(shape, np.uint8), self.case.journal()
        self.masks, self.at = [digest(self.labels)], 0

    def teardown(self):
        if hasattr(self, "folder"):
            self.case.close()
            self.folder.cleanup()

    @rule(seed=st.integers(0, 9999), by=st.sampled_from(["hand", "tool", "model"]), full=st.booleans())
    def change(self, seed, by, full):
        rng = np.random.default_rng(seed)
        before = self.labels.copy()
        if by == "model":
            self.labels[...] = rng.integers(0, 4, before.shape)
        else:
            start = [int(rng.integers(0, size)) for size in before.shape]
            self.labels[tuple(slice(a, a + int(rng.integers(1, 4))) for a in start)] = rng.integers(0, 4)
        entry = self.journal.record(by, before, self.labels, by=by)
        if entry is None:
            return
        if full:
            with pytest.MonkeyPatch.context() as patch:
                for name in ("fsync", "fdatasync"):
                    patch.setattr(os, name, _full, raising=False)
                with pytest.raises(StorageError, match="disk is full"):
                    self.case.record(entry)
            assert self.case.pending
            self.case.save()
        else:
            self.case.record(entry)
        self.at += 1
        self.masks = [*self.masks[: self.at], digest(self.labels)]

    @rule(count=st.integers(1, 4), back=st.booleans())
    def step(self, count, back):
        for _ in range(count):
            entry = self.journal.undo(self.labels) if back else self.journal.redo(self.labels)
            if entry is not None:
                self.case.record(entry)
                self.at += -1 if back else 1

    @precondition(lambda self: self.journal.timeline)
    @rule(data=st.data())
    def jump(self, data):
        here = self.journal.position
        wanted = data.draw(st.integers(0, len(self.journal.timeline)))
        self.case.record(*self.journal.jump(wanted, self.labels))
        self.at += wanted - here

    @rule()
    def save(self):
        self.case.save()

    @rule(crashed=st.booleans())
    def restart(self, crashed):
        left = len(self.journal.timeline)
        if crashed:
            self.case._lock.release()
        else:
            self.case.close()
        self.case = CaseFolder.open(self.image, **self.options)
        found = self.case.recover()
        if found is None:
            assert self.masks == self.masks[:1]
            return
        assert found.notes == ()
        self.labels, self.journal = found.labels, self.case.journal()
        # A journal within its budget may have forgotten the oldest changes, and begin further on.
        assert len(self.journal.timeline) == left or not self.complete

    @invariant()
    def all_is_as_the_copies_say(self):
        if not hasattr(self, "case"):
            return
        assert digest(self.labels) == self.masks[self.at]
        assert self.complete is False or len(self.journal.timeline) == len(self.masks) - 1
        found = self.case.recover()
        if found is not None:
            assert digest(found.labels) == self.masks[self.at]
        # Any number of undos gives the mask from before.
        labels, here = self.labels.copy(), self.journal.position
        for taken in range(1, here + 1):
            self.journal.undo(labels)
            assert digest(labels) == self.masks[self.at - taken]
        self.journal.jump(here, labels)
        assert digest(labels) == self.masks[self.at]


def _full(_: int) -> None:
    raise OSError(errno.ENOSPC, "full")


TestEverything = Everything.TestCase
TestEverything.settings = settings(max_examples=20, stateful_step_count=20, suppress_health_check=list(HealthCheck))


# ---------------------------------------------------------------------------------------------------------------- kills

WRITER = """
import sys
from tests.cases.random_review import IMAGE, random_review
from napari_medt.cases import CaseFolder

case = CaseFolder.open(IMAGE, snapshot_every=5, budget_bytes=60_000)
for number, (steps, *_) in enumerate(random_review(int(sys.argv[1]))):
    case.record(*steps)
    print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_every_finished_stroke_is_there(seed, root):
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(seed)], stdout=subprocess.PIPE, text=True, cwd=root)
    assert child.stdout.readline() == "0\n"
    time.sleep(float(np.random.default_rng(seed).uniform(0.05, 0.9)))
    child.kill()
    said = child.communicate()[0].splitlines()
    finished = int(said[-1]) if said else 0

    case, found, again = reopened(IMAGE)
    # One more may have reached the disk, but not the pipe.
    review = itertools.islice(random_review(seed), finished, finished + 2)
    labels, journal = next((mask, past) for _, mask, past in review if (mask == found).all())
    assert again.position > 3
    while again.undo(found):
        journal.undo(labels)
        np.testing.assert_array_equal(found, labels)
    assert case.verify() == ""
    case.close()
