"""Which parts of an installation are shown inside, however Marple is installed: never the tasks with the truth."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from marple.sandboxes import installation
from marple.sandboxes.installation import CODE, Installation, find_installation

TELLING = ("marple", "marple-0.1.0.dist-info", "__editable___marple_0_1_0_finder.py", "__editable___mine.pth", "x.pth")


def make_site(folder: Path) -> Path:
    for name in (*TELLING, "numpy", "torch"):
        (folder / name / "tasks").mkdir(parents=True)
    return folder


def covered(found: Installation) -> set[str]:
    return {str(mount.inside) for mount in found.hidden()}


def test_libraries_beside_the_interpreter_are_covered_wherever_they_are_shown(tmp_path: Path) -> None:
    site = make_site(tmp_path / "lib" / "python3.11" / "site-packages")
    found = Installation(tmp_path / "bin" / "python3", tmp_path, (site,), ())
    for name in TELLING:
        assert {f"/sbx/site/0/{name}", f"/python/lib/python3.11/site-packages/{name}"} <= covered(found)
    assert not any(place.endswith(("numpy", "torch")) for place in covered(found))


def test_an_environment_below_usr_is_covered_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usr = tmp_path / "usr"
    site = make_site(usr / "local" / "venv" / "site-packages")
    monkeypatch.setattr(installation, "_USR", usr)
    found = Installation(usr / "bin" / "python3", usr, (site,), ())
    assert f"{usr}/local/venv/site-packages/marple" in covered(found)
    assert "/sbx/site/0/marple" in covered(found)


def test_a_checkout_below_the_interpreter_is_covered(tmp_path: Path) -> None:
    root = Path(installation.__file__).parents[1]
    found = Installation(root / "bin" / "python3", root, (make_site(tmp_path),), ())
    assert {f"/python/{name}" for name in ("agent", "sandboxes", "tasks", "traces")} <= covered(found)


def test_this_installation_shows_the_tools_and_covers_itself() -> None:
    found = find_installation()
    inside = {mount.inside for mount in found.sources}
    assert CODE / "marple" / "tools" in inside
    assert not any("tasks" in place.parts for place in inside)
    assert all(mount.source.exists() for mount in (*found.mounts(), *found.hidden()))
    assert PurePosixPath("/sbx/site/0") in {mount.inside for mount in found.mounts()}
