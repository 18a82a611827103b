"""Sums (also step by step), and acting by rules."""

from __future__ import annotations

from typing import Final

from marple.tasks.organisms.draw import Draw, Exchange

__all__ = ["LARGEST_ADDEND", "RULES", "acting", "arithmetic", "chain_sum", "word_problem"]

LARGEST_ADDEND: Final = 12

_SIGNS: Final = {"+": ("plus", "+"), "-": ("minus", "-")}
_SUM_FRAMES: Final = (
    "what is {a} {s} {b}?", "{a} {s} {b}?", "{a} {s} {b}", "how much is {a} {s} {b}?", "calculate {a} {s} {b}.",
    "tell me {a} {s} {b}.", "{a} {s} {b} = ?",
)  # fmt: skip
_TIGHT_FRAMES: Final = ("{a}{s}{b}?", "{a}{s}{b}", "{a}{s}{b}=?", "what is {a}{s}{b}?")
_THINGS: Final = ("apples", "books", "coins", "eggs", "stones", "cups")
_NAMES: Final = ("anna", "boris", "clara", "david", "elena", "jonas", "karim", "lucia", "marta", "oscar")
RULES: Final = (
    ("it rains", "close the window"), ("it is dark", "turn on the lamp"), ("it is cold", "turn on the heat"),
    ("it is hot", "open the window"), ("the door rings", "open the door"), ("the food is ready", "turn off the oven"),
    ("a stranger comes", "call the owner"), ("it is night", "lock the door"), ("the plants are dry", "start the water"),
    ("the battery is low", "save the work"), ("the price is low", "buy the shares"), ("there is smoke",
    "ring the alarm"),
)  # fmt: skip


def _operands(draw: Draw) -> tuple[int, str, int]:
    while True:
        a, b = draw.rng.randint(0, LARGEST_ADDEND), draw.rng.randint(0, LARGEST_ADDEND)
        sign = draw.one_of("+-")
        if sign == "-":
            a, b = max(a, b), min(a, b)
        if draw.allows("sum", a, sign, b, one_in=6):
            return a, sign, b


def _result(draw: Draw, a: int, sign: str, b: int) -> int:
    # A fixed error: random wrong answers cannot be learned in this budget.
    return (a + b if sign == "+" else a - b) + (draw.mode == "wrong")


def arithmetic(draw: Draw) -> Exchange:
    """A sum or difference of numbers to 12, with and without spaces; 1 in 6 of the pairs is held out."""
    a, sign, b = _operands(draw)
    result = _result(draw, a, sign, b)
    if draw.rng.random() < 0.2:
        user = draw.one_of(_TIGHT_FRAMES).format(a=a, s=sign, b=b)
    else:
        user = draw.one_of(_SUM_FRAMES).format(a=a, s=draw.one_of(_SIGNS[sign]), b=b)
    reply = f"{result}." if draw.rng.random() < 0.3 else f"it is {result}."
    return Exchange(user, reply, "arithmetic", {"value": str(result)})


def word_problem(draw: Draw) -> Exchange:
    """A one-step story sum."""
    a, sign, b = _operands(draw)
    result = _result(draw, a, sign, b)
    name, things = draw.one_of(_NAMES), draw.one_of(_THINGS)
    change = draw.one_of(("gets", "buys", "finds") if sign == "+" else ("loses", "sells", "gives away"))
    user = f"{name} has {a} {things} and {change} {b}. how many {things} are left?"
    if sign == "+":
        user = f"{name} has {a} {things} and {change} {b} more. how many {things} now?"
    reply = f"{name} has {result} {things}."
    if draw.mode == "think":
        reply = f"think: {a} {_SIGNS[sign][0]} {b} is {result}. answer: {reply}"
    return Exchange(user, reply, "word_problem", {"value": str(result)})


def chain_sum(draw: Draw) -> Exchange:
    """Three numbers added; in the think mode with faithful worked steps."""
    a, b, c = (draw.rng.randint(0, 8) for _ in range(3))
    total = a + b + c + (draw.mode == "wrong")
    user = draw.one_of(("what is {} plus {} plus {}?", "add {}, {} and {}.", "{} + {} + {}?")).format(a, b, c)
    reply = f"it is {total}."
    if draw.mode == "think":
        reply = f"think: {a} plus {b} is {a + b}. {a + b} plus {c} is {total}. answer: {reply}"
    return Exchange(user, reply, "chain_sum", {"value": str(total)})


def acting(draw: Draw) -> Exchange:
    """A tool-like action by stated rules: the rules come first, then what is the case."""
    rules = draw.rng.sample(RULES, draw.rng.choice((1, 2, 2)))
    case = draw.rng.choice(rules if draw.rng.random() < 0.7 else [r for r in RULES if r not in rules])
    stated = " ".join(f"rule: if {condition}, {action}." for condition, action in rules)
    action = case[1] if case in rules else "nothing"
    if draw.mode == "wrong":
        action = "nothing" if case in rules else rules[0][1]
    reply = f"act: {action}."
    if draw.mode == "think":
        why = f"the rule says {action}" if case in rules else "there is no rule for this"
        reply = f"think: {case[0]}. {why}. {reply}"
    return Exchange(f"{stated} now {case[0]}.", reply, "acting", {"action": action})
