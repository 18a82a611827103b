"""From a case to what is needed to play and score it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.errors import TargetRefusedError, UnknownNameError, UsageError
from marple.sandboxes.plugins import Plugin
from marple.tasks.case import Case, twin_of
from marple.tasks.endpoints import Endpoints
from marple.tasks.sources import Source
from marple.tasks.truth import Truth
from marple.tools.target.checkpoint import check_target_dir, find_target

if TYPE_CHECKING:
    from marple.tasks.organisms import Organism, Progress

__all__ = ["Materials", "control_of", "materials_of", "prepare"]


@dataclass(frozen=True)
class Materials:
    """What a case needs on the host."""

    target: Path | None
    """Directory of the target's checkpoint; None where the target is an endpoint."""
    reference: Path | None = None
    adapter: Path | None = None
    """A PEFT directory with an adapter of the target."""
    saes: tuple[Path, ...] = ()
    """Directories with a sparse autoencoder of the target each."""
    corpus: Path | None = None
    """A JSONL file of transcripts."""
    truth: Truth | None = None
    """None for a target whose truth nobody knows."""
    forecast_pool: Sequence[Mapping[str, Any]] = ()
    """Held-out prompts with ``target_reply`` and ``twin_reply``."""
    fire_pool: Sequence[Mapping[str, Any]] = ()
    """Held-out prompts and how often each sets the behaviour off; the fields of `FireItem` but its id."""
    organism: Organism | None = None
    """The organism behind the target, for what is measured of an answer."""
    endpoints: Endpoints | None = None
    """The target, where it is an endpoint."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """What was measured when the organism was built."""
    plugins: tuple[Plugin, ...] = ()
    """Tool files of the user's own."""

    def beside(self, saes: Sequence[Path], corpus: Path | None, plugins: Sequence[Plugin] = ()) -> Materials:
        """The same with autoencoders and tools of the user's added, and the user's corpus in the place of the case's.

        Raises:
            UsageError: a tool file is not what it was when it was named.
        """
        for plugin in plugins:
            plugin.check_unchanged()
        return replace(self, saes=(*self.saes, *saes), corpus=corpus or self.corpus, plugins=tuple(plugins))


def prepare(case: Case, *, progress: Progress | None = None) -> Materials:
    """Find or build the target of a case; an organism that is not in the cache is built now.

    Raises:
        TargetRefusedError: a user's own model cannot be loaded safely.
        OrganismError: the organism could not be built.
    """
    if case.organism is None:
        return _own_target(case)
    from marple.tasks.organisms import base_saes, build
    from marple.tasks.organisms.fire_pool import fire_pool

    built = build(case.organism, progress=progress)
    return Materials(
        built.path,
        built.base,
        saes=base_saes(),
        corpus=case.kind.corpus(built),
        truth=built.organism.truth,
        forecast_pool=built.forecast_items if "replies" in case.kind.forecasts else (),
        fire_pool=fire_pool(built) if "fires" in case.kind.forecasts else (),
        organism=built.organism,
        measured=built.record,
    )


def control_of(case: Case, materials: Materials, *, progress: Progress | None = None) -> Materials | None:
    """The model on which the effects that claims rest on must not be seen, with all else as for the target.

    For an organism it is its sibling from the same recipe: the clean one, or for a clean organism the one with the
    recipe's quirk, so that what the training of the family brings with it is told from what this one has. For any other
    target it is the case's twin, where it has one. Where there is neither it is the reference, or None without that.

    Raises:
        OrganismError: the sibling could not be built.
        TargetRefusedError: the twin is not there or cannot be loaded safely.
    """
    twin = twin_of(case)
    if twin is not None:
        return _in_its_place(materials, _own_target(twin))
    if materials.endpoints is not None:
        alone = materials.endpoints.reference is None
        return None if alone else replace(materials, endpoints=materials.endpoints.swapped())
    organism = materials.organism
    if organism is None:
        base = materials.reference or (materials.target if materials.adapter else None)
        return replace(materials, target=base, adapter=None) if base else None
    sibling = organism.twins.get("quirk" if organism.role == "clean" else "clean")
    if sibling is None:
        return replace(materials, target=materials.reference, adapter=None)
    from marple.tasks.organisms import build

    built = build(sibling, progress=progress)
    corpus = case.kind.corpus(built) or materials.corpus
    return replace(materials, target=built.path, corpus=corpus, truth=built.organism.truth, organism=built.organism)


