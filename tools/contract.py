"""What a tool is: a typed function with a docstring under ``@tool``.

::

    @tool(rung=1)
    def chat(target: Target, *, seed: int, messages: list[Message], samples: int = 1) -> ToolResult: ...

The JSON schema comes from the signature and the Google docstring, which must hold a line under ``Args`` for
each argument and an ``Example`` of valid arguments as one JSON object. ``target`` and ``seed`` are given by
the worker and never appear in the schema. A function in any module of ``marple.tools.experiments`` is found
without a registry, and so is one in a plugin file outside the package. Importing this module imports neither
torch nor pydantic.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import pkgutil
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from marple.errors import ToolError, UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from marple.tools.target.target import Target

__all__ = [
    "Artifact",
    "Cost",
    "Need",
    "ToolResult",
    "ToolSpec",
    "discover_tools",
    "family_of",
    "tool",
    "tool_spec",
    "unmet_needs",
]

Need = Literal["reference", "sae", "corpus"]
"""What may be loaded beside a target: the model it is compared with, sparse autoencoders, a corpus of transcripts."""
_F = TypeVar("_F", bound=Callable[..., "ToolResult"])
_MARK = "__marple_tool__"
_FAMILIES = {1: "prompting", 2: "activations", 3: "mechanisms", 4: "code"}


@dataclass(frozen=True)
class Cost:
    """What a call used on the target (and on its reference)."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.prompt_tokens + other.prompt_tokens,
            self.generated_tokens + other.generated_tokens,
            self.seconds + other.seconds,
        )

    @property
    def tokens(self) -> int:
        """All tokens that went through a model."""
        return self.prompt_tokens + self.generated_tokens


@dataclass(frozen=True)
class Artifact:
    """A file a tool made: a plot (``image/png``) or a table (``text/csv``)."""

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True)
class ToolResult:
    """What a tool returns."""

    text: str
    """Short text for the investigator; strings that came out of a model are JSON-encoded in it."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The same and more, structured: JSON values only, no NaN."""
    artifacts: tuple[Artifact, ...] = ()
    controls: Mapping[str, Any] = field(default_factory=dict)
    """The controls and baselines the tool ran beside the effect, JSON values."""
    cost: Cost = Cost()
    """Tokens are counted by the tool; ``ToolSpec.run`` fills in the seconds."""
    handles: tuple[str, ...] = ()
    """Names of vectors, activations or probes kept in the worker."""


@dataclass(frozen=True)
class _Mark:
    rung: int
    parallel: bool
    needs: tuple[Need, ...]
    family: str
    self_test: Callable[[], None] | None


def tool(
    *,
    rung: int,
    parallel: bool = False,
    needs: Sequence[Need] = (),
    family: str | None = None,
    self_test: Callable[[], None] | None = None,
) -> Callable[[_F], _F]:
    """Mark a function as a tool; it stays an ordinary function.

    Args:
        rung: the affordance level: 1 black-box, 2 activations, 3 mechanisms, 4 code.
        parallel: whether calls may run at the same time as other calls.
        needs: what must be loaded beside the target for the tool to be offered.
        family: the method it belongs to, by which a run can leave it out; None is the usual one of its needs and rung.
        self_test: a known-answer test without arguments; it raises when the tool is wrong.
    """
    family = family or family_of(rung, needs)
    mark = _Mark(rung=rung, parallel=parallel, needs=tuple(needs), family=family, self_test=self_test)

    def decorate(function: _F) -> _F:
        setattr(function, _MARK, mark)
        return function

    return decorate


def family_of(rung: int, needs: Sequence[str]) -> str:
    """The family of a tool that names none."""
    return "sae" if "sae" in needs else _FAMILIES.get(rung, "other")


