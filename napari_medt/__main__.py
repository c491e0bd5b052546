"""`python -m napari_medt` is the same as `napari-medt`."""

from napari_medt.cli import app

if __name__ == "__main__":
    app(prog_name="napari-medt")
