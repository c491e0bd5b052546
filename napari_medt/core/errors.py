"""The errors a user may meet: each says what happened, why, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MOST_TOLD = 6  # of choices, in one sentence


class MedtError(Exception):
    """Base of all errors of this package; its text is one plain sentence for the user.

    Parameters
    ----------
    what
        What happened and why, without a closing full stop.
    remedy
        What the user can do about it, as an imperative clause; may be empty.
    """

    def __init__(self, what: str, *, remedy: str = "") -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}; {remedy}." if remedy else f"{what}.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep everything on the way to another process, also where a subclass takes other arguments."""
        return _as_it_was, (type(self), str(self), dict(self.__dict__))


def _as_it_was(kind: type[MedtError], text: str, values: dict[str, Any]) -> MedtError:
    error = kind.__new__(kind, text)
    error.__dict__.update(values)
    return error


class BadImage(MedtError):
    """The image cannot be used: unreadable, empty, of the wrong shape or content."""


@dataclass(frozen=True)
class Choice:
    """One way to read an ambiguous file: what to give as `choose`, and what it means, for people."""

    key: str
    title: str


class AmbiguousImage(BadImage):
    """The file can be read in more than one way, and only the user knows which is right.

    Parameters
    ----------
    what
        As for `MedtError`.
    choices
        What there is to choose from.
    """

    def __init__(self, what: str, choices: Sequence[Choice]) -> None:
        self.choices = tuple(choices)
        told = [f"{choice.key} ({choice.title})" for choice in choices]
        if len(told) > _MOST_TOLD:
            told[_MOST_TOLD - 1 : -1] = [f"any of {len(told) - _MOST_TOLD} in between"]
        super().__init__(what, remedy="choose " + ", or ".join(told))


class BadModel(MedtError):
    """The model is unknown, or its card and its network do not fit each other."""


class BadWeights(BadModel):
    """A weight file is damaged, unsafe, of an unknown form or not the one its card names."""


class BadTrainingData(MedtError):
    """The images and masks given for training cannot be learnt from."""


class BadCase(MedtError):
    """A case folder cannot be read or does not belong to this image."""


class BadEdit(MedtError):
    """A mask cannot be changed in the way that was asked for; nothing was changed."""


class NothingToChange(BadEdit):
    """The mask is already as the change would make it, or may not be changed there."""


class OverlapFound(BadEdit):
    """A change would take voxels from structures it is not about, and only the user knows whether it may.

    Parameters
    ----------
    what
        As for `MedtError`.
    overlaps
        Voxels that would be taken from each structure, by its label.
    """

    def __init__(self, what: str, overlaps: Mapping[int, int]) -> None:
        self.overlaps = dict(overlaps)
        super().__init__(what, remedy="choose whether to keep them or to replace them")


class StorageError(MedtError):
    """Something could not be written: full disk, no permission, folder gone."""


class DeviceError(MedtError):
    """The chosen device is missing or failed."""


class OutOfMemory(DeviceError):
    """Memory ran out even after every step down."""


class ClusterError(MedtError):
    """Other computers cannot do what is asked of them."""


class ClusterGone(ClusterError):
    """The scheduler, or all of its workers, cannot be reached, whatever the image."""


class Cancelled(MedtError):
    """The user cancelled; nothing was changed."""

    def __init__(self, what: str = "Cancelled, nothing was changed") -> None:
        super().__init__(what)
