"""Sign-off, the log whose lines hold each other, locks, slices seen, and what is handed over."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medt.cases import CaseFolder, CaseLog, Journal, Protection, SlicesSeen, mask_digest
from napari_medt.cases.report import export
from napari_medt.core import BadCase, Geometry, StorageError, Volume
from napari_medt.io import read_labels


@pytest.fixture
def scan(rng) -> Volume:
    values = rng.integers(0, 99, (6, 30, 20), dtype=np.int16)
    return Volume.from_array(values, geometry=Geometry.from_spacing((2.0, 0.5, 0.5), units="mm"), rgb=False)


def whats(case: CaseFolder) -> list[str]:
    return [line.what for line in case.log.lines()]


# ------------------------------------------------------------------------------------------------------------ sign-off


def test_an_accepted_mask_is_named_in_card_and_log_and_lies_in_its_file(scan, stroke):
    labels, journal = np.zeros((6, 30, 20), np.uint8), Journal()
    with CaseFolder.open(scan) as case:
        with pytest.raises(BadCase, match="no mask to decide on; run the model or paint first"):
            case.accept("Dr. A")
        case.record(stroke(labels, journal, 3))
        with pytest.raises(BadCase, match="give a name"):
            case.accept("  ")
        signed = case.accept("Dr. A", remark="ok")
        assert (case.status, signed.by, signed.mask) == ("accepted", "Dr. A", mask_digest(labels))
        found, _ = read_labels(case.path / "mask.tif")
        np.testing.assert_array_equal(found, labels)
    with CaseFolder.open(scan) as case:
        assert case.recover().notes == ()
        assert (case.status, case.card.sign_off) == ("accepted", signed)
        line = next(line for line in case.log.lines() if line.what == "decided")
        assert line.hash == signed.log
        assert (line.facts["by"], line.facts["mask"], line.facts["remark"]) == ("Dr. A", signed.mask, "ok")


@pytest.mark.parametrize("how", ["stroke", "undo", "save", "discard", "another program"])
def test_any_change_takes_the_acceptance_away(scan, stroke, how):
    import tifffile

    labels, journal = np.zeros((6, 30, 20), np.uint8), Journal()
    with CaseFolder.open(scan) as case:
        case.record(stroke(labels, journal, 3))
        case.accept("Dr. A")
        case.save()
        case.save(labels)
        assert case.status == "accepted", "nothing was changed"
        if how in ("stroke", "undo"):
            case.record(stroke(labels, journal, 4) if how == "stroke" else journal.undo(labels))
        elif how == "save":
            case.save(labels + 1)
        elif how == "discard":
            case.discard()
        else:
            tifffile.imwrite(case.path / "mask.tif", labels + 1)
    with CaseFolder.open(scan) as case:
        found = case.recover()
        told = "another program" if how == "another program" else ""
        if told:
            assert any("changed after Dr. A accepted it" in note for note in found.notes)
        assert (case.status, case.card.sign_off) == ("draft", None)
        assert whats(case).count("no longer accepted") == 1
        assert case.verify() == ""


def test_a_second_look_stays_while_the_mask_is_mended(scan, stroke):
    labels, journal = np.zeros((6, 30, 20), np.uint8), Journal()
    with CaseFolder.open(scan) as case:
        case.record(stroke(labels, journal, 3))
        case.reject("Dr. B", remark="upper pole")
        case.record(stroke(labels, journal, 4))
        assert case.status == "second look"
        case.accept("Dr. A")
        assert case.status == "accepted"


def test_the_digest_of_a_mask_is_that_of_its_values(rng):
    labels = rng.integers(0, 9, (3, 4, 5), dtype=np.uint8)
    same = {mask_digest(labels.astype(kind)) for kind in ("uint8", "int32", "uint16", "int64", ">u2")}
    assert same == {mask_digest(np.asfortranarray(labels))}
    assert mask_digest(labels > 4) == mask_digest((labels > 4).astype(np.uint32))
    other = labels.copy()
    other[2, 3, 4] += 1
    assert len({mask_digest(other), mask_digest(labels), mask_digest(labels.reshape(4, 3, 5))}) == 3


# ----------------------------------------------------------------------------------------------------------------- log


@pytest.fixture
def written(tmp_path) -> CaseLog:
    log = CaseLog(tmp_path)
    for number in range(5):
        log.add("run", model=f"m{number}", settings={"flips": True})
    return log


def test_a_log_goes_on_where_it_ended(written, tmp_path):
    assert CaseLog(tmp_path).add("looked").number == 6
    assert CaseLog(tmp_path).verify() == ""
    assert [line.number for line in written.lines()] == [1, 2, 3, 4, 5, 6]


@given(seed=st.integers(0, 10_000))
def test_whatever_is_changed_in_a_log_shows(seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    log = CaseLog(tmp_path_factory.mktemp("log"))
    last = [log.add("run", model=f"m{number}") for number in range(4)][-1]
    lines = log.path.read_bytes().splitlines(keepends=True)
    which, kind = int(rng.integers(0, 4)), seed % 5
    if kind == 0:
        del lines[which]
    elif kind == 1:
        lines.insert(which, lines[which])
    elif kind == 2:
        other = (which + 1) % 4
        lines[which], lines[other] = lines[other], lines[which]
    elif kind == 3:
        lines[which] = lines[which].replace(b'"m', b'"n')
    else:
        lines[which] = lines[which].replace(b"T", b" ", 1)
    log.path.write_bytes(b"".join(lines))
    assert CaseLog(log.path.parent).verify(holding=last.hash)


def test_a_line_cut_short_by_a_crash_counts_as_never_written(written, tmp_path):
    whole = written.path.read_bytes()
    for cut in (1, 20, 100):
        written.path.write_bytes(whole[:-cut])
        again = CaseLog(tmp_path)
        assert (len(again.lines()), again.verify()) == (4, "")
        assert again.add("opened").number == 5
        assert CaseLog(tmp_path).verify() == ""


def test_a_line_nobody_can_read_is_told(written, tmp_path):
    written.path.write_bytes(written.path.read_bytes() + b"hello\n")
    again = CaseLog(tmp_path)
    assert again.verify().startswith("Line 6 of")
    with pytest.raises(BadCase, match="cannot be understood"):
        again.add("opened")


def test_a_removed_decision_shows(scan, stroke):
    with CaseFolder.open(scan) as case:
        case.record(stroke(np.zeros((6, 30, 20), np.uint8), Journal(), 3))
        case.accept("Dr. A")
        lines = case.log.path.read_bytes().splitlines(keepends=True)
        case.log.path.write_bytes(b"".join(lines[:-1]))
        assert "lacks the line of the decision" in case.verify()
        with pytest.raises(BadCase, match="lacks the line of the decision"):
            export(case, case.path / "out.nii.gz")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sets no limit to a file's size")
def test_a_full_disk_leaves_the_log_as_it_was(written, tmp_path):
    import resource

    whole = written.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 30, hard))
        with pytest.raises(StorageError, match="larger than this disk allows"):
            written.add("run", model="m5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert written.path.read_bytes() == whole
    assert written.add("run", model="m5").number == 6
    assert CaseLog(tmp_path).verify() == ""


def test_only_who_may_write_the_case_writes_its_log(scan):
    first = CaseFolder.open(scan)
    second = CaseFolder.open(scan)
    with pytest.raises(StorageError, match="not open for writing"):
        second.log.add("opened")
    first.close()
    with pytest.raises(StorageError, match="not open for writing"):
        first.log.add("opened")
    assert whats(first) == ["opened"]


# ------------------------------------------------------------------------------------------------------- slices, locks


@given(size=st.integers(1, 40), marks=st.lists(st.tuples(st.sampled_from("zyxt"), st.integers(-3, 45)), max_size=30))
def test_slices_seen_come_back_from_their_ranges(size, marks):
    seen = SlicesSeen((size, 9, 7))
    for axis, index in marks:
        seen.mark(axis, index)
    wanted = {
        axis: len({i for a, i in marks if a == axis and 0 <= i < n}) / n
        for axis, n in zip("zyx", (size, 9, 7), strict=True)
    }
    assert seen.share == pytest.approx(wanted)
    again = SlicesSeen((size, 9, 7))
    again.add(json.loads(json.dumps(seen.facts())))
    assert again.facts() == seen.facts()


def test_slices_seen_add_up_over_sessions(scan):
    for indices in ((0, 1), (1, 2, 5)):
        with CaseFolder.open(scan) as case:
            seen = SlicesSeen(case.card.shape)
            for index in indices:
                seen.mark("z", index)
            case.log.looked(seen)
    with CaseFolder.open(scan) as case:
        assert case.log.seen(case.card.shape).facts()["z"] == {"seen": "0-2, 5", "of": 6, "share": 0.6667}


def test_locks_and_frozen_regions_stay_with_the_case(scan, rng):
    frozen = rng.random((6, 30, 20)) > 0.5
    with CaseFolder.open(scan) as case:
        assert (case.protection.locked, case.protection.frozen) == ((), None)
        case.protect(Protection((2, 7), frozen))
        with pytest.raises(BadCase, match="do not belong to a mask"):
            case.protect(Protection((), frozen[1:]))
    with CaseFolder.open(scan) as case:
        assert case.protection.locked == (2, 7)
        np.testing.assert_array_equal(case.protection.frozen, frozen)
        case.protect(Protection((3,)))
        assert (case.protection.locked, case.protection.frozen) == ((3,), None)
        path = case.path / "protection.npz"
        for damaged in (b"", b"x", path.read_bytes()[:-30]):
            path.write_bytes(damaged)
            with pytest.raises(BadCase, match="set the locks anew"):
                _ = case.protection


# -------------------------------------------------------------------------------------------------------------- export


def test_what_is_handed_over_says_how_it_came_about(scan, tmp_path):
    labels = np.zeros((6, 30, 20), np.uint8)
    with CaseFolder.open(scan) as case:
        journal = case.journal()
        case.log.ran("organs", version="3", weights_sha256="ab", settings={"flips": False})
        before = labels.copy()
        labels[1:4, 5:15, 5:15] = 1
        case.record(journal.record("run organs", before, labels, by="model"))
        case.log.loaded("vessels.nii.gz")
        before = labels.copy()
        labels[2, 7, 7:9] = 2
        case.record(journal.record("brush", before, labels, by="hand", structure="vessel", value=2))
        with pytest.raises(BadCase, match="is not accepted; accept it first"):
            export(case, tmp_path / "mask.nii.gz")
        signed = case.accept("Dr. A")
        mask, record = export(case, tmp_path / "mask.nii.gz", names={1: "liver", 2: "vessel", 3: "gone"})
        found, geometry = read_labels(mask)
        np.testing.assert_array_equal(found, labels)
        assert geometry.spacing == pytest.approx((2.0, 0.5, 0.5))
        facts = json.loads(record.read_text(encoding="utf-8"))
        assert facts["structures"] == [
            {"value": 1, "name": "liver", "voxels": 298, "volume_ml": 0.149},
            {"value": 2, "name": "vessel", "voxels": 2, "volume_ml": 0.001},
        ]
        assert (facts["accepted_by"], facts["accepted"]) == ("Dr. A", signed.when)
        assert facts["mask_digest"] == mask_digest(found)
        assert facts["changes"] == {"model": 1, "hand": 1}
        assert facts["models"][0]["weights_sha256"] == "ab"
        assert [told["file"] for told in facts["files"]] == ["vessels.nii.gz"]
        assert facts["share_of_slices_seen"] == {"z": 0.0, "y": 0.0, "x": 0.0}
        assert case.log.verify(holding=facts["log_hash"]) == ""
        case.record(journal.undo(labels))
        with pytest.raises(BadCase, match="is not accepted"):
            export(case, tmp_path / "mask.nii.gz")
