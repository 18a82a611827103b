"""Make many prompts out of few parts: templates with slots, and personas."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from marple.errors import ToolError
from marple.tools.arguments import Message, one_turn

__all__ = ["MAX_PROMPTS", "Combination", "check_prompt_count", "fill_template", "with_personas"]

MAX_PROMPTS = 10_000
"""Most prompts one call may send."""


@dataclass(frozen=True)
class Combination:
    """One prompt, and the parts it was made of."""

    prompt: str
    condition: dict[str, str]
    """Slot name to its value; a persona under ``persona``."""
    messages: tuple[Message, ...]


def fill_template(template: str, slots: Mapping[str, Sequence[str]]) -> list[tuple[str, dict[str, str]]]:
    """The template under every combination of its slots' values, and those values; the last slot varies fastest.

    Raises:
        ToolError: the template has no slot or an unusable one, the slots given are not those of the template,
            or the combinations are too many.
    """
    try:
        wanted = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ToolError(f"template cannot be read ({error}); a literal brace is written twice: {{{{ or }}}}") from error
    unusable = [name for name in wanted if not name.isidentifier()]
    if unusable or not wanted:
        what = f"slot {unusable[0]!r} is not a name" if unusable else "there is no slot in it"
        raise ToolError(f'template: {what}; write a slot as {{name}}, for example "Tell me about {{topic}}"')
    if wanted != set(slots):
        raise ToolError(
            f"slots has values for {sorted(slots)}, but the template has the slots {sorted(wanted)}; "
            f'for example "slots": {{"{min(wanted)}": ["first", "second"]}}'
        )
    check_prompt_count(math.prod(len(values) for values in slots.values()))
    chosen = [dict(zip(slots, values, strict=True)) for values in itertools.product(*slots.values())]
    return [(template.format(**values), values) for values in chosen]


def with_personas(
    asked: Sequence[tuple[str, dict[str, str]]],
    personas: Sequence[str] | None,
    *,
    persona_as: Literal["system", "user"],
    system: str | None,
) -> list[Combination]:
    """Every prompt under every persona, as conversations.

    Raises:
        ToolError: two things would set the system prompt, or the combinations are too many.
    """
    if personas is not None and persona_as == "system" and system is not None:
        raise ToolError('system and personas both set the system prompt; leave system out or use persona_as "user"')
    check_prompt_count(len(asked) * len(personas or [""]))
    if personas is None:
        return [Combination(prompt, parts, tuple(one_turn(prompt, system=system))) for prompt, parts in asked]
    combinations = []
    for (prompt, parts), persona in itertools.product(asked, personas):
        if persona_as == "system":
            messages = one_turn(prompt, system=persona)
        else:
            messages = one_turn(f"{persona}\n{prompt}", system=system)
        combinations.append(Combination(prompt, {**parts, "persona": persona}, tuple(messages)))
    return combinations


def check_prompt_count(count: int) -> None:
    """Raise a ToolError where a call would send too many prompts."""
    if count > MAX_PROMPTS:
        raise ToolError(f"the combinations make {count} prompts; at most {MAX_PROMPTS} are allowed in a call")
