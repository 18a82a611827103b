"""One run from its configuration to its result, and the same run again after an interruption."""

from __future__ import annotations

import os
import secrets
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.agent.approval import open_approver
from marple.agent.benches import Benches, OwnBenches, open_bench
from marple.agent.configuration import RunConfig
from marple.agent.draining import Drain
from marple.agent.endpoint_target import ENDPOINT_KEY_VARIABLE
from marple.agent.finishing import finish
from marple.agent.investigator import Investigator
from marple.agent.investigators import Options, open_investigator
from marple.agent.members import gather_members
from marple.agent.models import PROVIDERS
from marple.agent.playing import play_graph
from marple.agent.prompt_writing import open_writer
from marple.agent.replicating import OpenControl, replicate
from marple.agent.session import CallProgress, Session
from marple.agent.supervising import CANCELLED, finish_cancelled, unless_cancelled
from marple.agent.trying import needs_trial, try_answer
from marple.agent.workbench import Workbench
from marple.errors import MarpleError, SandboxError, StagingError
from marple.tasks.forecasts import draw_fire_items, draw_items
from marple.tasks.materials import Materials
from marple.tasks.outcome import outcome
from marple.traces import Event, RunFolder

if TYPE_CHECKING:
    from marple.tasks.organisms import Progress

__all__ = ["RunOutcome", "Watcher", "launch", "open_bench", "resume", "session_of"]


class Watcher:
    """Sees a run while it happens; override what is of interest."""

    def launched(self, folder: RunFolder) -> None:
        """The run folder exists; nothing has been done yet."""

    def on_event(self, event: Event) -> None:
        """An event has been written."""

    def on_call(self, call: CallProgress) -> None:
        """A call that takes long says how far it is."""

    def progress(self) -> Progress | None:
        """Where building an organism reports to."""
        return None


@dataclass(frozen=True)
class RunOutcome:
    """How a run stands when the process lets go of it."""

    run_id: str
    path: Path
    status: str
    """An outcome of ``marple.tasks.outcome``, or ``interrupted`` when ``marple resume`` can go on."""
    result: dict[str, Any] | None


class _WatchedFolder(RunFolder):
    """A run folder that tells a watcher about every event."""

    watch: Callable[[Event], None] | None = None

    def append(self, type: str, payload: Any, **fields: Any) -> Event:
        """Append as usual, then tell the watcher."""
        event = super().append(type, payload, **fields)
        if self.watch is not None:
            self.watch(event)
        return event


async def launch(
    config: RunConfig,
    *,
    watcher: Watcher | None = None,
    investigator: Investigator | None = None,
    bench: Workbench | None = None,
    benches: Benches | None = None,
    drain: Drain | None = None,
    run_id: str | None = None,
    part_of: Mapping[str, Any] | None = None,
) -> RunOutcome:
    """Play one run from the start.

    Args:
        config: what to run.
        watcher: sees the run while it happens.
        investigator: plays instead of the one the configuration names.
        bench: a workbench that holds the case's target already, shared with other runs and left open; None starts
            one for this run.
        benches: gives every workbench that is not given; None starts workers for this run alone.
        drain: asks the run to stop at its next step; None leaves that to SIGINT and SIGTERM.
        run_id: name of its folder; None makes one.
        part_of: of what larger thing the run is a part; kept in ``run.json`` as ``part_of``.

    Raises:
        UsageError: the configuration names something that does not exist or cannot be used; nothing was done.
        StorageError: the runs folder cannot be written; nothing was done, or the run stands interrupted.
    """
    player = investigator or _investigator(config)
    spec = config.spec(player) | ({} if part_of is None else {"part_of": dict(part_of)})
    folder = _WatchedFolder.create(config.runs, run_id or config.new_run_id(), spec, secrets=_secrets())
    return await _play(config, folder, player, watcher or Watcher(), bench, benches or OwnBenches(), drain)


