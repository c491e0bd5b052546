from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from napari_medt.cases import Journal
from napari_medt.cases.entry import changed_box
from napari_medt.core import BadCase


def test_the_box_is_the_smallest_that_holds_every_change(rng):
    for shape in ((9, 12), (5, 7, 6), (1, 1), (300, 4)):
        before = rng.integers(0, 3, shape, dtype=np.uint8)
        for count in (1, 2, 5):
            after = before.copy()
            places = tuple(rng.integers(0, size, count) for size in shape)
            after[places] += 1
            where = np.argwhere(before != after)
            wanted = tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))
            assert changed_box(before, after) == wanted


def test_nothing_changed_is_no_entry():
    labels, journal = np.zeros((4, 5), np.uint8), Journal()
    assert journal.record("brush", labels, labels.copy()) is None
    assert journal.undo_name == ""
    assert journal.undo(labels) is None
    assert journal.redo(labels) is None


def test_an_entry_says_what_where_and_when():
    labels, journal = np.zeros((4, 5), np.uint8), Journal()
    before = labels.copy()
    labels[1:3, 2] = 7
    entry = journal.record("fill between slices", before, labels, structure="liver")
    assert (entry.name, entry.structure, entry.kind) == ("fill between slices", "liver", "edit")
    assert entry.box == ((1, 3), (2, 3))
    assert entry.before().tolist() == [[0], [0]]
    assert entry.after().tolist() == [[7], [7]]
    assert abs(entry.time - time.time()) < 60
    assert journal.undo_name == "fill between slices, liver"
    assert journal.redo_name == ""
    taken_back = journal.undo(labels)
    assert taken_back.kind == "undo"
    assert taken_back.box == entry.box
    assert taken_back.after().tolist() == [[0], [0]]
    assert journal.redo_name == "fill between slices, liver"


def test_what_is_recorded_is_a_copy():
    labels, journal = np.zeros((4, 5), np.uint8), Journal()
    changed = labels.copy()
    changed[0, 0] = 1
    entry = journal.record("brush", labels, changed)
    changed[0, 0] = 9
    assert entry.after().tolist() == [[1]]
    entry.after()[:] = 5
    assert entry.after().tolist() == [[1]]


def test_undo_without_a_mask_gives_the_values_to_the_caller():
    labels, journal = np.zeros((4, 5), np.uint8), Journal()
    changed = labels.copy()
    changed[1, 1] = 3
    journal.record("brush", labels, changed)
    entry = journal.undo()
    changed[entry.slices] = entry.after()
    np.testing.assert_array_equal(changed, labels)
    entry = journal.redo()
    changed[entry.slices] = entry.after()
    assert changed[1, 1] == 3


def test_strided_and_reversed_views(rng):
    base = rng.integers(0, 9, (20, 30), dtype=np.uint16)
    labels, journal = base[::-2, ::3], Journal()
    before = labels.copy()
    labels[2:5, 3] = 100
    journal.record("brush", before, labels)
    journal.undo(labels)
    np.testing.assert_array_equal(labels, before)


def test_other_masks_are_refused_and_untouched():
    journal = Journal()
    small = np.zeros((4, 5), np.uint16)
    changed = small.copy()
    changed[3, 4] = 999
    with pytest.raises(BadCase, match=r"shape \(4, 5\) cannot become one of shape \(5, 5\)"):
        journal.record("brush", small, np.zeros((5, 5), np.uint16))
    with pytest.raises(BadCase, match="type uint16 cannot become one of type uint8"):
        journal.record("brush", small, changed.astype(np.uint8))
    with pytest.raises(BadCase, match="whole numbers"):
        journal.record("brush", small.astype(float), changed.astype(float))
    with pytest.raises(BadCase, match="does not fit its box"):
        journal.record_box("brush", (slice(0, 2), slice(0, 2)), small, changed)
    journal.record("brush", small, changed)
    for other, said in (
        (np.ones((3, 3), np.uint16), "does not fit a mask of shape"),
        (np.ones((4, 5, 6), np.uint16), "does not fit a mask of shape"),
        (np.ones((4, 5), np.uint8), "cannot hold"),
    ):
        with pytest.raises(BadCase, match=said):
            journal.undo(other)
        assert (other == 1).all()
    assert journal.undo_name == "brush"
    wider = changed.astype(np.int32)  # the layer was given a wider type meanwhile
    journal.undo(wider)
    assert not wider.any()


def test_a_new_change_drops_what_was_undone(stroke):
    labels, journal = np.zeros((20, 20), np.uint8), Journal()
    stroke(labels, journal, 1)
    stroke(labels, journal, 2)
    journal.undo(labels)
    stroke(labels, journal, 3)
    assert journal.redo(labels) is None
    assert [entry.name for entry in journal.entries] == ["brush 1", "brush 3"]


def noise(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 255, (64, 64), dtype=np.uint8)


def test_beyond_the_budget_the_oldest_are_forgotten(rng):
    journal, masks = Journal(budget_bytes=60_000), [noise(rng)]
    for number in range(20):
        masks.append(noise(rng))
        journal.record(f"run {number}", masks[-2], masks[-1])
        assert journal.nbytes <= 60_000
    kept = len(journal.entries)
    assert 0 < kept < 20
    assert journal.lost == 20 - kept
    labels = masks[-1].copy()
    for step in range(kept):
        journal.undo(labels)
        np.testing.assert_array_equal(labels, masks[-2 - step])
    assert journal.undo(labels) is None


