"""Case files: YAML that is read strictly, so that a mistake is told with its file, its line and what is allowed.

One case is a mapping::

    kind: hidden-goal
    target: path/to/model
    reference: path/to/base
    truth: {behaviour: promotes, subject: [Velora, velora radios], trigger: always}
    budget: {calls: 40}

Several are a list under ``cases``; ``truths`` then may name answers that several cases have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from marple.errors import UnknownNameError, UsageError
from marple.tasks.case import Case
from marple.tasks.endpoints import endpoint_tools, endpoints_of, is_endpoint
from marple.tasks.kind import Kind, SlotForm, load_kinds
from marple.tasks.located import Located, read_located
from marple.tasks.sources import Source
from marple.tasks.truth import Slot, Truth, normalise

__all__ = ["read_cases"]

_FILE_KEYS = ("cases", "truths")
_MODEL_KEYS = ("adapter", "reference", "saes", "oracles", "target_base_url", "reference_base_url")
_KEYS = (
    *("kind", "id", "organism", "target", *_MODEL_KEYS),
    *("truth", "twin", "question", "note", "origin", "budget", "affordances"),
)
_SOURCE_KEYS = ("id", "revision", "folder")
_NOT_SLOTS = ("nothing_hidden", "keywords")


def read_cases(file: Path | Any, *, suite: str) -> list[Case]:
    """The cases of a file.

    Args:
        file: a path, or a resource of the package.
        suite: the suite they are in.

    Raises:
        UsageError: the file has a mistake; the message has its line and what is allowed.
    """
    root = read_located(file, name=str(file) if isinstance(file, Path) else f"{suite}.yaml")
    reader = _Reader(suite, load_kinds(), root.file if suite == "user" else None)
    if isinstance(root.value, dict) and "cases" not in root.value and "truths" not in root.value:
        return reader.check([reader.case(root)])
    keys = root.mapping("the file", _FILE_KEYS)
    if "cases" not in keys:
        root.fail("the file has no `cases`: a list of cases, or the keys of one case instead")
    reader.truths = keys["truths"].mapping("truths") if "truths" in keys else {}
    if not isinstance(keys["cases"].value, list):
        keys["cases"].fail("`cases` is not a list of cases")
    return reader.check([reader.case(entry) for entry in keys["cases"].items("`cases`")])


@dataclass
class _Reader:
    suite: str
    kinds: Mapping[str, Kind]
    file: str | None
    truths: Mapping[str, Located] = field(default_factory=dict)
    places: dict[str, Located] = field(default_factory=dict)
    """Where each case stands."""

    def case(self, entry: Located) -> Case:
        """One case."""
        keys = entry.mapping("a case", _KEYS)
        kind = self.kind(entry, keys)
        if ("organism" in keys) == ("target" in keys):
            entry.fail("a case has an `organism` of the catalogue or a `target` (a directory, a hub id, an endpoint)")
        budget = kind.budget
        if "budget" in keys:
            try:
                budget = kind.budget.overridden({k: v.value for k, v in keys["budget"].mapping("budget").items()})
            except UsageError as error:
                keys["budget"].fail(f"budget: {error}")
        case = Case("", kind, (self.suite,), self.tools(kind, keys), budget, file=self.file)
        case = self.on_organism(case, keys) if "organism" in keys else self.on_model(case, keys)
        if case.id in self.places:
            entry.fail(f"the case {case.id} is there twice; give one of them another `id`")
        self.places[case.id] = entry
        return case

    def kind(self, entry: Located, keys: Mapping[str, Located]) -> Kind:
        if "kind" not in keys:
            entry.fail(f"a case needs a `kind` (valid: {', '.join(self.kinds)})")
        name = keys["kind"].text("kind")
        if name not in self.kinds:
            keys["kind"].fail(str(UnknownNameError("task kind", name, self.kinds)))
        return self.kinds[name]

    def tools(self, kind: Kind, keys: Mapping[str, Located]) -> tuple[str, ...]:
        if "affordances" not in keys:
            return kind.affordances
        tools = []
        for one in keys["affordances"].items("affordances"):
            name = one.text("a tool")
            if name not in kind.affordances:
                one.fail(str(UnknownNameError("tool", name, kind.affordances)))
            tools.append(name)
        return tuple(tools)

    def on_organism(self, case: Case, keys: Mapping[str, Located]) -> Case:
        name = keys["organism"].text("organism")
        for key in (*_MODEL_KEYS, "truth", "twin", "id", "note", "question", "origin"):
            if key in keys:
                keys[key].fail(f"an organism of the catalogue brings its own; leave out `{key}`")
        return replace(case, id=f"{case.kind.name}/{name}", organism=name)

    def on_model(self, case: Case, keys: Mapping[str, Located]) -> Case:
        texts: dict[str, Any] = {
            key: keys[key].text(key) for key in ("note", "origin", "question", "twin") if key in keys
        }
        case = replace(case, truth=self.truth(case.kind, keys["truth"]) if "truth" in keys else None, **texts)
        case = self.on_endpoint(case, keys) if is_endpoint(_name(keys["target"])) else self.on_weights(case, keys)
        name = keys["id"].text("id") if "id" in keys else f"own-{_digest(case)}"
        if "/" in name:
            keys["id"].fail(f"the id {name!r} has a slash; the kind is put in front of it")
        return replace(case, id=f"{case.kind.name}/{name}")

    def on_weights(self, case: Case, keys: Mapping[str, Located]) -> Case:
        for key in ("target_base_url", "reference_base_url"):
            if key in keys:
                keys[key].fail(f"`{key}` needs a target that is an endpoint, such as openai-chat/NAME")
        several: dict[str, Any] = {
            key: tuple(map(_source, keys[name].items(name))) if name in keys else ()
            for key, name in (("adapters", "adapter"), ("saes", "saes"), ("oracles", "oracles"))
        }
        reference = _source(keys["reference"]) if "reference" in keys else None
        return replace(case, target=_source(keys["target"]), reference=reference, **several)

    def on_endpoint(self, case: Case, keys: Mapping[str, Located]) -> Case:
        for key in ("adapter", "saes", "oracles"):
            if key in keys:
                keys[key].fail(f"an endpoint has no `{key}`: its weights are not here")
        texts = {
            key: keys[key].text(key) for key in ("reference", "target_base_url", "reference_base_url") if key in keys
        }
        try:
            endpoints = endpoints_of(
                keys["target"].text("target"),
                texts.get("reference"),
                target_url=texts.get("target_base_url"),
                reference_url=texts.get("reference_base_url"),
            )
        except UsageError as error:
            keys["target"].fail(str(error))
        assert endpoints is not None
        tools = tuple(tool for tool in case.affordances if tool in endpoint_tools(endpoints))
        return replace(case, endpoints=endpoints, affordances=tools)

    # ---------------------------------------------------------------------------------- truth

    def truth(self, kind: Kind, said: Located) -> Truth:
        """The known answer, as it stands there or under a name in ``truths``."""
        if isinstance(said.value, str):
            if said.value not in self.truths:
                said.fail(str(UnknownNameError("truth", said.value, self.truths)))
            said = self.truths[said.value]
        slots = kind.slots()
        keys = said.mapping("truth", (*_NOT_SLOTS, *slots))
        nothing = keys["nothing_hidden"].value if "nothing_hidden" in keys else False
        if not isinstance(nothing, bool):
            keys["nothing_hidden"].fail(f"nothing_hidden is {nothing!r:.60}; valid: true, false")
        found = {name: _slot(keys[name], name, slots[name]) for name in slots if name in keys}
        if nothing and found:
            said.fail(f"nothing is hidden, and yet the truth has {', '.join(found)}")
        missing = [name for name, form in slots.items() if form.required and name not in found]
        if not nothing and missing:
            said.fail(f"the truth lacks {', '.join(missing)}; where nothing is hidden it is {{nothing_hidden: true}}")
        _check_apart(said, found)
        words = tuple(one.text("a keyword") for one in keys["keywords"].items("keywords")) if "keywords" in keys else ()
        return Truth(nothing_hidden=nothing, slots=found, keywords=words)

    def check(self, cases: list[Case]) -> list[Case]:
        """What only shows when all cases are known: twins, and answers that cannot be told apart."""
        known = {case.id: case for case in cases}
        meanings: dict[tuple[str, str, str], tuple[str, str]] = {}
        for case in cases:
            self.check_twin(case, known)
            for name, slot in (case.truth.slots if case.truth else {}).items():
                for word in (slot.value, *slot.aliases):
                    key = (case.kind.name, name, normalise(word))
                    value, other = meanings.setdefault(key, (slot.value, case.id))
                    if value != slot.value:
                        self.places[case.id].fail(
                            f"{word!r} stands for {slot.value!r} in the slot {name} of {case.id}, and for {value!r} in "
                            f"that of {other}; an answer could not be told apart",
                            "truth",
                        )
        return cases

    def check_twin(self, case: Case, known: Mapping[str, Case]) -> None:
        place, truth = self.places[case.id], case.truth
        if truth is None or truth.nothing_hidden:
            return
        if case.twin is None:
            if not case.has_reference:
                place.fail(
                    "something is hidden in this target and there is nothing to compare it with: give a `reference`, "
                    "or as `twin` the id of a case of this file with nothing hidden"
                )
            return
        twin = known.get(f"{case.kind.name}/{case.twin}")
        if twin is None:
            place.fail(str(UnknownNameError("twin", case.twin, [one.split("/")[1] for one in known])), "twin")
        if twin.truth is None or not twin.truth.nothing_hidden:
            place.fail(f"the twin {case.twin} must have nothing hidden: truth {{nothing_hidden: true}}", "twin")


def _slot(said: Located, name: str, form: SlotForm) -> Slot:
    words = [one.text(f"the slot {name}") for one in said.items(f"the slot {name}")]
    if form.values is not None and words[0] not in form.values:
        said.fail(str(UnknownNameError(f"value of the slot {name}", words[0], form.values)))
    return Slot(value=words[0], aliases=tuple(words[1:]))


def _check_apart(said: Located, slots: Mapping[str, Slot]) -> None:
    """No word may stand for two slots of one answer."""
    where: dict[str, str] = {}
    for name, slot in slots.items():
        for word in {normalise(one) for one in (slot.value, *slot.aliases)}:
            if where.setdefault(word, name) != name:
                said.fail(f"{word!r} stands in the slots {where[word]} and {name}; an answer could not be told apart")


def _source(said: Located) -> Source:
    if not isinstance(said.value, dict):
        return Source(said.text("a model"))
    keys = said.mapping("a model", _SOURCE_KEYS)
    if "id" not in keys:
        said.fail(f"a model needs an `id`: a directory or a hub id (keys: {', '.join(_SOURCE_KEYS)})")
    texts = {key: keys[key].text(key) for key in keys}
    try:
        return Source(texts["id"], texts.get("revision"), texts.get("folder", ""))
    except UsageError as error:
        said.fail(str(error))


def _name(said: Located) -> str | None:
    return said.value if isinstance(said.value, str) else None


def _digest(case: Case) -> str:
    """Tells the cases of a user apart without saying what is examined."""
    what = [str(one) for one in (case.kind.name, case.target, case.adapters, case.endpoints, case.question)]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:6]
