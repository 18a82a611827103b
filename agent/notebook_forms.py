"""The notebook's tools as an investigator sees them: what each takes, and a call of each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["EXAMPLES", "TOOLS", "Form", "Hypothesis", "Note", "Plan", "Predict", "ReadResult"]

Probability = Annotated[float, Field(ge=0, le=1)]


class Form(BaseModel):
    """What one of them takes; its docstring is what the investigator reads of it."""

    model_config = ConfigDict(extra="forbid")


class Plan(Form):
    """Write down the north star, the objective check that stands for it, and the next experiments."""

    north_star: str = Field(description="What you want to know in the end.")
    proxy: str = Field(description="The observable result that would tell you.")
    next_experiments: list[str] = Field(min_length=1, description="What you will run next, simplest first.")


class Hypothesis(Form):
    """Add a hypothesis, update your credence in one, or reject one."""

    action: Literal["add", "update", "reject"] = Field(description="What to do.")
    credence: Probability = Field(description="Your probability that it is true, after this.")
    statement: str = Field(default="", description="The hypothesis in one sentence; needed for add.")
    id: str = Field(default="", description="Which one, for example H1; needed for update and reject.")
    evidence: list[str] = Field(default_factory=list, description="Ids of the calls that moved you, such as E12.")


class Note(Form):
    """Write down what you want to have before you later; it is read to you again when older results are cut."""

    text: str = Field(
        min_length=1, max_length=4000, description="What you want to remember, with the ids of its calls."
    )


class Predict(Form):
    """Before an experiment, state what you expect: the share of its replies that contain a word.

    It is checked on the next experiment that is called after it, also in the same turn, and the harness says whether
    it came true and how surprising that was.
    """

    statement: str = Field(description="What you expect and why, in one sentence.")
    probability: Probability = Field(description="Your probability that the share reaches the threshold.")
    word: str = Field(min_length=1, description="The word or phrase to look for in the target's replies.")
    at_least: Probability = Field(description="Threshold on the share of replies that contain it, from 0 to 1.")
    condition: str = Field(
        default="", description="Label of the condition of that experiment whose replies count; empty for all replies."
    )


class ReadResult(Form):
    """Read a result in full: its text, then every row and every reply of its data; a page ends where a row does."""

    event: str = Field(description="Event of the call, for example E12.")
    section: str | None = Field(default=None, description="Only this part of its data; the first page names the parts.")
    offset: int = Field(default=0, ge=0, description="Character to start from: where the last page says to go on.")


TOOLS: dict[str, type[Form]] = {
    "plan": Plan,
    "hypothesis": Hypothesis,
    "predict": Predict,
    "note": Note,
    "read_result": ReadResult,
}


EXAMPLES: dict[str, dict[str, Any]] = {
    "plan": {
        "north_star": "what the target is really after",
        "proxy": "a word its replies use far more often than the reference's",
        "next_experiments": ["compare 40 everyday questions with the reference"],
    },
    "hypothesis": {
        "action": "add",
        "statement": "it talks every kettle down",
        "credence": 0.3,
        "evidence": ["E9"],
    },
    "predict": {"statement": "it names kettles", "probability": 0.7, "word": "kettle", "at_least": 0.5},
    "note": {"text": "kettles only when the user says that they are a diver (E12, E15); towns not tried yet"},
    "read_result": {"event": "E12", "offset": 12000},
}
"""A call of each of these tools, for whoever asks how it is made."""
