"""Decoders that pydicom's own plugins lack here: 12-bit JPEG, lossless JPEG and High-Throughput JPEG 2000, by imagecodecs."""

from __future__ import annotations

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

PLUGIN = "imagecodecs"
_SYNTAXES = (
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
)
DECODER_DEPENDENCIES = dict.fromkeys(_SYNTAXES, (PLUGIN,))
_DECODE = {
    uid.JPEGExtended12Bit: imagecodecs.jpeg_decode,
    uid.JPEGLossless: imagecodecs.jpegsof3_decode,
    uid.JPEGLosslessSV1: imagecodecs.jpegsof3_decode,
}


def is_available(syntax: str) -> bool:
    """Whether a transfer syntax can be decoded; asked by pydicom."""
    return syntax in DECODER_DEPENDENCIES


def decode_frame(encoded: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame; called by pydicom where its own plugins are missing or fail."""
    values: np.ndarray = _DECODE.get(runner.transfer_syntax, imagecodecs.jpeg2k_decode)(encoded)
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 0)
        if runner.photometric_interpretation != PhotometricInterpretation.YBR_FULL:
            runner.set_option("photometric_interpretation", PhotometricInterpretation.RGB)
    runner.set_option("bits_allocated", values.dtype.itemsize * 8)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def add_to_pydicom() -> None:
    """Let pydicom know these decoders, after its own."""
    for syntax in DECODER_DEPENDENCIES:
        decoder = get_decoder(syntax)
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))
