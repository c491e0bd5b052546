"""Libraries that only some files need, and one sentence where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from napari_medt.core import MedtError


def needs(module: str, extra: str, *, doing: str) -> None:
    """Check that a library is installed.

    Parameters
    ----------
    module
        Its name in Python.
    extra
        Of this package, by which it is installed.
    doing
        What needs it, as in "Reading NIfTI".

    Raises
    ------
    MedtError
        With the command that installs it.
    """
    if find_spec(module) is None:
        raise MedtError(f"{doing} needs {module}", remedy=f"pip install 'napari-medt[{extra}]'")
