"""The wheel holds everything, and works where a user has folders of the same names."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

INCLUDED = (".py", ".md", ".yaml", ".yml", ".json", ".typed", ".safetensors", ".html", ".css", ".js", ".jinja")

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
import marple
names = [m.name for m in pkgutil.walk_packages(marple.__path__, "marple.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(json.dumps({name: module.__file__ for name, module in sorted(sys.modules.items())
                  if name.split(".")[0] in ("marple", "tools", "agent", "tasks", "traces", "sandboxes")}))
"""


@pytest.fixture(scope="module")
def wheel(root: Path, files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a clean copy: what an ignored or a stale file adds is not in it."""
    source = tmp_path_factory.mktemp("source")
    for path in files:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, source / path)
    out = source / "dist"
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path, files: list[Path], folders: dict[str, str]) -> None:
    by_folder = {folder: name.replace(".", "/") for name, folder in folders.items()}
    wanted = {
        "/".join([by_folder[path.parts[0]], *path.parts[1:]])
        for path in files
        if path.parts[0] in by_folder and path.suffix in INCLUDED
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert "marple/py.typed" in wanted
    assert "marple/traces/schema.json" in wanted
    assert sorted(wanted - packed) == []
    assert sorted(name for name in packed if not name.startswith("marple/")) == []


def test_the_wheel_carries_its_licence_and_its_command(wheel: Path) -> None:
    content = {name.split(".dist-info/")[-1]: name for name in zipfile.ZipFile(wheel).namelist()}
    assert "licenses/LICENSE" in content
    assert "marple = marple.cli:main" in zipfile.ZipFile(wheel).read(content["entry_points.txt"]).decode()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; the dependencies are those of the running one."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place / "venv", symlinks=True)
    python = place / "venv" / "bin" / "python"
    command = ["-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=120)
    # A plain path: the links to the checkout that an editable install keeps there are not followed from here.
    packages = next((place / "venv" / "lib").glob("python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    for decoy in ("tools", "agent", "tasks", "traces", "sandboxes"):
        (place / decoy).mkdir()
        (place / decoy / "__init__.py").write_text("raise ImportError('the decoy was imported')\n")
    return place


def test_the_command_runs_beside_decoys(installed: Path) -> None:
    done = subprocess.run(
        ["venv/bin/marple", "--help"], cwd=installed, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_every_module_imports_from_the_wheel_beside_decoys(installed: Path) -> None:
    done = subprocess.run(
        ["venv/bin/python", "-c", IMPORT_EVERYTHING],
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    modules: dict[str, str] = json.loads(done.stdout)

    assert {"marple", "marple.tools.contract", "marple.agent", "marple.traces"} <= set(modules)
    assert {name: file for name, file in modules.items() if not file.startswith(str(installed / "venv"))} == {}
