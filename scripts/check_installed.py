"""Look at an installed napari-medt: everything is inside, the manifest is valid, every command imports."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from importlib.metadata import distribution, entry_points
from pathlib import Path


def wanted_files(tree: Path) -> tuple[str, ...]:
    """Patterns of which each must match at least one installed file; of bundled models, all that the tree has."""
    bundled = sorted((tree / "napari_medt" / "zoo" / "bundled").glob("*/*"))
    return (
        "napari_medt/napari.yaml",
        "napari_medt/py.typed",
        *(path.relative_to(tree).as_posix() for path in bundled),
        "napari_medt/sample_data/__init__.py",
        "napari_medt/sample_data/*.*[!py]",
        "*.dist-info/licenses/LICENSE",
    )


def faults(tree: Path) -> list[str]:
    """Everything wrong with the installed package, in plain sentences."""
    found = []
    package = import_module("napari_medt")
    home = Path(str(package.__file__)).resolve()
    if home.is_relative_to(tree):
        found.append(f"napari_medt was imported from the tree ({home}), not from the wheel.")
    files = [Path(str(file)) for file in distribution("napari-medt").files or ()]
    found += [f"The wheel has no {wanted}." for wanted in wanted_files(tree) if not any(f.match(wanted) for f in files)]
    strays = {file.parts[0] for file in files} - {"napari_medt", "..", f"napari_medt-{package.__version__}.dist-info"}
    found += [f"The wheel installs {stray!r} beside the package." for stray in sorted(strays)]

    commands = command_faults(found)
    if "napari-medt" not in {script.name for script in entry_points(group="console_scripts")}:
        found.append("The command napari-medt was not installed.")

    from napari_medt.zoo import check_model, list_models

    models = [check_model(card.key) for card in list_models()]
    found += [f"A bundled model does not pass its self-test: {result.problem}" for result in models if result.problem]
    sys.stdout.write(
        f"napari-medt {package.__version__} from {home.parent}: {commands} commands and {len(models)} models looked at.\n"
    )
    return found


def command_faults(found: list[str]) -> int:
    """Import what each command of the manifest names, open the samples, and return how many commands there are."""
    from npe2 import PluginManager

    manager = PluginManager.instance()
    manager.discover()
    manifest = manager.get_manifest("napari-medt")
    commands = manifest.contributions.commands or []
    broken = set()
    for command in commands:
        module, _, name = str(command.python_name).partition(":")
        try:
            loaded = import_module(module)
        except ImportError as error:
            broken.add(command.id)
            found.append(f"Command {command.id} names the module {module}, which does not import: {error}.")
            continue
        if not callable(getattr(loaded, name, None)):
            broken.add(command.id)
            found.append(f"Command {command.id} names {command.python_name}, which is not there or cannot be called.")
    for sample in manifest.contributions.sample_data or []:
        if sample.command not in broken and not sample.open():
            found.append(f"The sample {sample.display_name!r} opened without a layer.")
    return len(commands)


def main() -> int:
    """Print the faults; the exit code says whether there were any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--not-under", type=Path, required=True, help="folder the package must not come from")
    found = faults(parser.parse_args().not_under.resolve())
    for fault in found:
        sys.stderr.write(f"FAULT: {fault}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
