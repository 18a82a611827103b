"""What a request should yield, computed the slow way: the whole sequence again for every token, one row at a time.

Nothing of the engine is used here but the requests themselves: no cache, no batch, no hooks; the layers' parts are
called one after the other and every token is edited on its own, by the definition of its edit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marple.tools.engine.interventions import Intervention
from marple.tools.engine.requests import Capture, Output, Request
from tests.engine.small import STOP

Streams = dict[tuple[str, int], tuple[Tensor, Tensor]]
"""By name and layer what a site held before and after the edits there, ``(position, d_model)``."""


def answer(model: Any, request: Request) -> Output:
    """The answer to one request by definition."""
    if request.sampling is not None:
        return _sampled(model, request)
    streams, logits = forward(model, request.tokens, len(request.prompt), request.interventions)
    steps = torch.log_softmax(logits, dim=-1)
    whole, start = request.tokens, len(request.prompt)
    scores = [float(steps[at - 1, whole[at]]) for at in range(start, len(whole))]
    return Output(
        logprobs=tuple(scores) if request.logprobs else (),
        captured=tuple(_captured(one, streams, start, len(whole)) for one in request.captures),
        logits=logits[-1] if request.logits else None,
    )


def _sampled(model: Any, request: Request) -> Output:
    sampling = request.sampling
    assert sampling is not None
    tokens: list[int] = []
    scores: list[float] = []
    source = torch.Generator().manual_seed(sampling.seed)
    draws = torch.rand(sampling.max_new_tokens, generator=source, dtype=torch.float64).tolist()
    finish, prompt_logits = "length", None
    while len(tokens) < sampling.max_new_tokens:
        _, logits = forward(model, (*request.prompt, *tokens), len(request.prompt), request.interventions)
        prompt_logits = logits[-1] if prompt_logits is None else prompt_logits
        token = choose(logits[-1], draws[len(tokens)], sampling.temperature, sampling.top_p)
        scores.append(float(torch.log_softmax(logits[-1], dim=-1)[token]))
        if token == STOP:
            finish = "stop"
            break
        tokens.append(token)
    # The last sampled token never enters the model, unless a stop token was drawn behind it.
    entered = (*request.prompt, *(tokens if finish == "stop" else tokens[:-1]))
    streams, _ = forward(model, entered, len(request.prompt), request.interventions)
    return Output(
        tokens=tuple(tokens),
        finish="stop" if finish == "stop" else "length",
        logprobs=tuple(scores) if request.logprobs else (),
        captured=tuple(_captured(one, streams, len(request.prompt), len(entered)) for one in request.captures),
        logits=prompt_logits if request.logits else None,
    )


def choose(logits: Tensor, draw: float, temperature: float, top_p: float) -> int:
    """One token by inverting the cumulative distribution over token ids, most probable ones kept up to ``top_p``."""
    if temperature == 0:
        return int(logits.argmax())
    chances = torch.softmax(logits.double() / temperature, dim=-1).tolist()
    kept: set[int] = set()
    mass = 0.0
    for token in sorted(range(len(chances)), key=lambda it: -chances[it]):
        if mass >= top_p and kept:
            break
        kept.add(token)
        mass += chances[token]
    point, seen = draw * sum(chances[token] for token in kept), 0.0
    for token in sorted(kept):
        seen += chances[token]
        if point < seen:
            return token
    return max(kept)


def forward(
    model: Any, tokens: tuple[int, ...], prompt_length: int, edits: tuple[Intervention, ...]
) -> tuple[Streams, Tensor]:
    """Every site of a Llama on one sequence, and its logits ``(position, vocab)``."""
    streams: Streams = {}

    def at(name: str, layer: int, hidden: Tensor) -> Tensor:
        here = {(name, layer)} | ({("resid_post", layer - 1)} if name == "resid_pre" else set())
        mine = [edit for edit in edits if (edit.site.name, edit.site.layer) in here]
        after = hidden.clone()
        for position, token in enumerate(tokens):
            for edit in mine:
                if touches(edit, position, token, prompt_length):
                    after[position] = edited(edit, after[position], position, prompt_length)
        for place in here:
            streams[place] = (hidden, after)
        return after

    decoder = model.model
    length = len(tokens)
    causal = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
    order = torch.arange(length).unsqueeze(0)
    hidden = decoder.embed_tokens(torch.tensor([list(tokens)]))
    rotation = decoder.rotary_emb(hidden, position_ids=order)
    for number, layer in enumerate(decoder.layers):
        stream = at("resid_pre", number, hidden[0])
        heads = layer.self_attn(
            layer.input_layernorm(stream.unsqueeze(0)), position_embeddings=rotation, attention_mask=causal
        )[0]
        middle = at("resid_mid", number, stream + at("attn_out", number, heads[0]))
        added = at("mlp_out", number, layer.mlp(layer.post_attention_layernorm(middle)))
        hidden = (middle + added).unsqueeze(0)
    last = at("resid_pre", len(decoder.layers), hidden[0])
    return streams, model.lm_head(decoder.norm(last))


def touches(edit: Intervention, position: int, token: int, prompt_length: int) -> bool:
    """Whether an edit is made at a token, by the words of its fields."""
    is_prompt = position < prompt_length
    if ("prompt" if is_prompt else "generation") not in edit.phases:
        return False
    if edit.tokens is not None and token not in edit.tokens:
        return False
    if token in edit.exclude_tokens:
        return False
    if is_prompt:
        absolute = [at % prompt_length for at in edit.exclude_positions if -prompt_length <= at < prompt_length]
        if position in absolute:
            return False
        return edit.positions is None or position in [at % prompt_length for at in edit.positions]
    if edit.positions is not None:
        return False
    if edit.generation_window is None:
        return True
    start, stop = edit.generation_window
    return start <= position - prompt_length < (1 << 30 if stop is None else stop)


def edited(edit: Intervention, hidden: Tensor, position: int, prompt_length: int) -> Tensor:
    """One activation ``(d_model,)`` behind one edit."""
    vector = edit.vector
    if vector.ndim == 2:
        assert edit.positions is not None
        vector = vector[[at % prompt_length for at in edit.positions].index(position)]
    size = float(torch.sqrt(sum(value.double() ** 2 for value in vector)))
    unit = vector / size if size else torch.zeros_like(vector)
    along = float(torch.dot(hidden, unit))
    if edit.op == "add":
        return hidden + edit.scale * vector
    if edit.op == "norm_add":
        return hidden + edit.scale * float(hidden.norm()) * unit
    if edit.op == "ablate":
        return hidden - edit.scale * along * unit
    if edit.op == "clamp":
        return hidden + (edit.scale - along) * unit if size else hidden
    return edit.scale * vector


def _captured(capture: Capture, streams: Streams, prompt_length: int, length: int) -> Tensor:
    before, after = streams[capture.site.name, capture.site.layer]
    held = before if capture.before_edits else after
    if capture.positions == "last":
        wanted = [prompt_length - 1]
    elif capture.positions == "all":
        # For a sample the prompt alone: what is sampled has its own word.
        wanted = list(range(length))
    elif capture.positions == "generated":
        wanted = list(range(prompt_length, length))
    else:
        wanted = [at % prompt_length for at in capture.positions]
    found = held[wanted] if wanted else held[:0]
    if capture.project is not None:
        found = found @ capture.project.T
    return found.mean(dim=0) if capture.mean else found