async def resume(
    path: Path,
    *,
    watcher: Watcher | None = None,
    investigator: Investigator | None = None,
    bench: Workbench | None = None,
    benches: Benches | None = None,
    drain: Drain | None = None,
) -> RunOutcome:
    """Go on with an interrupted run where its last event left it; a run that is done is returned as it is.

    One that is to be cancelled is finished as cancelled. The options are those of `launch`.

    Raises:
        UsageError: another process is playing it.
        CorruptTraceError: the folder cannot be read.
    """
    done = RunFolder.open(path)
    if done.result is not None:
        return RunOutcome(done.run_id, path, done.result["status"], done.result)
    config = RunConfig.from_spec(done.spec, runs=path.parent)
    player = investigator or _investigator(config)
    folder = _WatchedFolder.reopen(path, secrets=_secrets())
    return await _play(config, folder, player, watcher or Watcher(), bench, benches or OwnBenches(), drain)


def _investigator(config: RunConfig) -> Investigator:
    options = Options(config.case.kind, config.model, config.base_url, config.effort)
    return open_investigator(config.investigator, options)


def _secrets() -> list[str]:
    names = (ENDPOINT_KEY_VARIABLE, *(provider.key_variable for provider in PROVIDERS.values()))
    values = (os.environ.get(name, "") for name in names)
    return [value for value in values if value]


async def _play(
    config: RunConfig,
    folder: _WatchedFolder,
    player: Investigator,
    watcher: Watcher,
    bench: Workbench | None,
    benches: Benches,
    drain: Drain | None,
) -> RunOutcome:
    with folder:
        folder.watch = watcher.on_event
        watcher.launched(folder)
        if folder.events():
            folder.append("run_resume", {"after": folder.events()[-1].id, "torn": folder.torn})
        try:
            done = await unless_cancelled(folder, _played(config, folder, player, watcher, bench, benches, drain))
        finally:
            await player.close()
        if done is None:
            return RunOutcome(folder.run_id, folder.path, CANCELLED, finish_cancelled(folder))
        return done


async def _played(
    config: RunConfig,
    folder: _WatchedFolder,
    player: Investigator,
    watcher: Watcher,
    bench: Workbench | None,
    benches: Benches,
    drain: Drain | None,
) -> RunOutcome:
    materials = await benches.prepare(config.case, progress=watcher.progress())
    materials = materials.beside(config.saes, config.corpus, config.plugins)
    session = session_of(config, folder, player, materials)
    session.on_call, session.drain = watcher.on_call, drain
    session.writer = open_writer(config.auxiliary, base_url=config.auxiliary_base_url, effort=config.effort)

    async def open_control() -> Workbench | None:
        control = await benches.control_of(config.case, materials, progress=watcher.progress())
        return None if control is None else await benches.open(control, "control", backend=config.sandbox)

    if config.members:

        async def play_member(number: int, run_id: str, stop: Drain) -> RunOutcome:
            return await _member(config, number, run_id, session, benches, stop)

        session.gather = lambda: gather_members(session, config.members, play_member)
    try:
        if bench is not None:
            session.bench = bench
            ending = await _play_session(session, open_control)
        else:
            ending = await _play_on_own_bench(session, config, materials, open_control, benches)
    finally:
        await session.writer.close()
    if ending is None:
        return RunOutcome(folder.run_id, folder.path, "interrupted", None)
    ending = await _tried(session, config, materials, benches) or ending
    result = finish(session, materials, ending)
    return RunOutcome(folder.run_id, folder.path, result["status"], result)


async def _member(
    config: RunConfig, number: int, run_id: str, session: Session, benches: Benches, drain: Drain
) -> RunOutcome:
    """Play a member of an ensemble on the ensemble's own bench, from its start or from where it was interrupted."""
    path = config.runs / run_id
    if (path / "run.json").exists():
        return await resume(path, bench=session.bench, benches=benches, drain=drain)
    part_of = {"ensemble": session.folder.run_id, "member": number}
    return await launch(
        config.member(number), bench=session.bench, benches=benches, drain=drain, run_id=run_id, part_of=part_of
    )


