"""The ``python`` tool as an investigator is shown it; only the code worker can run it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, NoReturn

from pydantic import Field

from marple.errors import ToolError
from marple.tools.contract import ToolSpec, tool, tool_spec

if TYPE_CHECKING:
    from marple.tools.target.target import Target

__all__ = ["MOST_SECONDS", "python", "python_spec"]

MOST_SECONDS = 240
"""Longest time a call may ask for; the host waits a little longer."""

Code = Annotated[str, Field(min_length=1, max_length=40_000)]


@tool(rung=4)
def python(  # noqa: D417
    target: Target,
    *,
    seed: int,
    code: Code,
    timeout_seconds: Annotated[int, Field(ge=1, le=MOST_SECONDS)] = 60,
    keep_state: bool = False,
) -> NoReturn:
    r"""Run Python of your own on your own copy of the target, in a sandbox without network.

    What it prints is yours to think about and to quote, but it is no evidence: a claim must cite an experiment made
    with another tool. Nothing the code does reaches the model that the other tools measure.

    There are, beside the standard library: `target`, `reference` (or None), `save`, `np`, `torch`, `plt`. The value of
    the last expression is shown.

    - `target.generate(prompts, max_new_tokens=64, temperature=1.0, n=1, system=None, prefill=None, chat=True,
      interventions=None, seed=None)`: n replies (str) to one prompt, or for a list of prompts a list of n replies each.
      A prompt is a user message (str), a list of messages, or token ids; with chat=False a str is raw text.
    - `target.capture(prompts, site="resid_post", layer=None, positions="last", mean=False)`: activations, float32.
      One layer gives (prompt, d_model), a list of layers or None for all (layer, prompt, d_model); one prompt alone
      has no prompt axis. With positions="all" a list with ([layer,] position, d_model) for each prompt. Sites:
      resid_pre, resid_mid, resid_post, attn_out, mlp_out.
    - `target.next_logits(prompts)`: (prompt, vocab), float32.
    - interventions (also of capture and next_logits): a list such as `[{"layer": 1, "vector": v, "op": "add",
      "scale": 4.0}]`; op is add, norm_add, ablate, clamp or replace; site, phases, positions as in capture.
    - `target.model` (the transformers model, for hooks and gradients of your own), `target.tokenizer`,
      `target.render(messages)`, `target.encode(text)`, `target.decode(ids)`, `target.layers`, `target.d_model`,
      `target.saes`.
    - `save(name, thing)`: keep a figure (PNG), an array or tensor (.npy), a list of dicts (CSV), a dict (JSON) or text
      with the result; 16 things of 4 MiB, 5 MiB together. Open pyplot figures are kept by themselves.

    Each call starts clean, with files in the current directory only (64 MiB, gone afterwards). With keep_state the
    variables stay for the next call that keeps state, until it runs out of time, crashes or calls exit(). Shown are
    64 KiB of output, its beginning and end. CPU only where the target is on the CPU; one thread; 4 GiB beside the
    model.

    Example: steer along a difference of means.

        a, b = target.capture(["I love it", "I hate it"], layer=1)
        for scale in (0, 4, 8):
            edit = [{"layer": 1, "vector": a - b, "scale": scale}]
            print(scale, target.generate("How was it?", n=3, interventions=edit))

    Args:
        code: the program.
        timeout_seconds: time until it is ended, with everything it has started.
        keep_state: go on with the variables of the last call that kept state, and keep them for the next.

    Example:
        {"code": "logits = target.next_logits('who is it')\nids = logits.argsort()[-5:]\ntarget.decode(ids)"}
    """
    # A tool worker neither lists nor finds it; this is for whoever imports the function.
    raise ToolError("python runs in the code worker only")


@functools.cache
def python_spec() -> ToolSpec:
    """The specification of the tool, for the host, which offers it before a code worker runs."""
    return tool_spec(python)
