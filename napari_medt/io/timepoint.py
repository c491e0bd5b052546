"""Films: which of their time points is meant."""

from __future__ import annotations

from collections.abc import Sequence

from napari_medt.core import AmbiguousImage, Choice


def chosen_time(count: int, choose: Sequence[str], name: str, *, others: Sequence[Choice] = ()) -> int:
    """Return the index of the time point to read.

    Parameters
    ----------
    count
        How many there are.
    choose
        What the user chose; `"t=3"` is the fourth.
    name
        Of the file, for the question.
    others
        Further ways to read the file.

    Raises
    ------
    AmbiguousImage
        If there are several and none was chosen.
    """
    keys = [f"t={index}" for index in range(count)]
    for key in choose:
        if key in keys:
            return keys.index(key)
    if count == 1:
        return 0
    choices = [Choice(key, f"time point {index + 1} of {count}") for index, key in enumerate(keys)]
    raise AmbiguousImage(f"{name} is a film of {count} time points", [*others, *choices])
