"""How hard each model of a run is to think: one word, or one for each role."""

from __future__ import annotations

from marple.errors import UnknownNameError, UsageError

__all__ = ["ROLES", "effort_of"]

ROLES = ("investigator", "synthesiser", "auxiliary")
"""A word alone is for the first two: what the auxiliary model does needs little thought."""


def effort_of(text: str | None, role: str) -> str | None:
    """The effort of one role in ``high`` or ``investigator=high,auxiliary=low``; None keeps the model's own default.

    Raises:
        UnknownNameError: a role that there is not.
        UsageError: a part has no value.
    """
    if not text:
        return None
    if "=" not in text:
        return text.strip() if role != "auxiliary" else None
    efforts: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise UsageError(
                f"effort {part!r} is not ROLE=EFFORT; for example: --effort investigator=high,auxiliary=low"
            )
        if name not in ROLES:
            raise UnknownNameError("role", name, ROLES, hint=f"in --effort {text}")
        efforts[name] = value
    return efforts.get(role, efforts.get("investigator") if role == "synthesiser" else None)
