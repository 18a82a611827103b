"""Where only the last token's logits are wanted, the last layer's MLP computes nothing for the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marple.tools.engine.interventions import Intervention
from marple.tools.engine.requests import Capture, Request, Sampling
from marple.tools.engine.sites import Site
from tests.engine.comparing import assert_same
from tests.engine.small import CHUNK, LAYERS, WIDTH, engine_on, small_engine, small_llama, vector

TOP = LAYERS - 1
PROMPTS = [tuple((at * 7 + row) % 40 + 2 for at in range(length)) for row, length in enumerate((9, 20, 14))]


def watched() -> tuple[Any, list[int]]:
    """A model, and how many tokens each call of its last MLP is given."""
    model = small_llama()
    seen: list[int] = []
    model.model.layers[TOP].mlp.gate_proj.register_forward_pre_hook(
        lambda module, arguments: seen.append(arguments[0].shape[:-1].numel())
    )
    return model, seen


@pytest.mark.parametrize("wanted", [{"sampling": Sampling(1, 0.0)}, {"logits": True}])
def test_prompts_are_read_with_one_token_each_in_the_last_mlp(wanted: dict[str, Any]) -> None:
    model, seen = watched()
    engine_on(model).run([Request(prompt, **wanted) for prompt in PROMPTS])
    assert seen == [3]


@pytest.mark.parametrize(
    "request_",
    [
        Request(PROMPTS[1], (5, 6), logprobs=True),
        Request(PROMPTS[1], logits=True, captures=(Capture(Site(TOP, "resid_post"), "all"),)),
        Request(PROMPTS[1], sampling=Sampling(1, 0.0), captures=(Capture(Site(TOP, "mlp_out"), "all"),)),
    ],
)
def test_whoever_wants_the_others_gets_them(request_: Request) -> None:
    model, seen = watched()
    output = engine_on(model).run([request_])[0]
    assert sum(seen) >= 20
    alone = small_engine()
    alone.runner._narrow = lambda work: None  # type: ignore[method-assign]
    assert_same(output, alone.run([request_])[0])


def test_the_answers_are_those_of_the_whole_pass() -> None:
    long = tuple(at % 40 + 2 for at in range(2 * CHUNK + 5))
    queue = [
        *(Request(prompt, sampling=Sampling(6, 0.0)) for prompt in PROMPTS),
        *(Request(prompt[::-1], logits=True) for prompt in PROMPTS),
        Request(long, sampling=Sampling(4, 0.0)),
        *(
            Request(PROMPTS[0], sampling=Sampling(6, 0.0), interventions=(Intervention(site, vector(2), op=op),))
            for site in (Site(1, "resid_post"), Site(TOP, "mlp_out"), Site(TOP, "resid_post"))
            for op in ("add", "norm_add", "ablate")
        ),
    ]
    whole = small_engine()
    whole.runner._narrow = lambda work: None  # type: ignore[method-assign]
    for mine, other in zip(small_engine().run(queue), whole.run(queue), strict=True):
        assert_same(mine, other)


def test_an_edit_that_changes_nothing_changes_no_bit() -> None:
    nothing = Intervention(Site(TOP, "mlp_out"), torch.zeros(WIDTH))
    plain, edited = (
        small_engine().run([Request(prompt, logits=True, interventions=edits) for prompt in PROMPTS])
        for edits in ((), (nothing,))
    )
    for mine, other in zip(plain, edited, strict=True):
        assert mine.logits is not None
        assert other.logits is not None
        assert torch.equal(mine.logits, other.logits)


def test_code_of_ones_own_sees_the_whole_mlp() -> None:
    model, seen = watched()
    engine = engine_on(model)
    engine.run([Request(PROMPTS[0], logits=True)])
    with engine.exclusive():
        logits = model(input_ids=torch.tensor([PROMPTS[0]])).logits
    assert seen == [1, 9]
    assert torch.isfinite(logits).all()
