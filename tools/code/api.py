"""The target as the code of an agent sees it: a few methods with plain arguments, numpy arrays and strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from marple.errors import ToolError
from marple.tools.arguments import check_samples, one_turn, sample_seed
from marple.tools.contract import Cost
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.sites import Site
from marple.tools.prompt_tokens import fits_context
from marple.tools.replies import Sampling, cost_of, sample_replies
from marple.tools.target.target import Target

__all__ = ["CodeTarget", "Meter"]

Prompt = Any
"""A user message (str), a list of messages, or token ids."""
Edits = Sequence[Mapping[str, Any] | Intervention] | None

_EDIT_KEYS = ("vector", "site", "layer", "op", "scale", "phases", "positions", "exclude_positions", "tokens")


@dataclass
class Meter:
    """What the methods have used so far; what the code does with the model directly is not in it."""

    cost: Cost = Cost()


class CodeTarget:
    """A model in the sandbox of an agent's code: ``target`` and, where there is one, ``reference``.

    Args:
        target: the copy of the model.
        seed: of the call; the first ``generate`` with the same arguments as a call of a tool with this seed gives the
            same replies.
        label: ``target`` or ``reference``, as in the tools' seeds.
        meter: counts tokens.
    """

    def __init__(self, target: Target, *, seed: int, label: str, meter: Meter) -> None:
        self._target = target
        self._seed = seed
        self._label = label
        self._meter = meter
        self._drawn = 0
        self.tokenizer = target.tokenizer
        self.layers = target.layers
        self.d_model = target.d_model
        self.saes = target.saes

    def __repr__(self) -> str:
        return f"{self._label}: {self.layers} layers, d_model {self.d_model} (generate, capture, next_logits, model)"

    @property
    def model(self) -> Any:
        """The ``transformers`` model; where target and reference share their weights, as this one has them."""
        with self._target.exclusive() as model:
            return model

    def reseed(self, seed: int) -> None:
        """Begin a further call of the same state."""
        self._seed, self._drawn = seed, 0

    # ------------------------------------------------------------------------------- text

    def render(self, messages: Sequence[Mapping[str, object]], *, prefill: str | None = None) -> list[int]:
        """Token ids of a conversation, ready for the assistant's turn, which ``prefill`` begins."""
        return self._target.render(messages, prefill=prefill)

    def encode(self, text: str) -> list[int]:
        """Token ids of raw text."""
        return self._target.encode(text)

    def decode(self, ids: Any) -> str:
        """Text of token ids; special tokens are left out."""
        return self._target.decode([int(token) for token in np.asarray(ids).reshape(-1)])

    # ------------------------------------------------------------------------------- running it

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        max_new_tokens: int = 64,
        *,
        temperature: float = 1.0,
        n: int = 1,
        top_p: float = 1.0,
        system: str | None = None,
        prefill: str | None = None,
        chat: bool = True,
        interventions: Edits = None,
        seed: int | None = None,
    ) -> list[Any]:
        """Replies: ``n`` strings to one prompt; for a list of prompts a list of ``n`` strings each.

        Raises:
            ToolError: a prompt, a number or an edit is not allowed.
        """
        ids, alone = self._read(prompts, chat=chat, system=system, prefill=prefill)
        check_samples(len(ids), n, temperature=temperature, max_new_tokens=max_new_tokens)
        sampling = Sampling(n, float(temperature), max_new_tokens, top_p)
        if seed is None:
            seed = sample_seed(self._seed, "generate", self._drawn) if self._drawn else self._seed
            self._drawn += 1
        model: Any = self._prepare()
        if interventions:
            model = _Edited(model, self._edits(interventions))
        replies = sample_replies(model, ids, sampling, seed=seed, label=self._label)
        self._meter.cost += cost_of(replies)
        texts = [[reply.text for reply in samples] for samples in replies]
        return texts[0] if alone else texts

    def capture(
        self,
        prompts: Prompt | Sequence[Prompt],
        site: str = "resid_post",
        layer: int | Sequence[int] | None = None,
        *,
        positions: Any = "last",
        mean: bool = False,
        system: str | None = None,
        prefill: str | None = None,
        chat: bool = True,
        interventions: Edits = None,
    ) -> Any:
        """Activations, float32: ``([layer,] [prompt,] d_model)``, or a list of ``([layer,] position, d_model)``.

        The layer axis is there unless one layer is asked for, the prompt axis unless one prompt is given alone; the
        list is for ``positions`` other than ``"last"``, without ``mean``.

        Raises:
            ToolError: a prompt, a site, a layer, a position or an edit is not there.
        """
        ids, alone = self._read(prompts, chat=chat, system=system, prefill=prefill)
        sites, one = self._sites(site, layer)
        where: Any = positions
        if not isinstance(positions, str):
            where = tuple(int(place) for place in np.atleast_1d(positions))
        elif positions not in ("last", "all"):
            raise ToolError(f'positions is "{positions[:40]}"; give "last", "all", or a list such as [0, -1]')
        edits = [self._edits(interventions)] * len(ids) if interventions else ()
        found = self._prepare().capture(ids, sites, positions=where, mean=mean, interventions=edits)
        self._count(ids)
        rows = []
        for at in range(len(ids)):
            row = np.stack([found[each][at].numpy() for each in sites])
            rows.append(row[0] if one else row)
        if alone:
            return rows[0]
        return np.stack(rows, axis=-2) if where == "last" or mean else rows

    def next_logits(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        system: str | None = None,
        prefill: str | None = None,
        chat: bool = True,
        interventions: Edits = None,
    ) -> Any:
        """Logits of the token behind each prompt, float32: ``(prompt, vocab)``, or ``(vocab,)`` for one prompt alone.

        Raises:
            ToolError: a prompt or an edit is not allowed.
        """
        ids, alone = self._read(prompts, chat=chat, system=system, prefill=prefill)
        edits = [self._edits(interventions)] * len(ids) if interventions else ()
        logits = self._prepare().next_logits(ids, interventions=edits).numpy()
        self._count(ids)
        return logits[0] if alone else logits

    # ------------------------------------------------------------------------------- arguments

    def _prepare(self) -> Target:
        # The code may have changed weights or set hooks: nothing that was computed before holds.
        self._target.engine.forget()
        return self._target

    def _count(self, ids: Sequence[Sequence[int]]) -> None:
        self._meter.cost += Cost(prompt_tokens=sum(map(len, ids)))

    def _read(
        self, prompts: Any, *, chat: bool, system: str | None, prefill: str | None
    ) -> tuple[list[list[int]], bool]:
        """Token ids of every prompt, and whether one was given alone."""
        alone = _is_prompt(prompts)
        many = [prompts] if alone else list(prompts)
        if not many:
            raise ToolError("prompts is empty; give a message, or a list of messages")
        return [self._tokens(one, chat, system, prefill) for one in many], alone

    def _tokens(self, prompt: Any, chat: bool, system: str | None, prefill: str | None) -> list[int]:
        if isinstance(prompt, str):
            if not chat and (system or prefill):
                raise ToolError("system and prefill need chat=True; with chat=False put everything into the prompt")
            ids = self._target.render(one_turn(prompt, system=system), prefill=prefill) if chat else None
            return fits_context(self._target, self._target.encode(prompt) if ids is None else ids)
        if not _is_prompt(prompt):
            raise ToolError(f"a prompt is a str, a list of messages or token ids; got {type(prompt).__name__}")
        first = prompt[0]
        if isinstance(first, Mapping):
            return fits_context(self._target, self._target.render(prompt, prefill=prefill))
        return fits_context(self._target, [int(token) for token in prompt])

    def _sites(self, site: str, layer: int | Sequence[int] | None) -> tuple[list[Site], bool]:
        if layer is None and ("." in site or "-" in site):
            return [self._target.site(site)], True
        if layer is None:
            layer = range(self.layers)
        if isinstance(layer, (int, np.integer)):
            return [self._target.site(site, int(layer))], True
        return [self._target.site(site, int(one)) for one in layer], False

    def _edits(self, given: Edits) -> tuple[Intervention, ...]:
        edits = [given] if isinstance(given, (Mapping, Intervention)) else list(given or ())
        return tuple(one if isinstance(one, Intervention) else self._edit(one) for one in edits)

    def _edit(self, said: Mapping[str, Any]) -> Intervention:
        unknown = sorted(set(said) - set(_EDIT_KEYS))
        if unknown or "vector" not in said:
            wrong = f"{unknown[0]!r} is not known" if unknown else "vector is missing"
            raise ToolError(f"an intervention: {wrong}; its keys are {', '.join(_EDIT_KEYS)}")
        rest = {key: tuple(said[key]) for key in _EDIT_KEYS[5:] if said.get(key) is not None}
        layer = said.get("layer")
        return Intervention(
            site=self._target.site(said.get("site", "resid_post"), None if layer is None else int(layer)),
            vector=torch.as_tensor(said["vector"]).detach().float().cpu(),
            op=said.get("op", "add"),
            scale=float(said.get("scale", 1.0)),
            **rest,
        )


class _Edited:
    """A target whose every row is edited, as ``sample_replies`` uses one."""

    def __init__(self, target: Target, edits: tuple[Intervention, ...]) -> None:
        self._target, self._edits = target, edits

    def generate(self, prompts: Sequence[Sequence[int]], **sampling: Any) -> Any:
        return self._target.generate(prompts, interventions=[self._edits] * len(prompts), **sampling)


def _is_prompt(value: Any) -> bool:
    """Whether it is one prompt: text, a conversation, or token ids."""
    if isinstance(value, (str, Mapping)):
        return True
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.ndim == 1 and len(value) > 0
    first = next(iter(value), None) if isinstance(value, Sequence) else None
    return isinstance(first, (Mapping, int, np.integer)) or (isinstance(first, torch.Tensor) and first.ndim == 0)
