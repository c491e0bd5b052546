"""What a user reads when a file cannot be used."""

from __future__ import annotations

from napari_medt.core import MedtError


def one_sentence(error: MedtError) -> str:
    """Return the text of an error, which is one sentence for people that tells them what to do."""
    text = str(error)
    assert text.endswith(".")
    assert "\n" not in text
    assert "Traceback" not in text
    assert "<" not in text
    assert len(text) < 400
    assert error.remedy
    return text
