"""The target: a causal language model with its tokenizer, and what can be asked of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2 import TemplateError
from torch import Tensor

from marple.errors import ToolError
from marple.tools.digests import tensors_sha256
from marple.tools.engine.architecture import Architecture, read_architecture
from marple.tools.engine.engine import Engine
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.requests import Capture, Output, Request, Sampling
from marple.tools.engine.selfcheck import SelfCheck, check_model
from marple.tools.engine.sites import SITE_NAMES, Site, parse_site
from marple.tools.target.handles import HandleStore
from marple.tools.target.text import quote

__all__ = ["Completion", "Target"]

_BATCH_TOKENS = {"cpu": 8192, "mps": 16384, "cuda": 65536}


@dataclass(frozen=True)
class Completion:
    """One sample."""

    text: str
    """What was generated, special tokens left out."""
    tokens: tuple[int, ...]
    finish: Literal["stop", "length", "refusal"]
    """``length``: cut at ``max_new_tokens`` or at the end of the context; ``refusal``: an endpoint refused."""
    prompt_tokens: int


class Target:
    """A model under investigation, and beside it perhaps the reference it is compared with.

    It may be used from several threads at once: their requests share batches.

    Args:
        model: a ``transformers`` causal language model; it is put into evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        reference: a second target.
        batch_tokens: most tokens in one batch; by default it depends on the device.
        base_of: the adapted target whose base this is, on the same copy of the weights.
        switch: turns the adapter in ``model`` off (False) and on (True), where it has one that is not merged.

    Raises:
        TargetRefusedError: the model is of a family that is not known.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        reference: Target | None = None,
        batch_tokens: int | None = None,
        base_of: Target | None = None,
        switch: Callable[[bool], None] | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.reference = reference
        self.architecture: Architecture = base_of.architecture if base_of else read_architecture(self.model)
        self.engine: Engine = base_of.engine if base_of else self._make_engine(batch_tokens, switch)
        """Runs the batches; ``engine.work`` counts what it did."""
        self.handles = HandleStore()
        """Vectors, activations and probes kept here."""
        self.saes: dict[str, Any] = {}
        """Sparse autoencoders trained on this model, by name."""
        self.corpus: Path | None = None
        """Transcripts the task brings, one JSON object a line."""
        self._adapted = base_of is None

    def _make_engine(self, batch_tokens: int | None, switch: Callable[[bool], None] | None) -> Engine:
        return Engine(
            self.architecture,
            stop_tokens=self._stop_tokens(),
            batch_tokens=batch_tokens or _BATCH_TOKENS.get(self.device.type, 8192),
            switch=switch,
        )

    gives_probabilities = True
    """Whether texts can be scored; a target that is an endpoint stands in for this class and cannot."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)

    @property
    def context(self) -> int | None:
        """Most tokens of prompt and continuation together, or None where the model states no limit."""
        length = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return length if isinstance(length, int) and length > 0 else None

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """Size, precision and the digest of the weights, as JSON values."""
        config = self.model.config.get_text_config()
        return {
            "architecture": str(config.model_type),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "layers": int(config.num_hidden_layers),
            "d_model": int(config.hidden_size),
            "vocab": int(config.vocab_size),
            "context": self.context,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.device),
            "weights_sha256": self.weights_sha256(),
            "self_check": self.self_check().to_dict(),
        }

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.architecture.layers)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.architecture.d_model

    def self_check(self) -> SelfCheck:
        """Check that the sites are where they are said to be; see ``SelfCheck``.

        Raises:
            TargetRefusedError: they are not.
        """
        with self.engine.exclusive(adapted=self._adapted):
            return check_model(self.architecture, self.engine.runner)

    def weights_sha256(self) -> str:
        """Digest over names, types, shapes and values of all weights in memory, computed at each call."""
        named = [(name, tensor) for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers())]
        if not self._adapted:
            named = [(name.replace(".base_layer.", "."), it) for name, it in named if ".lora_" not in name]
        return tensors_sha256(named)

    def encode(self, text: str) -> list[int]:
        """Token ids of raw text, with one beginning-of-sequence token if the tokenizer uses one."""
        ids = [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]
        bos = self.tokenizer.bos_token_id
        if self._begins_with_bos and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def render(self, messages: Sequence[Mapping[str, object]], *, prefill: str | None = None) -> list[int]:
        """Token ids of a conversation in the target's chat template, ready for the assistant's turn.

        Args:
            messages: ``role`` (system, user, assistant) and ``content``, ending with a user message.
            prefill: how the assistant's reply begins; the turn is left open behind it.

        Raises:
            ToolError: the chat template refuses the messages.
        """
        turns = [dict(message) for message in messages]
        if prefill:
            turns.append({"role": "assistant", "content": prefill})
        try:
            ids = self.tokenizer.apply_chat_template(
                turns,
                tokenize=True,
                return_dict=False,
                add_generation_prompt=not prefill,
                continue_final_message=bool(prefill),
            )
        except (TemplateError, ValueError) as error:
            roles = ", ".join(str(turn["role"]) for turn in turns)
            raise ToolError(f"the target's chat template refuses these messages ({roles}): {error}") from error
        return [int(token) for token in ids]

    def split(self, prompt: Sequence[int], whole: Sequence[int], continuation: str) -> tuple[list[int], list[int]]:
        """Prompt ids and continuation ids, as the tokenizer reads the continuation behind the prompt.

        Where it would merge the two across the border, or the template changes the continuation, the
        continuation is tokenized on its own.
        """
        start = list(prompt)
        rest = list(whole[len(start) :])
        if list(whole[: len(start)]) == start and rest and self.tokenizer.decode(rest) == continuation:
            return start, rest
        alone = self.tokenizer(continuation, add_special_tokens=False)["input_ids"]
        return start, [int(token) for token in alone]

    # ------------------------------------------------------------------------------- running it

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        seeds: Sequence[int],
        interventions: Sequence[Sequence[Intervention]] = (),
    ) -> list[Completion]:
        """One sample per prompt, the same whatever else is in the call (in float32).

        Args:
            prompts: token ids of each prompt.
            max_new_tokens: most tokens to generate for each; fewer where the context ends before.
            temperature: 0 is greedy.
            top_p: mass of the nucleus; 1 is all.
            seeds: one per prompt; a row's randomness depends on its own seed alone.
            interventions: the edits of each prompt's row; empty for none at all.

        Raises:
            ToolError: a prompt is empty or fills the context, or an edit does not fit the model or the prompt.
            MemoryError: a single row does not fit into memory.
        """
        edits = interventions or [()] * len(prompts)
        requests = [
            Request(
                tuple(prompt),
                sampling=Sampling(
                    self._room(prompt, max_new_tokens), float(temperature), float(top_p), seed if temperature else 0
                ),
                interventions=self._checked_for(each, prompt),
                adapted=self._adapted,
            )
            for prompt, seed, each in zip(prompts, seeds, edits, strict=True)
        ]
        outputs = self.engine.run(requests, what="replies")
        return [
            Completion(self.decode(output.tokens), output.tokens, output.finish, len(request.prompt))
            for request, output in zip(requests, outputs, strict=True)
        ]

    def score(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        interventions: Sequence[Sequence[Intervention]] = (),
    ) -> list[list[float]]:
        """Log-probabilities (nats) of continuations: one list per ``(prompt ids, continuation ids)``.

        Args:
            pairs: prompts and continuations; a continuation's tokens count as generated ones.
            interventions: the edits of each pair's row; empty for none at all.

        Raises:
            ToolError: a prompt is empty, prompt and continuation do not fit into the context, or an edit does not fit.
            MemoryError: a single pair does not fit into memory.
        """
        edits = interventions or [()] * len(pairs)
        requests = []
        for (prompt, continuation), each in zip(pairs, edits, strict=True):
            self._room(prompt, max(1, len(continuation)), exactly=True)
            checked = self._checked_for(each, prompt)
            requests.append(
                Request(tuple(prompt), tuple(continuation), interventions=checked, logprobs=True, adapted=self._adapted)
            )
        return [list(output.logprobs) for output in self.engine.run(requests, what="texts")]

    def capture(
        self,
        prompts: Sequence[Sequence[int]],
        sites: Sequence[Site],
        *,
        positions: Literal["last", "all"] | Sequence[int] = "last",
        mean: bool = False,
        interventions: Sequence[Sequence[Intervention]] = (),
        before_edits: bool = False,
    ) -> dict[Site, list[Tensor]]:
        """Activations of each prompt at each site, float32 on the CPU.

        No more layers are run than the sites need, and no LM head.

        Args:
            prompts: token ids of each prompt.
            sites: where.
            positions: the last token, all, or positions in every prompt (negative from its end).
            mean: return the mean over the positions.
            interventions: the edits of each prompt's row; empty for none at all.
            before_edits: what the sites held before the row's own edits there.

        Returns:
            For each site one tensor per prompt: ``(d_model,)`` for ``"last"`` and for means, otherwise ``(position,
            d_model)``.

        Raises:
            ToolError: a site, a position, a prompt or an edit is out of range.
        """
        for site in sites:
            self._check_site(site)
        where = positions if isinstance(positions, str) else tuple(positions)
        captures = tuple(Capture(site, where, mean=mean, before_edits=before_edits) for site in sites)
        edits = interventions or [()] * len(prompts)
        requests = []
        for prompt, each in zip(prompts, edits, strict=True):
            self._room(prompt, 0, exactly=True)
            if not isinstance(where, str):
                self._check_positions(where, prompt)
            checked = self._checked_for(each, prompt)
            requests.append(Request(tuple(prompt), interventions=checked, captures=captures, adapted=self._adapted))
        outputs = self.engine.run(requests, what="prompts")
        flat = where == "last" and not mean
        return {
            site: [
                tensor[0] if flat else tensor for output in outputs if isinstance(tensor := output.captured[at], Tensor)
            ]
            for at, site in enumerate(sites)
        }

    def next_logits(
        self, prompts: Sequence[Sequence[int]], *, interventions: Sequence[Sequence[Intervention]] = ()
    ) -> Tensor:
        """Logits of the token behind each prompt: ``(prompt, vocab)``, float32 on the CPU."""
        edits = interventions or [()] * len(prompts)
        requests = []
        for prompt, each in zip(prompts, edits, strict=True):
            self._room(prompt, 0, exactly=True)
            checked = self._checked_for(each, prompt)
            requests.append(Request(tuple(prompt), interventions=checked, logits=True, adapted=self._adapted))
        return torch.stack([it.logits for it in self.engine.run(requests, what="prompts") if it.logits is not None])

    def run(self, requests: Sequence[Request]) -> list[Output]:
        """Answer any mixture of requests; ``adapted`` is set to what this target is.

        Raises:
            ToolError: a prompt, a site, a position or an edit is out of range.
        """
        ready = []
        for request in requests:
            tail = request.sampling.max_new_tokens if request.sampling else len(request.continuation)
            self._room(request.prompt, tail, exactly=True)
            for capture in request.captures:
                self._check_site(capture.site)
                if not isinstance(capture.positions, str):
                    self._check_positions(capture.positions, request.prompt)
            checked = self._checked_for(request.interventions, request.prompt)
            ready.append(replace(request, interventions=checked, adapted=self._adapted))
        return self.engine.run(ready)

    @torch.no_grad()
    def lens(self, hidden: Tensor) -> Tensor:
        """Logits ``(..., vocab)`` of residual-stream states ``(..., d_model)``: final norm and head (logit lens).

        Both float32 on the CPU, whatever the model computes in.
        """
        given = hidden.to(self.device, self.model.dtype)
        with self.engine.exclusive(adapted=self._adapted):
            return self.architecture.lens(given).float().cpu()

    @contextmanager
    def exclusive(self) -> Iterator[Any]:
        """The ``transformers`` model alone, for gradients and hooks of one's own; no batch runs meanwhile.

        Nothing else of the target may be called inside.
        """
        with self.engine.exclusive(adapted=self._adapted):
            yield self.model

    # ------------------------------------------------------------------------------- checking

    def site(self, text: str, layer: int | None = None) -> Site:
        """A site of this model.

        Args:
            text: a site's name (then ``layer`` says which), or any full name (``parse_site``).
            layer: from 0; negative from the last.

        Raises:
            ToolError: the name or the layer is not one of this model's.
        """
        if text in SITE_NAMES:
            if layer is None:
                raise ToolError(f'site "{text}" needs a layer, from 0 to {self.layers - 1}; for example layer 0')
            found = Site(layer + self.layers if -self.layers <= layer < 0 else layer, text)
        else:
            found = parse_site(text)
            if layer is not None and layer != found.layer:
                raise ToolError(
                    f'site "{text[:80]}" names layer {found.layer} and layer is {layer}; give one of the two'
                )
        self._check_site(found)
        return found

    def checked(self, edit: Intervention) -> Intervention:
        """The edit itself.

        Raises:
            ToolError: its site or its vector's width is not one of this model's.
        """
        self._check_site(edit.site)
        if edit.vector.shape[-1] != self.d_model:
            raise ToolError(
                f"the vector has width {edit.vector.shape[-1]}, but this model's have width {self.d_model}; it "
                "was made on another model: make it again on this one, for example from positive and negative texts"
            )
        return edit

    def _checked_for(self, edits: Sequence[Intervention], prompt: Sequence[int]) -> tuple[Intervention, ...]:
        for edit in edits:
            self.checked(edit)
            if edit.positions is not None:
                self._check_positions(edit.positions, prompt)
            if edit.exclude_positions:
                self._check_positions(edit.exclude_positions, prompt)
        return tuple(edits)

    def _check_site(self, site: Site) -> None:
        if not 0 <= site.layer < self.layers:
            raise ToolError(
                f"layer {site.layer} does not exist; this model has layers 0 to {self.layers - 1}, for example "
                f"{self.layers // 2}"
            )
        if site.name == "resid_mid" and self.architecture.parallel:
            raise ToolError(
                "this model's attention and MLP run side by side, so there is no resid_mid; take resid_post"
            )

    def _check_positions(self, positions: Sequence[int], prompt: Sequence[int]) -> None:
        length = len(prompt)
        if not positions:
            raise ToolError(f"positions is empty; give some from 0 to {length - 1}, such as [-1]")
        for position in positions:
            if not -length <= position < length:
                raise ToolError(
                    f"position {position} does not exist; the prompt has {length} tokens, so positions go from 0 to "
                    f"{length - 1}, or from -{length} to -1 counted from its end; for example -1"
                )

    def quote(self, text: str, *, limit: int | None = None) -> str:
        """Text from the model as a JSON string in which nothing is invisible."""
        return quote(text, special_tokens=self.tokenizer.all_special_tokens, limit=limit)

    @functools.cached_property
    def _begins_with_bos(self) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and self.tokenizer("a")["input_ids"][:1] == [bos]

    def _stop_tokens(self) -> frozenset[int]:
        configured = self.model.generation_config.eos_token_id
        many = configured if isinstance(configured, (list, tuple)) else [configured]
        return frozenset(int(token) for token in (*many, self.tokenizer.eos_token_id) if token is not None)

    def _room(self, prompt: Sequence[int], wanted: int, *, exactly: bool = False) -> int:
        if not prompt:
            raise ToolError("a prompt has no tokens: give at least one character of text")
        if self.context is None:
            return wanted
        room = self.context - len(prompt)
        if room < (wanted if exactly else 1):
            raise ToolError(
                f"a prompt has {len(prompt)} tokens, which leaves no room for {max(wanted, 1)} more in the target's "
                f"context of {self.context} tokens; shorten it, for example to its end"
            )
        return min(room, wanted)