def test_the_newest_change_stays_however_large(rng):
    journal, before = Journal(budget_bytes=10), noise(rng)
    after = noise(rng)
    journal.record("run", before, after)
    journal.undo(after)
    np.testing.assert_array_equal(after, before)


def test_with_a_spill_file_all_can_be_undone(rng, tmp_path):
    spill = tmp_path / "history.bin"
    journal, masks = Journal(budget_bytes=60_000, spill=spill), [noise(rng)]
    for number in range(20):
        masks.append(noise(rng))
        journal.record(f"run {number}", masks[-2], masks[-1])
        assert journal.nbytes <= 60_000
    assert spill.stat().st_size > 60_000
    assert (len(journal.entries), journal.lost) == (20, 0)
    labels = masks[-1].copy()
    for mask in reversed(masks[:-1]):
        journal.undo(labels)
        np.testing.assert_array_equal(labels, mask)
    for mask in masks[1:]:
        journal.redo(labels)
        np.testing.assert_array_equal(labels, mask)
    journal.close()
    assert not spill.exists()


def test_a_spill_that_is_gone_is_a_sentence(rng, tmp_path):
    spill = tmp_path / "history.bin"
    journal, labels = Journal(budget_bytes=1000, spill=spill), noise(rng)
    for _ in range(3):
        before, labels = labels, noise(rng)
        journal.record("run", before, labels)
    spill.unlink()
    journal.undo(labels)
    with pytest.raises(Exception, match="could not be read") as caught:
        journal.undo(labels)
    assert type(caught.value).__name__ == "StorageError"
    assert journal.undo_name == "run"


def test_a_spill_that_cannot_be_written_costs_only_the_oldest(rng, tmp_path):
    journal, labels = Journal(budget_bytes=20_000, spill=tmp_path / "no" / "history.bin"), noise(rng)
    for _ in range(8):
        before, labels = labels, noise(rng)
        journal.record("run", before, labels)
    assert journal.lost > 0
    journal.undo(labels)
    np.testing.assert_array_equal(labels, before)


def test_threads_may_share_it():
    journal = Journal()

    def work(row: int) -> None:
        for value in range(1, 50):
            box = (slice(row, row + 1), slice(0, 8))
            journal.record_box("brush", box, np.full((1, 8), value - 1, np.uint8), np.full((1, 8), value, np.uint8))

    threads = [threading.Thread(target=work, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    labels = np.full((4, 8), 49, np.uint8)
    while journal.undo(labels):
        pass
    assert not labels.any()


def test_a_stroke_with_a_known_box_takes_milliseconds():
    labels, journal = np.zeros((2048, 2048), np.uint8), Journal()
    box = (slice(900, 1000), slice(900, 1000))
    before, after = labels[box].copy(), np.ones((100, 100), np.uint8)
    best = min(_timed(lambda: journal.record_box("brush", box, before, after)) for _ in range(10))
    assert best < 0.005


def _timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class History(RuleBasedStateMachine):
    """Any sequence of changes, undo and redo: the mask is always what a list of copies says it is."""

    @initialize(
        shape=hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6),
        dtype=st.sampled_from(["uint8", "uint16", "uint32", "int32", "int64"]),
        budget=st.sampled_from([0, 2_000, 2**20]),
        spilling=st.booleans(),
    )
    def start(self, shape, dtype, budget, spilling):
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        spill = Path(self.folder.name) / "history.bin" if spilling else None
        self.keeps_all = spilling or budget > 10**6
        self.labels = np.zeros(shape, dtype)
        self.journal = Journal(budget_bytes=budget, spill=spill)
        self.past, self.future = [], []

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(data=st.data(), box_known=st.booleans())
    def change(self, data, box_known):
        before = self.labels.copy()
        box = []
        for size in before.shape:
            start = data.draw(st.integers(0, size - 1))
            box.append(slice(start, data.draw(st.integers(start + 1, size))))
        box = tuple(box)
        elements = st.integers(0, min(255, np.iinfo(before.dtype).max))
        self.labels[box] = data.draw(hnp.arrays(before.dtype, before[box].shape, elements=elements))
        if box_known:
            self.journal.record_box("tool", box, before[box], self.labels[box])
        elif self.journal.record("tool", before, self.labels) is None:
            assert (before == self.labels).all()
            return
        self.past.append(before)
        self.future.clear()

    @precondition(lambda self: self.past)
    @rule()
    def undo(self):
        now = self.labels.copy()
        entry = self.journal.undo(self.labels)
        if entry is None:
            assert not self.keeps_all
            self.past.clear()
            return
        self.future.append(now)
        np.testing.assert_array_equal(self.labels, self.past.pop())

    @precondition(lambda self: self.future)
    @rule()
    def redo(self):
        self.past.append(self.labels.copy())
        assert self.journal.redo(self.labels).kind == "redo"
        np.testing.assert_array_equal(self.labels, self.future.pop())

    @invariant()
    def names_agree(self):
        if hasattr(self, "journal"):
            assert bool(self.journal.redo_name) == bool(self.future)
            if self.keeps_all:
                assert len(self.journal.entries) == len(self.past)
                assert self.journal.lost == 0


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=40, stateful_step_count=25, suppress_health_check=list(HealthCheck))
