"""Where the packages lie; everything else about the project is said in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    # The sample images stand at the top of the tree, where people look for them, and are installed inside the package.
    packages=[*find_packages(include=["napari_medt", "napari_medt.*"]), "napari_medt.sample_data"],
    package_dir={"napari_medt": "napari_medt", "napari_medt.sample_data": "sample_data"},
    package_data={
        "napari_medt": ["napari.yaml", "py.typed"],
        "napari_medt.zoo": ["bundled/*/*"],
        "napari_medt.sample_data": ["*.tif", "*.tiff", "*.png", "*.json", "*.npz", "*.md"],
    },
    include_package_data=False,
)
