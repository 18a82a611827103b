"""The image of empty directories, and the Dockerfile for users, which is read here but not built."""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
from pathlib import Path

import pytest

from marple.errors import SandboxUnavailableError
from marple.sandboxes.docker.images import DOCKERFILE, PYTHON_LABEL, skeleton

REPOSITORY = Path(__file__).parents[2]


def system(folder: Path) -> Path:
    """The root of a machine whose programs are all below /usr."""
    for name in ("bin", "lib", "lib64"):
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")
    return folder


def test_it_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    one, other = system(tmp_path / "one"), system(tmp_path / "other")
    assert skeleton(one) == skeleton(other)
    (other / "lib32").symlink_to("usr/lib32")
    assert skeleton(one) != skeleton(other)


def test_it_holds_nothing_of_the_machine_but_links(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(skeleton(system(tmp_path)))) as archive:
        entries = {entry.name: entry for entry in archive}
        texts = {name: archive.extractfile(entry) for name, entry in entries.items() if entry.isfile()}
    assert {name for name, entry in entries.items() if entry.issym()} == {"bin", "lib", "lib64"}
    assert entries["lib"].linkname == "usr/lib"
    assert entries["sbin"].isdir()
    assert sorted(texts) == ["etc/group", "etc/hostname", "etc/hosts", "etc/passwd", "etc/resolv.conf"]
    assert all(entry.mtime == 0 and entry.uid == 0 and entry.gid == 0 for entry in entries.values())
    assert not any(entry.mode & 0o6000 or entry.isdev() for entry in entries.values())


@pytest.mark.parametrize("target", [None, "/nix/store/lib"])
def test_a_machine_whose_programs_are_elsewhere_is_refused(target: str | None, tmp_path: Path) -> None:
    machine = system(tmp_path)
    (machine / "lib").unlink()
    if target is None:
        (machine / "lib").mkdir()
    else:
        (machine / "lib").symlink_to(target)
    with pytest.raises(SandboxUnavailableError, match="MARPLE_DOCKER_IMAGE"):
        skeleton(machine)


# ---------------------------------------------------------------------------------------------- the Dockerfile


def instructions() -> list[tuple[str, str]]:
    """Instructions and their arguments, with continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", DOCKERFILE.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_it_has_known_instructions_in_a_possible_order() -> None:
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert set(names) <= {"FROM", "ARG", "COPY", "RUN", "LABEL", "USER", "WORKDIR", "ENV"}
    assert "ADD" not in names


def test_it_ends_as_the_user_that_the_sandbox_runs_as() -> None:
    assert instructions()[-1] == ("USER", "65532:65532")


def test_it_says_where_python_is() -> None:
    labels = [argument for name, argument in instructions() if name == "LABEL"]
    assert any(re.fullmatch(rf'{re.escape(PYTHON_LABEL)}="/usr/local/bin/python3"', label) for label in labels)


def test_what_it_copies_is_in_the_repository() -> None:
    for name, argument in instructions():
        if name == "COPY":
            assert all((REPOSITORY / source).exists() for source in argument.split()[:-1])


def test_every_library_has_a_pinned_version_and_every_import_a_library() -> None:
    runs = " ".join(argument for name, argument in instructions() if name == "RUN")
    assert runs.count("pip install") == runs.count("--constraint /tmp/constraints.txt")
    words = [word for part in runs.split("&&") if "pip install" in part for word in part.split()[2:]]
    wanted = {word for word in words if re.fullmatch(r"[a-z0-9_-]+", word) and not word.startswith("-")}
    pinned = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").lower()
    assert all(f"\n{one}==" in pinned for one in wanted)
    assert imported() <= wanted


def imported() -> set[str]:
    """The third-party libraries that the code inside imports, beside those that these bring themselves."""
    brought = {"huggingface_hub", "jinja2", "pydantic_core", "tokenizers", "typing_extensions"}
    found: set[str] = set()
    for folder, _, files in os.walk(REPOSITORY / "tools"):
        for name in files:
            if name.endswith(".py"):
                text = Path(folder, name).read_text(encoding="utf-8")
                found |= set(re.findall(r"^\s*(?:import|from) (\w+)(?:[.\w]*)(?: import| as|$)", text, re.MULTILINE))
    return {one for one in found if one not in sys.stdlib_module_names} - {"marple"} - brought
