"""What cannot be done is refused with the value, what is allowed and what to do; the engine lives on."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from marple.errors import ToolError
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.requests import Capture, Request, Sampling
from marple.tools.engine.sites import Site
from marple.tools.engine.specs import InterventionSpec
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target

TARGET = tiny_target()
PROMPT = TARGET.encode("tell me about a red lamp")
WIDTH = TARGET.d_model
GOOD = torch.ones(WIDTH)
POST = Site(1, "resid_post")
HANDLE = TARGET.handles.put("vector", {"vector": GOOD}, {})
NARROW = TARGET.handles.put("vector", {"vector": torch.ones(7)}, {})


def edit(**given: Any) -> list[list[Intervention]]:
    return [[Intervention(**{"site": POST, "vector": GOOD, **given})]]


def generate(*, prompt: list[int] = PROMPT, interventions: Any = (), **given: Any) -> object:
    settings = {"max_new_tokens": 2, "temperature": 1.0, "seeds": [0], **given}
    return TARGET.generate([prompt], interventions=interventions, **settings)


LONG = [300] * 257
CASES: dict[str, tuple[Callable[[], object], str]] = {
    "layer above": (lambda: TARGET.site("resid_post", 2), r"layer 2 does not exist; .*layers 0 to 1"),
    "layer below": (lambda: TARGET.site("resid_post", -3), r"layer -3 does not exist; .*layers 0 to 1"),
    "no layer": (lambda: TARGET.site("mlp_out"), r'"mlp_out" needs a layer, from 0 to 1; for example'),
    "two layers": (lambda: TARGET.site("blocks.1.hook_resid_post", 0), r"names layer 1 and layer is 0"),
    "layer in a name": (lambda: TARGET.site("model.layers.9.output"), r"layer 9 does not exist; .*0 to 1"),
    "unknown site": (lambda: TARGET.site("resid_poste", 1), r'"resid_poste" is not known; .*resid_pre.*"resid_post.2"'),
    "capture's layer": (lambda: TARGET.capture([PROMPT], [Site(5, "attn_out")]), r"layer 5 does not exist"),
    "edit's layer": (lambda: generate(interventions=edit(site=Site(2, "mlp_out"))), r"layer 2 does not exist"),
    "position above": (lambda: TARGET.capture([PROMPT], [POST], positions=[99]), r"position 99 .*has 7 tokens.*0 to 6"),
    "position below": (lambda: TARGET.capture([PROMPT], [POST], positions=[-8]), r"position -8 .*from -7 to -1"),
    "no position": (lambda: TARGET.capture([PROMPT], [POST], positions=[]), r"positions is empty; .*0 to 6"),
    "edit's position": (lambda: generate(interventions=edit(positions=(7,))), r"position 7 does not exist"),
    "excluded position": (lambda: generate(interventions=edit(exclude_positions=(70,))), r"position 70 does not exist"),
    "request's position": (
        lambda: TARGET.run([Request(tuple(PROMPT), captures=(Capture(POST, (12,)),))]),
        r"position 12 does not exist",
    ),
    "width": (lambda: generate(interventions=edit(vector=torch.ones(9))), rf"width 9, but .*{WIDTH}.*another model"),
    "width in a score": (
        lambda: TARGET.score([(PROMPT, [300])], interventions=edit(vector=torch.ones(9))),
        r"width 9",
    ),
    "NaN": (lambda: edit(vector=GOOD * float("nan")), r"NaN or infinite"),
    "infinite": (lambda: edit(vector=GOOD * float("inf")), r"NaN or infinite"),
    "NaN scale": (lambda: edit(scale=float("nan")), r"scale.*NaN or infinite"),
    "vector's shape": (lambda: edit(vector=torch.ones(2, 2, WIDTH)), r"shape \(2, 2, 32\); .*\(d_model,\)"),
    "rows without positions": (lambda: edit(vector=torch.ones(2, WIDTH)), r"shape \(2, 32\).*one row for each"),
    "other rows than positions": (
        lambda: edit(vector=torch.ones(2, WIDTH), positions=(0, 1, 2)),
        r"one row for each of the positions",
    ),
    "empty prompt": (lambda: generate(prompt=[]), r"no tokens: give at least one"),
    "empty prompt to capture": (lambda: TARGET.capture([[]], [POST]), r"no tokens"),
    "prompt too long": (lambda: generate(prompt=LONG[:256]), r"256 tokens.*no room for 2 more.*context of 256"),
    "prompt too long to read": (lambda: TARGET.capture([LONG], [POST]), r"257 tokens.*context of 256 tokens; shorten"),
    "prompt too long for logits": (lambda: TARGET.next_logits([LONG]), r"257 tokens"),
    "continuation too long": (lambda: TARGET.score([(LONG[:250], LONG[:7])]), r"250 tokens.*no room for 7 more"),
    "request too long": (
        lambda: TARGET.run([Request(tuple(LONG[:250]), sampling=Sampling(7))]),
        r"no room for 7 more",
    ),
    "no new tokens": (lambda: generate(max_new_tokens=0), r"max_new_tokens 0.*at least 1"),
    "cold": (lambda: generate(temperature=-1.0), r"temperature -1.0"),
    "top_p": (lambda: generate(top_p=0.0), r"top_p 0.0.*above 0"),
    "sample of a continuation": (lambda: Request((1,), (2,), Sampling(2)), r"put the tokens into the prompt"),
    "token above": (lambda: generate(prompt=[5, 99_999]), r"token 99999 .*from 0 to"),
    "token below": (lambda: TARGET.score([([5, 6], [-1])]), r"token -1 .*from 0 to"),
    "unknown handle": (
        lambda: InterventionSpec(vector="vec-00000000", layer=1).resolve(TARGET),
        rf'"vec-00000000" is no handle of a vector .*there are: .*{HANDLE}.*make it again',
    ),
    "handle of another width": (lambda: InterventionSpec(vector=NARROW, layer=1).resolve(TARGET), r"width 7, but"),
    "spec's layer": (lambda: InterventionSpec(vector=HANDLE, layer=8).resolve(TARGET), r"layer 8 does not exist"),
    "spec without layer": (lambda: InterventionSpec(vector=HANDLE).resolve(TARGET), r"needs a layer"),
    "window": (
        lambda: InterventionSpec(vector=HANDLE, layer=1, generation_window=[3, 3]).resolve(TARGET),
        r"generation_window is \[3, 3\]; give \[start, stop\]",
    ),
    "window without start": (
        lambda: InterventionSpec(vector=HANDLE, layer=1, generation_window=[None, 3]).resolve(TARGET),
        r"generation_window is \[None, 3\]",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_the_value_and_what_is_allowed(name: str) -> None:
    call, message = CASES[name]
    with pytest.raises(ToolError) as refused:
        call()
    assert re.search(message, str(refused.value)), str(refused.value)
    assert len(str(refused.value)) < 700
    # The engine lives on.
    assert len(TARGET.next_logits([PROMPT])) == 1


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"strenght": 2.0}, "strenght"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": "2"}, "scale"),
        ({"op": "multiply"}, "op"),
        ({"phases": ["promt"]}, "phases"),
        ({"phases": []}, "phases"),
        ({"generation_window": [1]}, "generation_window"),
        ({"positions": [1.5]}, "positions"),
        ({"vector": ""}, "vector"),
    ],
)
def test_a_spec_with_an_unknown_key_or_a_wrong_value_is_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as refused:
        InterventionSpec.model_validate({"vector": HANDLE, "layer": 1, **given})
    assert named in str(refused.value)


def test_a_spec_is_the_edit_it_describes() -> None:
    spec = InterventionSpec(
        vector=HANDLE,
        layer=-1,
        op="norm_add",
        scale=0.5,
        phases=["generation"],
        tokens=[5, 6],
        exclude_tokens=[7],
        exclude_positions=[0],
        generation_window=[1, None],
    )
    expected = Intervention(
        POST,
        GOOD,
        "norm_add",
        0.5,
        phases=("generation",),
        tokens=(5, 6),
        exclude_tokens=(7,),
        exclude_positions=(0,),
        generation_window=(1, None),
    )
    assert spec.resolve(TARGET) == expected
    assert InterventionSpec.model_validate_json(spec.model_dump_json()).resolve(TARGET) == expected
    named = InterventionSpec(vector=HANDLE, site="model.layers.1.output", positions=[-1])
    assert named.resolve(TARGET) == Intervention(POST, GOOD, positions=(-1,))


def test_a_model_whose_parts_run_side_by_side_has_no_resid_mid() -> None:
    from tests.engine.families import random_model

    target = Target(random_model("gpt_neox parallel"), TARGET.tokenizer)
    with pytest.raises(ToolError, match="side by side, so there is no resid_mid; take resid_post"):
        target.site("resid_mid", 0)
    assert target.site("resid_post", 0) == Site(0, "resid_post")
