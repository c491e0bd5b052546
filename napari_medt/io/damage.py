"""What goes wrong inside a decoder, as one sentence."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from napari_medt.core import BadImage, MedtError

# What the decoders raise for damaged files; anything else is a mistake of ours and must be seen as one.
DAMAGE: tuple[type[Exception], ...] = (OSError, ValueError, TypeError, LookupError, EOFError, SyntaxError)
DAMAGE += (RuntimeError, AttributeError, ArithmeticError, AssertionError, struct.error, zlib.error)


@contextmanager
def told(name: str, kind: str) -> Iterator[None]:
    """Turn what a decoder raises about a damaged file into `BadImage`.

    Parameters
    ----------
    name, kind
        Of the file and its format, for the sentence.
    """
    try:
        yield
    except MedtError:
        raise
    except MemoryError as error:
        raise BadImage(f"{name} does not fit into the memory", remedy="crop it or scale it down") from error
    except NotImplementedError as error:
        raise BadImage(
            f"{name} is a {kind} of a kind that is not read ({_first_line(error)})",
            remedy="save it again in a plain form",
        ) from error
    except DAMAGE as error:
        raise BadImage(
            f"{name} is a damaged or incomplete {kind} ({_first_line(error)})", remedy="copy or export it again"
        ) from error


def _first_line(error: BaseException) -> str:
    """Return what a decoder says of a file where that means something to a reader."""
    lines = str(error).strip().splitlines()
    if not lines or "<" in lines[0] or isinstance(error, (TypeError, AttributeError, LookupError, AssertionError)):
        return "its parts do not fit together"
    return lines[0].split(" (")[0].rstrip(".")[:120]
