from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_medt.core import BadImage, Geometry, Volume
from napari_medt.io import join_channels, read

PLACE = Geometry.from_spacing((3, 1, 1), origin=(5, 6, 7), units="mm", frame="patient")


def one(value: float, *, geometry: Geometry = PLACE, shape=(4, 5, 6), source: str = "", dtype=np.int16) -> Volume:
    return Volume(np.full((1, *shape), value, dtype), geometry, source=source)


def test_channels_are_named_by_what_differs_and_never_by_the_patient():
    parts = ("T1w", "T2w", "FLAIR")
    joined = join_channels([one(i, source=f"/data/anna/sub-Anna_ses-2_{part}.nii.gz") for i, part in enumerate(parts)])
    assert joined.channel_names == parts
    assert joined.array[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert joined.geometry == PLACE
    assert joined.notes == ()
    assert join_channels([one(1, source="a.nii"), one(2, source="a.nii")]).channel_names == ("channel 1", "channel 2")
    assert join_channels([one(1)]).channel_names == ("channel 1",)


def test_an_image_of_another_grid_is_resampled_to_the_first_and_a_note_says_so():
    ramp = np.arange(12, dtype=np.float32)[:, None, None] * np.ones((12, 5, 6), np.float32)
    finer = Volume(ramp[None], PLACE.part((0, 0, 0), step=(1 / 3, 1, 1)), source="x_b.nii")
    joined = join_channels([one(1, source="x_a.nii"), finer])
    assert joined.array.shape == (2, 4, 5, 6)
    assert joined.array.dtype == np.float32
    np.testing.assert_allclose(joined.array[1, :, 2, 2], [0, 3, 6, 9], atol=1e-5)
    assert joined.notes == ("b was made on another grid and has been resampled to that of the first image",)


def test_images_of_several_channels_keep_their_names():
    pair = Volume(np.zeros((2, 4, 5, 6), np.uint8), PLACE, ("fat", "water"), source="p_dixon.nii")
    joined = join_channels([pair, one(3, source="p_t2.nii")])
    assert joined.channel_names == ("dixon fat", "dixon water", "t2")
    assert joined.array.dtype == np.int16


def test_large_images_stay_on_disk():
    parts = [Volume(da.full((1, 4, 5, 6), i, dtype=np.uint8, chunks=3), PLACE) for i in range(3)]
    joined = join_channels(parts)
    assert hasattr(joined.array, "dask")
    assert np.asarray(joined.array[:, 1, 1, 1]).tolist() == [0, 1, 2]


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(BadImage, match="no images to join"):
        join_channels([])
    with pytest.raises(BadImage, match="b lies outside the first image"):
        join_channels([one(1, source="a.nii"), one(2, geometry=PLACE.part((500, 0, 0)), source="b.nii")])
    with pytest.raises(BadImage, match="cannot be put on a grid"):
        join_channels([one(1), one(2, geometry=Geometry.from_spacing((3, 1, 1)))])


def test_four_scans_of_a_real_patient(data_folder):
    folder = data_folder / "brain_ms_4ch"
    paths = [folder / f"patient07_{name}.nii.gz" for name in ("T1", "T2", "FLAIR", "T1POST")]
    if not all(path.is_file() for path in paths):
        pytest.skip("needs brain_ms_4ch")
    joined = join_channels([read(path) for path in paths])
    assert joined.channel_names == ("T1", "T2", "FLAIR", "T1POST")
    assert joined.array.shape[0] == 4
    for channel in joined.array:
        assert channel.std() > 0