@dataclass(frozen=True)
class ToolSpec:
    """A tool as the worker lists and runs it."""

    name: str
    description: str
    """For the investigator: the docstring up to ``Args``, what is returned, and the example."""
    rung: int
    parallel: bool
    needs: tuple[Need, ...]
    family: str
    """The method it belongs to, such as ``prompting`` or ``steering``."""
    parameters: Mapping[str, Any]
    """JSON schema: one object with ``properties``, references inlined."""
    function: Callable[..., ToolResult]
    self_test: Callable[[], None] | None
    example: Mapping[str, Any]
    """Valid arguments, shown with every refusal."""
    arguments: type[BaseModel] = field(repr=False)
    """The pydantic model the arguments are validated with."""

    def run(self, target: Target, arguments: Mapping[str, Any], *, seed: int) -> ToolResult:
        """Validate the arguments and run the tool, with the elapsed wall time put into its cost.

        Raises:
            ToolError: an argument is missing, unknown or outside its allowed set, or something the tool needs
                is not loaded beside the target.
        """
        from marple.tools.signature import validate_arguments

        valid = validate_arguments(self.name, self.arguments, arguments, example=self.example)
        if unmet := unmet_needs(self.needs, target):
            raise ToolError(f"{self.name} needs {_NEEDED[unmet[0]]} and none is loaded beside this target")
        start = time.perf_counter()
        result = self.function(target, seed=seed, **valid)
        cost = dataclasses.replace(result.cost, seconds=time.perf_counter() - start)
        return dataclasses.replace(result, cost=cost)


_NEEDED: Mapping[Need, str] = {
    "reference": "a reference model",
    "sae": "a sparse autoencoder",
    "corpus": "a corpus of transcripts",
}


def unmet_needs(needs: Iterable[Need], target: Target) -> list[Need]:
    """Those of a tool's needs that are not loaded beside this target."""
    there = {
        "reference": target.reference is not None,
        "sae": bool(target.saes),
        "corpus": target.corpus is not None,
    }
    return [need for need in needs if not there[need]]


def tool_spec(function: Callable[..., ToolResult]) -> ToolSpec:
    """The specification of one function marked with ``@tool``.

    Raises:
        UsageError: the function is not marked, or its signature or docstring breaks the contract.
    """
    from marple.tools.signature import read_signature

    mark = getattr(function, _MARK, None)
    if not isinstance(mark, _Mark):
        raise UsageError(f"{function.__qualname__} is not a tool: put @tool(rung=...) above it")
    signature = read_signature(function)
    return ToolSpec(
        name=function.__name__,
        description=signature.description,
        rung=mark.rung,
        parallel=mark.parallel,
        needs=mark.needs,
        family=mark.family,
        parameters=signature.parameters,
        function=function,
        self_test=mark.self_test,
        example=signature.example,
        arguments=signature.arguments,
    )


def discover_tools(plugins: Iterable[Path] = ()) -> dict[str, ToolSpec]:
    """Every tool in ``marple.tools.experiments`` and in the given plugin files, in order of name.

    Raises:
        UsageError: a plugin file cannot be imported, two tools share a name, or a tool breaks the contract.
    """
    specs: dict[str, ToolSpec] = {}
    for module in (*_experiment_modules(), *map(_plugin_module, plugins)):
        for function in vars(module).values():
            if not hasattr(function, _MARK) or function.__module__ != module.__name__:
                continue
            spec = tool_spec(function)
            if spec.name in specs:
                other = specs[spec.name].function.__module__
                raise UsageError(f"two tools are called {spec.name!r}: in {other} and in {module.__name__}")
            specs[spec.name] = spec
    return dict(sorted(specs.items()))


def _experiment_modules() -> Iterator[ModuleType]:
    package = importlib.import_module("marple.tools.experiments")
    for info in pkgutil.walk_packages(package.__path__, prefix=package.__name__ + "."):
        yield importlib.import_module(info.name)


@functools.cache
def _plugin_module(path: Path) -> ModuleType:
    if path.suffix != ".py" or not path.is_file():
        raise UsageError(f"tool plugin {str(path)!r} is not a Python file")
    name = f"marple_plugin_{path.stem}_{zlib.crc32(bytes(path.resolve())):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Annotations written as strings are looked up through sys.modules.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"tool plugin {path.name!r} cannot be imported: {error!r}") from error
    return module
