"""The package as a whole: quick to import, found by napari, honest about what it needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from npe2 import PluginManager, PluginManifest
from packaging.requirements import Requirement

from napari_medt._system import display_answers

IMPORT_LIMIT_MS = 150


def run_python(code: str, *options: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=True, timeout=120, cwd=cwd
    )


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_distribution("napari-medt")


def test_import_is_quick(tmp_path):
    """The best of several runs, so that a busy machine is not taken for a slow package."""
    times_ms = []
    for _ in range(5):
        report = run_python("import napari_medt", "-X", "importtime", cwd=tmp_path).stderr
        cumulative_us = next(line.split("|")[1] for line in report.splitlines() if line.endswith("| napari_medt"))
        times_ms.append(int(cumulative_us) / 1000)
    assert min(times_ms) < IMPORT_LIMIT_MS


def test_import_loads_nothing_heavy():
    loaded = run_python("import sys, napari_medt; print(*sys.modules)").stdout.split()
    assert not {"torch", "monai", "napari", "qtpy", "scipy", "skimage", "pandas"} & set(loaded)


def test_every_door_opens():
    import napari_medt

    for name in napari_medt.__all__:
        assert getattr(napari_medt, name) is not None
    with pytest.raises(AttributeError, match="no_such_door"):
        napari_medt.no_such_door  # noqa: B018


def test_doors_stay_open_when_a_room_was_entered_before(tmp_path):
    """A submodule named like a door takes the door's place once it is imported."""
    code = """
import importlib, pkgutil, types
import napari_medt as medt
for room in ("nets", "zoo", "io", "engine", "attention", "measure", "training"):
    package = importlib.import_module(f"napari_medt.{room}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"napari_medt.{room}.{module.name}")
print(*(name for name in medt.__all__ if isinstance(getattr(medt, name), types.ModuleType)))
"""
    assert run_python(code, cwd=tmp_path).stdout.split() == []


def test_napari_knows_the_plugin_without_torch_and_monai(tmp_path):
    """Discovery, manifests and menus as napari does them at start; neither library may come along."""
    code = """
import sys
from napari.components import ViewerModel
from napari.plugins import _initialize_plugins
from npe2 import PluginManager
_initialize_plugins()
ViewerModel()
manager = PluginManager.instance()
assert any(manifest.name == "napari-medt" for manifest in manager.iter_manifests())
assert any(widget.display_name == "MedT Review" for widget in manager.iter_widgets())
print(*sys.modules)
"""
    loaded = run_python(code, cwd=tmp_path).stdout.split()
    assert "napari" in loaded
    assert not {"torch", "monai"} & set(loaded)


@pytest.mark.skipif(not display_answers(), reason="needs a display; `make test` brings a virtual one")
def test_the_window_opens_without_torch_and_monai(tmp_path):
    """The real window with its real menus, in a process of its own."""
    code = """
import sys
import napari
viewer = napari.Viewer(show=True)
for menu in (viewer.window.plugins_menu, viewer.window.file_menu):
    menu.aboutToShow.emit()
titles = [action.text() for action in viewer.window.plugins_menu.actions()]
loaded = set(sys.modules)
viewer.close()
print(*titles, sep="|")
print(*loaded)
"""
    titles, loaded = run_python(code, cwd=tmp_path).stdout.strip().rsplit("\n", 1)
    assert "MedT Review" in titles
    assert "napari._qt" in loaded.split()
    assert not {"torch", "monai"} & set(loaded.split())


def test_manifest_at_the_top_is_the_one_inside(root, manifest):
    top, inside = root / "napari.yaml", root / "napari_medt" / "napari.yaml"
    assert top.resolve() == inside.resolve()
    assert manifest == PluginManifest.from_file(inside).model_copy(
        update={"package_metadata": manifest.package_metadata}
    )
    assert manifest.display_name == "napari-medt"
    assert manifest.is_visible


def _commands() -> list[tuple[str, str]]:
    file = Path(__file__).resolve().parents[1] / "napari_medt" / "napari.yaml"
    contributions = PluginManifest.from_file(file).contributions
    return [(command.id, str(command.python_name)) for command in contributions.commands or []]


@pytest.mark.parametrize(("command", "python_name"), _commands())
def test_every_command_imports(command, python_name):
    module, _, name = python_name.partition(":")
    assert callable(getattr(import_module(module), name)), command


def test_every_contribution_has_its_command(manifest):
    known = {command.id for command in manifest.contributions.commands}
    used = [
        *(widget.command for widget in manifest.contributions.widgets),
        *(sample.command for sample in manifest.contributions.sample_data),
        *(reader.command for reader in manifest.contributions.readers),
        *{writer.command for writer in manifest.contributions.writers},
    ]
    assert set(used) == known
    assert len(used) == len(known)


