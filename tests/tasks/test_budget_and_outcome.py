"""Limits and endings are closed sets with clear refusals."""

import pytest

from marple.errors import UnknownNameError, UsageError
from marple.tasks.budget import Budget
from marple.tasks.outcome import is_scored, outcome


def test_budget_text() -> None:
    assert Budget().with_text("turns=3,calls=none,cost=0.5") == Budget(turns=3, calls=None, cost=0.5)
    assert Budget().with_text(None) == Budget()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("turns", "not KEY=VALUE"),
        ("turns=x", "not a number"),
        ("turns=0", "above 0"),
        ("turns=-1", "above 0"),
        ("turns=nan", "above 0"),
        ("calls=1.5", "whole number"),
    ],
)
def test_bad_budgets_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Budget().with_text(text)


def test_an_unknown_limit_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown budget key 'turn'; did you mean turns"):
        Budget().with_text("turn=3")


def test_outcomes() -> None:
    assert outcome("limit", "turns") == "limit:turns"
    with pytest.raises(ValueError, match="needs"):
        outcome("limit")
    with pytest.raises(ValueError, match="takes no"):
        outcome("submitted", "x")
    assert is_scored("submitted", answered=True)
    assert is_scored("limit:turns", answered=True)
    assert not is_scored("limit:turns", answered=False)
    assert not is_scored("refused_investigator", answered=True)
    assert not is_scored("target_never_called", answered=True)
