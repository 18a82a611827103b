"""What happened: the run folder, its event log, and finding runs again.

Reads and writes without torch or langgraph installed; imports nothing of the other packages but the errors.
"""

from marple.traces.event import EVENT_TYPES, ROLES, SCHEMA_VERSION, Event
from marple.traces.listing import RunSummary, find_run, list_runs, summary_of
from marple.traces.run_folder import RunFolder
from marple.traces.schema import load_schema

__all__ = [
    "EVENT_TYPES",
    "ROLES",
    "SCHEMA_VERSION",
    "Event",
    "RunFolder",
    "RunSummary",
    "find_run",
    "list_runs",
    "load_schema",
    "summary_of",
]