def test_napari_finds_the_samples(manifest):
    assert [sample.key for sample in manifest.contributions.sample_data] == ["fluorescence", "tissue", "ct_phantom"]
    assert all(sample.display_name.strip() for sample in manifest.contributions.sample_data)


@pytest.mark.parametrize("key", ["fluorescence", "tissue", "ct_phantom"])
def test_samples_open_as_layers(key):
    from napari.layers import Layer

    layers = [Layer.create(*layer) for layer in import_module("napari_medt.sample_data").__dict__[key]()]
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds[0] == "Image"
    assert "Labels" in kinds
    image, mask = layers[0], layers[kinds.index("Labels")]
    assert mask.data.shape == image.data.shape[: mask.data.ndim]
    assert mask.data.any()


def test_labels_writer_is_offered_for_tiff():
    manager = PluginManager()
    manager.register(PluginManifest.from_distribution("napari-medt"))
    endings = [end for writer in manager.iter_compatible_writers(["labels"]) for end in writer.filename_extensions]
    assert {".tif", ".tiff"} <= set(endings)
    assert len(endings) == len(set(endings))


def test_base_is_headless(project):
    names = {Requirement(text).name.lower() for text in project["dependencies"]}
    assert not {"napari", "pyqt6", "pyside6", "qtpy", "pyqtgraph", "magicgui", "monai"} & names
    assert {"torch", "numpy", "safetensors", "typer"} <= names


def test_torch_is_a_range_everywhere(project):
    """A pin, or an upper bound, would make pip replace the CUDA build a user has."""
    for texts in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in map(Requirement, texts):
            if requirement.name == "torch":
                assert all(specifier.operator == ">=" for specifier in requirement.specifier)
                assert requirement.specifier.contains("2.4.0")


def test_extras(project):
    extras = {name: [Requirement(text) for text in texts] for name, texts in project["optional-dependencies"].items()}
    assert {"all", "train", "test", "dev"} <= set(extras)
    napari = next(requirement for requirement in extras["all"] if requirement.name == "napari")
    assert napari.extras == {"all"}, "Qt must be napari's own choice"
    assert any("train" in requirement.extras for requirement in extras["all"])
    assert {"monai", "lightning-fabric"} <= {requirement.name for requirement in extras["train"]}
    assert [requirement.name for requirement in extras["baselines"]] == ["monai", "einops"]


def test_constraints_pin_what_is_asked_for(root, project):
    pins = {}
    for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), f"{line} is no plain pin"
            pins[re.sub(r"[-_.]+", "-", requirement.name).lower()] = str(requirement.specifier)[2:]
    for texts in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in map(Requirement, texts):
            if requirement.name != "napari-medt":
                assert requirement.specifier.contains(pins[re.sub(r"[-_.]+", "-", requirement.name).lower()]), (
                    requirement
                )


def test_entry_points():
    scripts = [entry for entry in entry_points(group="console_scripts") if entry.name == "napari-medt"]
    assert {entry.value for entry in scripts} == {"napari_medt.cli:app"}
    manifests = [entry for entry in entry_points(group="napari.manifest") if entry.name == "napari-medt"]
    assert {entry.value for entry in manifests} == {"napari_medt:napari.yaml"}


def test_sample_data_is_found_from_anywhere(root, tmp_path):
    """The folder at the top is a package inside the package, also while one stands in the checkout."""
    code = "import napari_medt.sample_data as s; print(s.__name__, s.__file__)"
    for cwd in (root, tmp_path):
        name, file = run_python(code, cwd=cwd).stdout.split(maxsplit=1)
        assert name == "napari_medt.sample_data"
        assert Path(file.strip()).parent.name == "sample_data"


def _tracked_texts(root: Path) -> list[tuple[Path, str]]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("needs git and a clone")
    texts = []
    for name in filter(None, listed.decode().split("\0")):
        path = root / name
        if not path.is_file() or path.is_symlink():
            continue
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            texts.append((path, content.decode("utf-8", errors="replace")))
    return texts


def test_no_path_of_a_machine_in_the_tree(root):
    """A path into somebody's home or working folder helps nobody else."""
    personal = r"(?<![\w.~-])/(?:home/(?!someone/)\w+|root|Users/\w+|work|workspace)/[\w.-]+"
    checkout = re.escape(str(root)) if len(root.parts) > 2 else r"(?!)"
    found = [
        f"{path.relative_to(root)}: {match[0]}"
        for path, text in _tracked_texts(root)
        for match in re.finditer(f"{personal}|{checkout}", text)
    ]
    assert found == []


def test_no_large_file_in_the_tree(root):
    """A clone stays small: weights and samples are a few megabytes."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=False).stdout.decode()
    sizes = {name: (root / name).stat().st_size for name in filter(None, listed.split("\0")) if (root / name).is_file()}
    assert {name: size for name, size in sizes.items() if size > 12_000_000} == {}
    assert sum(size for name, size in sizes.items() if name.startswith("sample_data/")) < 3_000_000