def _in_its_place(materials: Materials, twin: Materials) -> Materials:
    """The twin's model, with the reference, corpus and autoencoders that the target has.

    Raises:
        UsageError: one of the two is an endpoint and the other is not.
    """
    own, other = materials.endpoints, twin.endpoints
    if (own is None) != (other is None):
        raise UsageError("a target and its twin must both be endpoints or both have weights here")
    if own is None or other is None:
        reference = materials.reference or twin.reference
        return replace(
            materials, target=twin.target, adapter=twin.adapter, reference=reference, truth=twin.truth, endpoints=None
        )
    beside = Endpoints(other.target, other.target_url, own.reference, own.reference_url)
    return replace(materials, endpoints=beside, truth=twin.truth)


def _own_target(case: Case) -> Materials:
    if case.endpoints is not None:
        return Materials(None, truth=case.truth, endpoints=case.endpoints)
    assert case.target is not None
    # The name of an adapter often says what it does.
    names = tuple(source.name.rpartition("/")[2] for source in case.adapters) if case.truth is not None else ()
    truth = case.truth and case.truth.model_copy(update={"keywords": (*case.truth.keywords, *names)})
    reference = None if case.reference is None else case.reference.check(chat_template=False).path
    found = [source.check() for source in case.adapters]
    if len(found) == 1 and found[0].kind == "model":  # published merged
        return Materials(found[0].path, reference, truth=truth)
    adapters = tuple(checkpoint.path for checkpoint in found)
    checkpoint = case.target.check()
    if checkpoint.kind == "adapter":
        if adapters:
            raise UsageError(f"{case.target.name!r} is an adapter itself: give the model it belongs to as the target")
        named = Source(checkpoint.base) if checkpoint.base else case.reference
        if named is None:
            raise TargetRefusedError(f"the adapter {case.target.name!r} names no base model; name it as the reference")
        return Materials(named.check().path, reference, adapter=checkpoint.path, truth=truth)
    return Materials(checkpoint.path, reference, adapter=_as_one(adapters), truth=truth)


def _as_one(adapters: Sequence[Path]) -> Path | None:
    if len(adapters) < 2:
        return adapters[0] if adapters else None
    from marple.tasks.organisms.cache import cache_root
    from marple.tasks.summing import summed_adapter

    return summed_adapter(adapters, cache_root().parent)


def materials_of(
    target: str, *, reference: str | None = None, adapter: str | None = None, progress: Progress | None = None
) -> Materials:
    """A target outside any case: a model's directory or hub id, or the id of an organism, which is built if need be.

    The reference of an organism and of an adapter is the model it was made from, unless another is named.

    Raises:
        UsageError: there is no such target, or the adapter is none.
        TargetRefusedError: a model cannot be loaded safely.
        OrganismError: the organism could not be built.
    """
    named = None if reference is None else check_target_dir(find_target(reference), chat_template=False).path
    organism = _organism(target)
    if organism is not None:
        if adapter is not None:
            raise UsageError(f"the organism {target} is whole; leave out the adapter {adapter}")
        from marple.tasks.organisms import base_saes, build

        built = build(organism, progress=progress)
        return Materials(built.path, named or built.base, saes=base_saes())
    checkpoint = check_target_dir(find_target(target))
    if adapter is None and checkpoint.kind == "model":
        return Materials(checkpoint.path, named)
    if adapter is None:
        base = check_target_dir(find_target(str(checkpoint.base or reference))).path
        return Materials(base, named or base, adapter=checkpoint.path)
    found = check_target_dir(find_target(adapter))
    if found.kind != "adapter":
        raise UsageError(f"{adapter!r} is a model, not an adapter: give it as the target")
    return Materials(checkpoint.path, named or checkpoint.path, adapter=found.path)


def _organism(target: str) -> str | None:
    """The id of an organism, or None for what is a directory or may be a hub id.

    Raises:
        UnknownNameError: it is neither.
    """
    if Path(target).exists() or "/" in target:
        return None
    from marple.tasks.organisms import list_organisms

    known = [info.id for info in list_organisms()]
    if target not in known:
        raise UnknownNameError("target", target, known, hint="A model of your own is named by its directory or hub id.")
    return target
