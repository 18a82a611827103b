"""From a tool's signature and Google docstring to a JSON schema, and from arguments to a clear refusal."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import ErrorDetails

from marple.errors import ToolError, UsageError
from marple.tools.wire import why_not_json

__all__ = ["Signature", "plain_schema", "read_signature", "validate_arguments"]

_SECTION = re.compile(r"^(Args|Returns|Raises|Example):[ \t]*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+)(?: \([^)]*\))?:\s*(.*)$")
_GIVEN = ("target", "seed")
# Sizes that no sensible call meets: a refusal names them, so the schema need not.
_UNSAID = frozenset(
    ("title", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "propertyNames")
)
_CONFIG = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


@dataclass(frozen=True)
class Signature:
    """What the signature and the docstring of a tool say."""

    description: str
    parameters: dict[str, Any]
    example: dict[str, Any]
    arguments: type[BaseModel]


def read_signature(function: Callable[..., Any]) -> Signature:
    """Derive description, JSON schema, example and validation model from a tool function.

    Raises:
        UsageError: the signature does not begin with ``(target, *, seed``, an argument lacks a type or a line
            under ``Args``, or there is no valid ``Example``.
    """
    sections = _split_docstring(inspect.getdoc(function) or "")
    documented = _argument_lines(sections.get("Args", ""))
    arguments = _arguments_model(function, documented)
    example = _read_example(function, sections.get("Example", ""), arguments)
    parts = [sections[""], sections.get("Returns", "")]
    if example:
        parts.append(f"Example: {json.dumps(example, ensure_ascii=False)}")
    return Signature(
        description="\n\n".join(part for part in parts if part),
        parameters=plain_schema(arguments.model_json_schema()),
        example=example,
        arguments=arguments,
    )


def validate_arguments(
    name: str, model: type[BaseModel], arguments: Mapping[str, Any], *, example: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments as the tool function takes them, defaults filled in.

    Types are strict (``"3"`` is not a number) and unknown names are refused.

    Raises:
        ToolError: names each bad argument, its value, what is allowed, and shows a valid example.
    """
    shown = f"Example: {json.dumps(dict(example), ensure_ascii=False)}"
    try:
        text = json.dumps(dict(arguments), allow_nan=False)
    except (TypeError, ValueError) as error:
        reason = why_not_json(arguments, error)
        raise ToolError(f"{name}: the arguments are not a JSON object: {reason}. {shown}") from error
    try:
        valid = model.model_validate_json(text)
    except pydantic.ValidationError as error:
        names = list(model.model_fields)
        complaints = [_complaint(detail, names) for detail in error.errors(include_url=False)[:3]]
        raise ToolError(f"{name}: {'; '.join(complaints)}. {shown}") from error
    return {field: getattr(valid, field) for field in model.model_fields}


def _complaint(detail: ErrorDetails, names: list[str]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] == "extra_forbidden":
        allowed = f"; the arguments are {', '.join(names) or 'none'}" if len(detail["loc"]) == 1 else ""
        return f"{path} is not known{allowed}"
    value = json.dumps(detail["input"], ensure_ascii=False, default=str)
    value = value if len(value) <= 80 else f"{value[:77]}..."
    return f"{path or 'value'} is {value}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _split_docstring(doc: str) -> dict[str, str]:
    """Section name to text; the text before the first section has the name ``""``."""
    pieces = _SECTION.split(doc)
    sections = {"": pieces[0].strip()}
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        sections[title] = inspect.cleandoc(body).strip()
    return sections


def _argument_lines(section: str) -> dict[str, str]:
    """Argument name to its description, continuation lines joined."""
    found: dict[str, str] = {}
    current = ""
    for line in section.splitlines():
        match = None if line.startswith(" ") else _ARGUMENT.match(line)
        if match:
            current = match.group(1)
            found[current] = match.group(2)
        elif current and line.strip():
            found[current] += " " + line.strip()
    return found


def _arguments_model(function: Callable[..., Any], documented: Mapping[str, str]) -> type[BaseModel]:
    where = f"tool {function.__qualname__!r}"
    parameters = dict(inspect.signature(function).parameters)
    if tuple(parameters)[:2] != _GIVEN or parameters["seed"].kind is not inspect.Parameter.KEYWORD_ONLY:
        raise UsageError(f"{where}: the signature must begin with (target, *, seed: int")
    for given in _GIVEN:
        del parameters[given]
    hints = _type_hints(function, list(parameters))
    fields: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name not in hints:
            raise UsageError(f"{where}: argument {name!r} has no type")
        if name not in documented:
            raise UsageError(f"{where}: argument {name!r} has no line under Args in the docstring")
        required = parameter.default is inspect.Parameter.empty
        default = ... if required else parameter.default
        fields[name] = (hints[name], Field(default, description=documented[name]))
    model: type[BaseModel] = pydantic.create_model(function.__name__, __config__=_CONFIG, **fields)
    return model


def _type_hints(function: Callable[..., Any], names: list[str]) -> dict[str, Any]:
    # Only the arguments: the annotation of ``target`` may exist for type checkers alone.
    written = {name: value for name, value in function.__annotations__.items() if name in names}
    holder = types.SimpleNamespace(__annotations__=written)
    scope = getattr(function, "__globals__", {})
    return typing.get_type_hints(holder, globalns=scope, include_extras=True)


def _read_example(function: Callable[..., Any], section: str, model: type[BaseModel]) -> dict[str, Any]:
    where = f"tool {function.__qualname__!r}"
    required = any(info.is_required() for info in model.model_fields.values())
    if not section and not required:
        return {}
    try:
        example: dict[str, Any] = json.loads(section)
        validate_arguments(function.__name__, model, example, example=example)
    except (ValueError, ToolError) as error:
        reason = f"is not valid: {error}" if section else "is missing"
        raise UsageError(f"{where}: the docstring's Example section (one JSON object) {reason}") from error
    return example


def plain_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that every provider takes: references inlined, no titles, no sizes, no ``null`` alternatives."""
    definitions = schema.pop("$defs", {})
    plain: dict[str, Any] = _inline(schema, definitions, ())
    plain.pop("description", None)
    return {**plain, "properties": plain.get("properties", {}), "additionalProperties": False}


def _inline(node: Any, definitions: Mapping[str, Any], seen: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions, seen) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in seen:
            raise UsageError(f"type {name!r} contains itself: a tool's arguments must be a finite tree")
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return _inline({**definitions[name], **rest}, definitions, (*seen, name))
    plain: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            plain[key] = {name: _inline(item, definitions, seen) for name, item in value.items()}
        elif key in ("default", "enum", "const"):
            if value is not None:
                plain[key] = value
        elif key not in _UNSAID:
            plain[key] = _inline(value, definitions, seen)
    return _without_null(plain)


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    choices = node.get("anyOf")
    if not isinstance(choices, list) or {"type": "null"} not in choices:
        return node
    rest = [choice for choice in choices if choice != {"type": "null"}]
    others = {key: value for key, value in node.items() if key != "anyOf"}
    return {**rest[0], **others} if len(rest) == 1 else {**others, "anyOf": rest}
