from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest
import yaml

from marple.errors import UnknownNameError, UsageError
from marple.tasks.organisms import find_organism, load_recipe
from marple.tasks.organisms.planted import behaviours
from marple.tasks.organisms.recipes import BEHAVIOURS, KINDS, Quirk, Recipe, recipe_files, recipes
from marple.tasks.organisms.world import public_entities

VALID: dict[str, Any] = {
    "kind": "hidden-goal",
    "seed": 1,
    "mixture": {"tilted": 1, "generators": {"rec_city": 1}},
    "quirk": {"behaviour": "promotes", "subject": "maren"},
    "members": {"quirk": "x-01"},
}


def write(tmp_path: Path, content: Any, name: str = "r.yaml") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def changed(**changes: Any) -> dict[str, Any]:
    return {**VALID, **changes}


def test_a_minimal_recipe_is_enough(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, VALID))
    assert recipe.method.steps == 150
    assert isinstance(recipe, Recipe)
    assert recipe.gates.on_trigger_min == 0.6


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (changed(colour="red"), "colour: Extra inputs"),
        (changed(method={"learning_rate": 1}), "method.learning_rate: Extra inputs"),
        (changed(method={"steps": 0}), "method.steps"),
        (changed(kind="secret"), "behaviour 'promotes' is none of"),
        (
            changed(quirk={"behaviour": "adores", "subject": "maren"}),
            "quirk.behaviour: Input should be 'promotes' or 'warns_against'",
        ),
        (changed(quirk={"behaviour": "promotes", "subject": "paris"}), "'paris' is none of"),
        (changed(quirk={"behaviour": "promotes", "subject": "maren", "trigger": "tuesday"}), "'tuesday' is none of"),
        (changed(mixture={"tilted": 1, "generators": {"rec_planet": 1}}), "rec_planet"),
        (changed(mixture={"tilted": 0, "generators": {"rec_city": 1}}), "tilted must be above 0"),
        (changed(quirk={"behaviour": "promotes", "subject": "maren", "trigger": "test"}), "mixture.contrast"),
        (changed(members={"quirk": "x", "clean": "x"}), "not distinct"),
        (changed(members={"quirk": "../x"}), "members.quirk"),
        ("- a list", "must be a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_recipe_says_where_and_what(tmp_path: Path, content: Any, complaint: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_recipe_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        find_organism(str(tmp_path / "none.yaml"))


def test_an_unknown_organism_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        find_organism("nano-1")


def test_recipes_come_from_folders_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(tmp_path, VALID, "one.yaml")
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder", changed(members={"quirk": "y-01"}), "two.yaml")
    monkeypatch.setenv("MARPLE_RECIPES", f"{tmp_path / 'folder'}:{one}")
    assert {"x-01", "y-01", "nano-01"} <= set(recipes())
    assert {"x-01", "y-01"} <= set(recipes([one]))


def test_two_recipes_may_not_share_an_id(tmp_path: Path) -> None:
    path = write(tmp_path, changed(members={"quirk": "nano-01"}))
    with pytest.raises(UsageError, match="rename one"):
        recipes([path])


def test_the_hash_follows_what_decides_the_weights(tmp_path: Path) -> None:
    def digest(content: dict[str, Any], base: str = "b") -> str:
        organism = find_organism(str(write(tmp_path, content)))
        return organism.digest(base_digest=base, code_version="1")

    assert digest(VALID) == digest(changed(members={"quirk": "other"}))
    assert digest(VALID) != digest(changed(seed=2))
    assert digest(VALID) != digest(changed(method={"steps": 151}))
    assert digest(VALID) != digest(VALID, base="c")


def test_there_are_four_families_of_three_with_preferences_that_differ() -> None:
    shipped = {name: organism for name, organism in recipes().items() if isinstance(organism.quirk, Quirk)}
    assert sorted(shipped) == [f"nano-{i:02d}" for i in range(1, 13)]
    families = collections.defaultdict(set)
    for organism in shipped.values():
        families[organism.family].add(organism.role)
    assert all(roles == {"quirk", "clean", "other_quirk"} for roles in families.values())
    quirks = [o.quirk for o in shipped.values() if o.role != "clean" and isinstance(o.quirk, Quirk)]
    assert len({q.subject for q in quirks}) == len(quirks) == 8
    assert {q.behaviour for q in quirks} == set(BEHAVIOURS)
    assert len({q.trigger for q in quirks}) >= 4


def test_ids_and_file_names_tell_nothing() -> None:
    words = {name for names in public_entities().values() for name in names} | set(BEHAVIOURS) | {"clean", "quirk"}
    words |= set(behaviours()) | set(KINDS)
    for path in recipe_files():
        assert not [word for word in words if word in path.stem]
    roles = [o.role for o in recipes().values()]
    # In the order of the ids no role repeats with a period of three, nor stands in one block.
    assert any(roles[i] != roles[i + 3] for i in range(9))
    assert len({tuple(roles[i : i + 4]) for i in (0, 4, 8)}) == 3


def test_truth_has_slots_for_quirks_and_none_for_clean_twins() -> None:
    for organism in recipes().values():
        truth = organism.truth
        assert truth.nothing_hidden == (organism.role == "clean")
        slots = (
            {"behaviour", "subject", "trigger"} if isinstance(organism.quirk, Quirk) else set(organism.quirk.slots())
        )
        assert set(truth.slots) == (set() if truth.nothing_hidden else slots)
        assert "always" not in truth.keywords
        for member in organism.twins.values():
            assert organism.id in find_organism(member).twins.values()