def session_of(config: RunConfig, folder: RunFolder, player: Investigator, materials: Materials) -> Session:
    """The parts of a run without a workbench; its held-out items are drawn."""
    return Session(
        case=config.played,
        folder=folder,
        investigator=player,
        bench=None,
        budget=config.budget,
        seed=config.seed,
        approve=open_approver(config.approval),
        forecast_items=draw_items(materials.forecast_pool, case_id=config.case.id, seed=config.seed),
        organism=materials.organism,
        context_tokens=config.window(player.model_name),
        fire_items=draw_fire_items(materials.fire_pool, case_id=config.case.id, seed=config.seed),
    )


async def _play_on_own_bench(
    session: Session, config: RunConfig, materials: Materials, open_control: OpenControl, benches: Benches
) -> str | None:
    """Start the worker, play, end the worker; returns the ending, or None when asked to stop."""
    if not session.investigator.uses_target:
        return await _play_session(session, open_control)
    try:
        session.bench = await benches.open(materials, "target", backend=config.sandbox)
    except SandboxError as error:
        _start_if_needed(session)
        session.folder.append("error", {"where": "start", "kind": type(error).__name__, "message": str(error)})
        return outcome("invalid", "staging") if isinstance(error, StagingError) else outcome("worker_died")
    try:
        return await _play_session(session, open_control)
    finally:
        await session.bench.close()


async def _play_session(session: Session, open_control: OpenControl) -> str | None:
    _start_if_needed(session)
    try:
        if session.gather is not None and not await session.gather():
            return None
        ending = await play_graph(session)
        if ending is not None:
            await replicate(session, open_control)
        return ending if ending is None else await _checked(session, ending)
    except MarpleError:
        raise
    except Exception as error:
        text = traceback.format_exc()
        session.folder.append("error", {"where": "loop", "message": repr(error), "traceback": text})
        return outcome("error")
    finally:
        if session.bench is not None:
            await session.bench.leave(session.folder.run_id)


async def _tried(session: Session, config: RunConfig, materials: Materials, benches: Benches) -> str:
    """Try what the answer hands in on a worker of its own; returns the ending where that makes the run invalid."""
    if not needs_trial(session):
        return ""
    try:
        bench = await benches.open(materials, "trial", backend=config.sandbox)
    except SandboxError as error:
        session.folder.append("error", {"where": "trial", "kind": type(error).__name__, "message": str(error)})
        return outcome("invalid", "trial_failed")
    try:
        problem = await try_answer(session, bench)
        return outcome("invalid", problem) if problem else ""
    finally:
        await bench.close()


async def _checked(session: Session, ending: str) -> str:
    """The ending, unless the tools did not compute with the weights that were loaded."""
    changed = await session.bench.changed() if session.bench else ""
    if not changed:
        return ending
    session.folder.append("error", {"where": "integrity", "kind": "weights_changed", "message": changed})
    return outcome("invalid", "weights_changed")


def _start_if_needed(session: Session) -> None:
    begun = bool(session.folder.events())
    session.note_starts(first=not begun)
    if begun:
        return
    bench, player = session.bench, session.investigator
    facts = {"stamp": bench.stamp, "target": bench.facts, "tools": sorted(bench.tools)} if bench else {}
    start = {
        "case": session.case.id,
        "investigator": player.name,
        "model": player.model_name,
        "seed": session.seed,
        "nonce": secrets.token_hex(4),
    }
    brief = session.case.brief()
    if bench and bench.python_reason and "python" in session.case.affordances:
        brief = f"{brief}\n\nThe tool python is not offered in this run: {bench.python_reason}."
    session.folder.append("run_start", {**start, "brief": brief, "sandbox": facts})
