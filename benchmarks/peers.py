"""Other libraries doing the same, where they are installed.

Each is imported when it is asked for. What it gets is a model of its own: some change the one they are given.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import Model

__all__ = [
    "NnsightPeer",
    "Peer",
    "RepengPeer",
    "SteeringVectorsPeer",
    "TransformerLensPeer",
    "available",
    "keep_equal",
    "module",
    "plain_generate",
]


def module(name: str) -> Any | None:
    """The library, or None where it is not installed or does not import."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except Exception as error:  # a peer that is broken is a peer that is not there
        if not isinstance(error, ModuleNotFoundError) or error.name != name:
            logging.getLogger(__name__).warning("%s is installed but does not import: %s", name, error)
        return None


class Peer:
    """A library around a model; what it cannot do it does not define."""

    name = ""
    imports = ""

    def __init__(self, model: Model, library: Any) -> None:
        self.model = model
        self.library = library
        self.wrap()

    def wrap(self) -> None:
        """Put the library around a copy of the model."""
        raise NotImplementedError

    @classmethod
    def prepared(cls) -> Any | None:
        """Its module, ready for use."""
        return module(cls.imports)


class NnsightPeer(Peer):
    """nnsight: the model's code is traced."""

    name, imports = "nnsight", "nnsight"

    def wrap(self) -> None:
        self.traced = self.library.LanguageModel(self.model.copy(), tokenizer=self.model.tokenizer)

    def capture(self, ids: Tensor, layers: Sequence[int]) -> list[Tensor]:
        traced = self.traced
        held: list[Any] = []
        with torch.no_grad(), traced.trace(ids):
            for at in layers:
                held.append(traced.model.layers[at].output.save())
        return held

    def steer(self, ids: Tensor, layer: int, vector: Tensor, new: int) -> Tensor:
        traced = self.traced
        with (
            torch.no_grad(),
            traced.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False) as tracer,
        ):
            for _step in tracer.iter[0:new]:
                traced.model.layers[layer].output[:] = traced.model.layers[layer].output + vector
            result = traced.generator.output.save()
        return _tokens(result, ids)

    def steer_each(self, ids: Tensor, layer: int, vectors: Tensor, new: int) -> Tensor:
        """Sixteen invokes in one trace: nnsight's own way to put different edits into one batch."""
        traced = self.traced
        with torch.no_grad(), traced.generate(max_new_tokens=new, do_sample=False) as tracer:
            for row in range(len(ids)):
                with tracer.invoke(ids[row : row + 1], attention_mask=torch.ones_like(ids[row : row + 1])):
                    for _step in tracer.iter[0:new]:
                        traced.model.layers[layer].output[:] = traced.model.layers[layer].output + vectors[row]
            with tracer.invoke():
                result = traced.generator.output.save()
        return _tokens(result, ids)


class TransformerLensPeer(Peer):
    """TransformerLens 3: a bridge over the Hugging Face model."""

    name, imports = "TransformerLens", "transformer_lens.model_bridge"

    def wrap(self) -> None:
        self.bridge = self.library.TransformerBridge.boot_transformers(
            "random-llama",
            hf_model=self.model.copy(),
            # It may set tokens of the one it is given.
            tokenizer=copy.deepcopy(self.model.tokenizer),
            device=self.model.device,
            dtype=self.model.dtype,
        )

    def capture(self, ids: Tensor, layers: Sequence[int]) -> list[Tensor]:
        names = [f"blocks.{at}.hook_resid_post" for at in layers]
        with torch.no_grad():
            _, cache = self.bridge.run_with_cache(ids, names_filter=names)
        return [cache[name] for name in names]

    def steer(self, ids: Tensor, layer: int, vector: Tensor, new: int) -> Tensor:
        def add(value: Tensor, hook: object) -> Tensor:
            return value + vector

        hooks = [(f"blocks.{layer}.hook_resid_post", add)]
        with torch.no_grad(), self.bridge.hooks(fwd_hooks=hooks):
            result = self.bridge.generate(
                ids,
                max_new_tokens=new,
                do_sample=False,
                stop_at_eos=False,
                return_type="tokens",
                verbose=False,
            )
        return _tokens(result, ids)


class SteeringVectorsPeer(Peer):
    """steering-vectors: hooks around ``generate``."""

    name, imports = "steering-vectors", "steering_vectors"

    def wrap(self) -> None:
        self.plain = self.model.copy()

    def steer(self, ids: Tensor, layer: int, vector: Tensor, new: int) -> Tensor:
        with self.library.SteeringVector({layer: vector}).apply(self.plain):
            return plain_generate(self.plain, ids, new)


class RepengPeer(Peer):
    """repeng: layers wrapped in place."""

    name, imports = "repeng", "repeng"

    @classmethod
    def prepared(cls) -> Any | None:
        import numpy

        # Its last release uses a name that NumPy 2 took away, and only for an annotation.
        if importlib.util.find_spec(cls.imports) is not None and not hasattr(numpy, "float_"):
            numpy.float_ = numpy.float64  # type: ignore[attr-defined]
        return module(cls.imports)

    def wrap(self) -> None:
        layer = self.model.steered_layer
        self.controlled = self.library.ControlModel(self.model.copy(), [layer])

    def steer(self, ids: Tensor, layer: int, vector: Tensor, new: int) -> Tensor:
        direction = {layer: vector.float().cpu().numpy()}
        self.controlled.set_control(self.library.ControlVector("llama", direction), 1.0)
        return plain_generate(self.controlled, ids, new)


@torch.no_grad()
def plain_generate(model: Any, ids: Tensor, new: int) -> Tensor:
    """What ``transformers`` itself samples greedily, ``(batch, new)``."""
    result = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=None, do_sample=False
    )
    return _tokens(result, ids)


def available(model: Model, kinds: Sequence[type[Peer]], *, wanted: bool = True) -> dict[str, Any]:
    """Those of the peers that are installed and can be put around the model, by name."""
    made: dict[str, Any] = {}
    for kind in kinds if wanted else ():
        library = kind.prepared()
        if library is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    made[kind.name] = kind(model, library)
                except Exception as error:  # whatever it is, it is the library's affair
                    print(f"{kind.name} is left out: {type(error).__name__}: {error}", file=sys.stderr)
    return made


def keep_equal(peers: dict[str, Any], name: str, work: Callable[[], Any], same: Callable[[Any], bool]) -> None:
    """Leave a library out that fails at what is asked here, or does something else."""
    try:
        wrong = None if same(work()) else "computes something else"
    except Exception as error:  # whatever it is, it is the library's affair
        wrong = f"{type(error).__name__}: {error}"[:200]
    if wrong is not None:
        del peers[name]
        print(f"{name} is left out: {wrong}", file=sys.stderr)


def _tokens(result: Any, ids: Tensor) -> Tensor:
    tokens: Tensor = torch.as_tensor(result)
    return tokens[:, ids.shape[1] :]
