"""Three synthetic pictures with reference masks, offered in *File > Open Sample > napari-medt*.

Each function returns layer data as napari's sample data contributions do: a list of `(data, options, layer type)`.
The pictures are made by `napari_medt.sample_data.make`; see `README.md` beside this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

LayerData = tuple[Any, dict[str, Any], str]

_FOLDER = Path(__file__).parent
_SYNTHETIC = "synthetic; no patient, no animal, no microscope"


def fluorescence() -> list[LayerData]:
    """Nuclei in fluorescence with their mask.

    Returns
    -------
    list
        Image `(512, 512)` uint16 and labels `(512, 512)` uint16, 0.65 micrometres a pixel.
    """
    from napari_medt.sample_data.cells import PIXEL_UM

    image, nuclei = _read("fluorescence"), _read("fluorescence_nuclei")
    place = {"scale": (PIXEL_UM, PIXEL_UM), "units": ("um", "um")}
    low, high = int(image.min()), int(image.max())
    look = {"name": "fluorescence", "colormap": "gray", "contrast_limits": (low, low + 0.75 * (high - low))}
    return [
        (image, {**look, **place, "metadata": _about("nuclei in fluorescence", "grey", PIXEL_UM)}, "image"),
        _reference(nuclei, "reference nuclei", place),
    ]


def tissue() -> list[LayerData]:
    """Glands in stroma, stained with haematoxylin and eosin, with the mask of the nuclei.

    Returns
    -------
    list
        Image `(512, 512, 3)` uint8 and labels `(512, 512)` uint16, 0.4 micrometres a pixel.
    """
    from napari_medt.sample_data.slide import PIXEL_UM

    image, nuclei = _read("tissue"), _read("tissue_nuclei")
    place = {"scale": (PIXEL_UM, PIXEL_UM), "units": ("um", "um")}
    about = _about("tissue stained with haematoxylin and eosin", "rgb", PIXEL_UM)
    return [
        (image, {"name": "tissue", "rgb": True, **place, "metadata": about}, "image"),
        _reference(nuclei, "reference tissue nuclei", place),
    ]


def ct_phantom() -> list[LayerData]:
    """An abdomen like that of a CT scan, with the mask of its organs.

    Returns
    -------
    list
        Image `(64, 144, 160)` int16 in Hounsfield units and labels of the same shape, uint8; 4 x 2.25 x 2.25 mm.
        z upwards, y to the back, x to the patient's left.
    """
    from napari_medt.sample_data.phantom import ORGANS, SPACING_MM

    image, organs = _read("ct_phantom"), _read("ct_phantom_organs")
    place = {"scale": SPACING_MM, "units": ("mm", "mm", "mm")}
    about = _about("phantom like an abdominal CT scan", "HU", SPACING_MM)
    look = {"name": "CT phantom", "colormap": "gray", "contrast_limits": (-160, 240)}
    layer = _reference(organs, "reference organs", place)
    layer[1]["metadata"]["classes"] = {0: "background", **ORGANS}
    return [(image, {**look, **place, "metadata": about}, "image"), layer]


def _read(name: str) -> Any:
    import tifffile

    return tifffile.imread(_FOLDER / f"{name}.tif")


def _about(what: str, values: str, spacing: Any) -> dict[str, Any]:
    return {"medt_sample": {"what": what, "values": values, "spacing": spacing, "origin": _SYNTHETIC}}


def _reference(labels: Any, name: str, place: dict[str, Any]) -> LayerData:
    options = {"name": name, "visible": False, **place, "metadata": {"medt_sample": {"origin": _SYNTHETIC}}}
    return (labels, options, "labels")
