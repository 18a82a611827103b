"""SAEs in the formats of the field, written here by hand in the documented layout."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from marple.errors import UsageError
from marple.tools.engine.sites import Site
from marple.tools.saes.loading import load_sae
from marple.tools.saes.saelens import write_saelens
from tests.saes.conftest import random_weights

V6 = {
    "d_in": 12,
    "d_sae": 40,
    "dtype": "float32",
    "device": "cpu",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "metadata": {
        "sae_lens_version": "6.54.12",
        "sae_lens_training_version": "6.54.12",
        "hook_name": "blocks.4.hook_resid_post",
        "model_name": "m",
        "neuronpedia_id": "m/4-res",
    },
    "architecture": "standard",
}
PRE_6 = {
    "d_in": 12,
    "d_sae": 40,
    "dtype": "torch.float32",
    "model_name": "gpt2-small",
    "hook_point": "blocks.8.hook_resid_pre",
    "hook_point_layer": 8,
    "hook_point_head_index": None,
    "activation_fn_str": "relu",
    "prepend_bos": True,
}
TENSORS = random_weights(threshold=(40,), b_gate=(40,), r_mag=(40,))
PLAIN = {name: TENSORS[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")}


def saelens(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor] = PLAIN) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "sae_weights.safetensors")
    return folder


def pre_activations(x: torch.Tensor, *, minus_bias: bool) -> torch.Tensor:
    return (x - PLAIN["b_dec"] * minus_bias) @ PLAIN["W_enc"] + PLAIN["b_enc"]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------------ SAELens


def test_a_version_6_directory(tmp_path: Path, x: torch.Tensor) -> None:
    sae = load_sae(saelens(tmp_path, V6))
    assert (sae.architecture, sae.site, sae.d_sae) == ("standard", Site(4, "resid_post"), 40)
    assert sae.metadata["neuronpedia_id"] == "m/4-res"
    close(sae.encode(x), torch.relu(pre_activations(x, minus_bias=True)))
    assert load_sae(tmp_path / "cfg.json").fingerprint == sae.fingerprint


def test_the_decoder_bias_is_taken_from_the_input_only_where_the_file_says_so(tmp_path: Path, x: torch.Tensor) -> None:
    sae = load_sae(saelens(tmp_path, {**V6, "apply_b_dec_to_input": False}))
    close(sae.encode(x), torch.relu(pre_activations(x, minus_bias=False)))


def test_topk_rescaled_by_the_decoder_norm(tmp_path: Path, x: torch.Tensor) -> None:
    config = {**V6, "architecture": "topk", "k": 6, "rescale_acts_by_decoder_norm": True}
    sae = load_sae(saelens(tmp_path, config))
    norms = PLAIN["W_dec"].norm(dim=1)
    scaled = pre_activations(x, minus_bias=True) * norms
    expected = torch.relu(scaled) * (scaled >= scaled.topk(6).values[..., -1:])
    close(sae.encode(x), expected)
    close(sae.reconstruct(x), expected / norms @ PLAIN["W_dec"] + PLAIN["b_dec"])


def test_topk_not_rescaled(tmp_path: Path, x: torch.Tensor) -> None:
    sae = load_sae(saelens(tmp_path, {**V6, "architecture": "topk", "k": 6, "rescale_acts_by_decoder_norm": False}))
    before = pre_activations(x, minus_bias=True)
    close(sae.encode(x), torch.relu(before) * (before >= before.topk(6).values[..., -1:]))


def test_gated_and_jumprelu(tmp_path: Path, x: torch.Tensor) -> None:
    gated = {name: TENSORS[name] for name in ("W_enc", "W_dec", "b_dec", "b_gate", "r_mag")}
    sae = load_sae(saelens(tmp_path / "g", {**V6, "architecture": "gated"}, gated | {"b_mag": TENSORS["b_enc"]}))
    z = (x - TENSORS["b_dec"]) @ TENSORS["W_enc"]
    close(sae.encode(x), (z + TENSORS["b_gate"] > 0) * torch.relu(z * TENSORS["r_mag"].exp() + TENSORS["b_enc"]))

    jump = PLAIN | {"threshold": TENSORS["threshold"]}
    sae = load_sae(saelens(tmp_path / "j", {**V6, "architecture": "jumprelu"}, jump))
    before = pre_activations(x, minus_bias=True)
    close(sae.encode(x), torch.relu(before) * (before > TENSORS["threshold"]))


def test_transcoders(tmp_path: Path, x: torch.Tensor) -> None:
    metadata = {**V6["metadata"], "hook_name": "blocks.4.hook_mlp_in", "hook_name_out": "blocks.4.hook_mlp_out"}  # type: ignore[dict-item]
    config = {**V6, "metadata": metadata, "d_out": 12, "architecture": "skip_transcoder", "apply_b_dec_to_input": False}
    skip = torch.randn(12, 12)
    sae = load_sae(saelens(tmp_path, config, PLAIN | {"W_skip": skip}))
    features = torch.relu(pre_activations(x, minus_bias=False))
    assert sae.is_transcoder
    close(sae.encode(x), features)
    close(sae.reconstruct(x), features @ PLAIN["W_dec"] + PLAIN["b_dec"] + x @ skip.T)


def test_a_directory_of_before_version_6(tmp_path: Path, x: torch.Tensor) -> None:
    sae = load_sae(saelens(tmp_path / "old", PRE_6))
    assert (sae.site, sae.metadata["model_name"]) == (Site(8, "resid_pre"), "gpt2-small")
    close(sae.encode(x), torch.relu(pre_activations(x, minus_bias=True)))

    topk = {**PRE_6, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "sae_lens_version": "5.10.0"}
    sae = load_sae(saelens(tmp_path / "topk", topk))
    assert (sae.architecture, sae.k) == ("topk", 3)

    unit = {"scaling_factor": torch.ones(40)}
    assert (
        load_sae(saelens(tmp_path / "ones", PRE_6, PLAIN | unit)).fingerprint == load_sae(tmp_path / "old").fingerprint
    )


def test_a_boolean_normalization_means_a_factor_that_is_not_in_the_files(tmp_path: Path, x: torch.Tensor) -> None:
    folder = saelens(tmp_path / "true", {**PRE_6, "normalize_activations": True})
    with pytest.raises(UsageError, match="norm_scaling_factor"):
        load_sae(folder)
    sae = load_sae(folder, norm_scaling_factor=0.5)
    close(sae.encode(x), torch.relu(pre_activations(x / 2, minus_bias=True)))
    plain = load_sae(saelens(tmp_path / "false", {**PRE_6, "normalize_activations": False}))
    close(plain.encode(x), torch.relu(pre_activations(x, minus_bias=True)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"normalize_activations": "covariance_whitening"}, "normalizes activations by 'covariance_whitening'"),
        ({"reshape_activations": "conv"}, "reshapes activations by 'conv'"),
        ({"architecture": "temporal"}, "architecture 'temporal'; known are standard"),
        ({"architecture": "jumprelu"}, "no threshold"),
        ({"architecture": "topk"}, "k must be from 1 to its 40"),
        ({"d_sae": 41}, "d_sae 41, but W_enc is"),
    ],
)
def test_what_is_not_known_is_refused_and_not_ignored(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_sae(saelens(tmp_path, {**V6, **changed}))


def test_old_settings_that_are_not_known_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'tanh-relu'"):
        load_sae(saelens(tmp_path / "a", {**PRE_6, "activation_fn_str": "tanh-relu"}))
    with pytest.raises(UsageError, match="scaling_factor other than 1"):
        load_sae(saelens(tmp_path / "b", PRE_6, PLAIN | {"scaling_factor": torch.full((40,), 2.0)}))


@pytest.mark.parametrize("kind", ["standard", "jumprelu", "topk", "gated", "skip_transcoder"])
def test_what_is_written_is_read_again(tmp_path: Path, kind: str, x: torch.Tensor) -> None:
    extra = {"jumprelu": ["threshold"], "gated": ["b_gate", "r_mag"]}.get(kind, [])
    tensors = {name: TENSORS[name] for name in (*PLAIN, *extra)}
    config = {**V6, "architecture": kind, "k": 4}
    if kind == "gated":
        tensors["b_mag"] = tensors.pop("b_enc")
    if kind == "skip_transcoder":
        tensors["W_skip"] = torch.randn(12, 12)
        config |= {"apply_b_dec_to_input": False, "d_out": 12}
        config["metadata"] = {**V6["metadata"], "hook_name_out": "blocks.4.hook_mlp_out"}  # type: ignore[dict-item]
    sae = load_sae(saelens(tmp_path / "in", config, tensors))
    write_saelens(sae, tmp_path / "out")
    again = load_sae(tmp_path / "out")
    assert again.fingerprint == sae.fingerprint
    assert again.hook_name_out == sae.hook_name_out
    write_saelens(sae, tmp_path / "half", dtype=torch.bfloat16)
    close_enough = (load_sae(tmp_path / "half").reconstruct(x) - sae.reconstruct(x)).norm() / sae.reconstruct(x).norm()
    assert close_enough < 0.1


# -------------------------------------------------------------------------------------------- Gemma Scope


def gemma_1(folder: Path, **changed: Any) -> Path:
    folder.mkdir(parents=True)
    arrays = {name: TENSORS[name].numpy() for name in (*PLAIN, "threshold")} | changed
    np.savez(folder / "params.npz", **arrays)
    return folder


def jump(x: torch.Tensor) -> torch.Tensor:
    before = pre_activations(x, minus_bias=False)
    return torch.relu(before) * (before > TENSORS["threshold"])


def test_gemma_scope_1(tmp_path: Path, x: torch.Tensor) -> None:
    inner = "layer_20/width_16k/average_l0_71"
    sae = load_sae(gemma_1(tmp_path / "gemma-scope-2b-pt-res" / inner))
    assert (sae.site, sae.metadata["model_name"]) == (Site(20, "resid_post"), "gemma-2-2b")
    # Here the decoder's bias is not taken from the input.
    close(sae.encode(x), jump(x))
    cache = tmp_path / "models--google--gemma-scope-9b-it-mlp/snapshots/0a" / inner
    lower = {f"w_{name}": TENSORS[f"W_{name}"].numpy() for name in ("enc", "dec")}
    cached = load_sae(gemma_1(cache, **lower, scaling_factor=np.ones(1)))
    assert (cached.site, cached.metadata["model_name"]) == (Site(20, "mlp_out"), "gemma-2-9b-it")
    assert load_sae(gemma_1(tmp_path / "gemma-scope-2b-pt-att" / inner)).hook_name == "blocks.20.attn.hook_z"


def test_gemma_scope_1_without_its_path_needs_the_site(tmp_path: Path) -> None:
    folder = gemma_1(tmp_path / "somewhere")
    with pytest.raises(UsageError, match="give hook_name"):
        load_sae(folder)
    assert load_sae(folder, hook_name="blocks.3.hook_resid_post").site == Site(3, "resid_post")


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pickled objects are not loaded"):
        load_sae(gemma_1(tmp_path / "gemma-scope-2b-pt-res/layer_1", extra=np.array([{"a": 1}], dtype=object)))
    with pytest.raises(UsageError, match="scaling_factor other than 1"):
        load_sae(gemma_1(tmp_path / "gemma-scope-2b-pt-res/layer_2", scaling_factor=np.full(1, 2.0)))


def gemma_2(folder: Path, config: Mapping[str, Any] | None = None, **extra: torch.Tensor) -> Path:
    folder.mkdir(parents=True)
    tensors = {name.lower() if name.startswith("W") else name: TENSORS[name] for name in (*PLAIN, "threshold")}
    save_file({name: value.contiguous() for name, value in (tensors | extra).items()}, folder / "params.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_gemma_scope_2_with_its_config(tmp_path: Path, x: torch.Tensor) -> None:
    config = {
        "architecture": "jump_relu",
        "model_name": "google/gemma-3-1b-it",
        "hf_hook_point_in": "model.layers.9.output",
    }
    sae = load_sae(gemma_2(tmp_path / "resid_post_all/layer_9_width_16k_l0_small", config))
    assert (sae.site, sae.metadata["model_name"]) == (Site(9, "resid_post"), "google/gemma-3-1b-it")
    close(sae.encode(x), jump(x))
    # Torn from its folders, the config still tells the site.
    assert load_sae(gemma_2(tmp_path / "renamed", config)).site == Site(9, "resid_post")


@pytest.mark.parametrize(
    ("kind", "hook"),
    [("resid_post", "hook_resid_post"), ("mlp_out_all", "hook_mlp_out"), ("attn_out", "attn.hook_z")],
)
def test_gemma_scope_2_without_config_is_inferred_from_the_path(tmp_path: Path, kind: str, hook: str) -> None:
    sae = load_sae(gemma_2(tmp_path / "gemma-scope-2-270m-it" / kind / "layer_5_width_65k_l0_big"))
    assert sae.hook_name == f"blocks.5.{hook}"
    assert sae.metadata["model_name"] == "google/gemma-3-270m-it"


def test_gemma_scope_2_transcoders(tmp_path: Path, x: torch.Tensor) -> None:
    skip = torch.randn(12, 12)
    config = {"architecture": "jump_relu", "model_name": "google/gemma-3-1b-pt", "affine_connection": True}
    folder = tmp_path / "gemma-scope-2-1b-pt/transcoder_all/layer_3_width_16k_l0_big_affine"
    sae = load_sae(gemma_2(folder, config, affine_skip_connection=skip))
    assert (sae.hook_name, sae.hook_name_out) == ("blocks.3.hook_mlp_in", "blocks.3.hook_mlp_out")
    # The file has (d_in, d_out).
    close(sae.reconstruct(x), jump(x) @ PLAIN["W_dec"] + PLAIN["b_dec"] + x @ skip)
    with pytest.raises(UsageError, match="affine_skip_connection"):
        load_sae(gemma_2(tmp_path / "gemma-scope-2-1b-pt/transcoder/layer_4_width_16k_l0_big", config))
    with pytest.raises(UsageError, match="cross-layer"):
        load_sae(gemma_2(tmp_path / "gemma-scope-2-1b-pt/clt/layer_4"))
    with pytest.raises(UsageError, match="not jump_relu"):
        load_sae(gemma_2(tmp_path / "gemma-scope-2-1b-pt/resid_post/layer_4", {"architecture": "topk"}))


# ------------------------------------------------------------------------------------ dictionary_learning

LINEAR = {
    "encoder.weight": PLAIN["W_enc"].T.contiguous(),
    "decoder.weight": PLAIN["W_dec"].T.contiguous(),
}
MATRICES = {"W_enc": PLAIN["W_enc"], "W_dec": PLAIN["W_dec"], "b_enc": PLAIN["b_enc"], "b_dec": PLAIN["b_dec"]}


def dictionary(folder: Path, name: str, state: Any, **trainer: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "ae.pt")
    about = {"dict_class": name, "layer": 3, "lm_name": "EleutherAI/pythia-70m", "activation_dim": 12, "dict_size": 40}
    (folder / "config.json").write_text(json.dumps({"trainer": about | trainer, "buffer": {"ctx_len": 128}}))
    return folder


def expected_of(name: str, x: torch.Tensor) -> torch.Tensor:
    before = pre_activations(x, minus_bias=name not in ("AutoEncoderNew", "JumpReluAutoEncoder"))
    if name == "GatedAutoEncoder":
        z = (x - PLAIN["b_dec"]) @ PLAIN["W_enc"]
        return (z + TENSORS["b_gate"] > 0) * torch.relu(TENSORS["r_mag"].exp() * z + PLAIN["b_enc"])
    if name == "AutoEncoderTopK":
        return torch.relu(before) * (before >= before.topk(7).values[..., -1:])
    if name == "JumpReluAutoEncoder":
        return torch.relu(before * (before > TENSORS["threshold"].abs()))
    if name in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        return torch.relu(before) * (torch.relu(before) > 1.5)
    return torch.relu(before)


STATES: dict[str, dict[str, torch.Tensor]] = {
    "AutoEncoder": LINEAR | {"encoder.bias": PLAIN["b_enc"], "bias": PLAIN["b_dec"]},
    "AutoEncoderNew": LINEAR | {"encoder.bias": PLAIN["b_enc"], "decoder.bias": PLAIN["b_dec"]},
    "GatedAutoEncoder": LINEAR
    | {"decoder_bias": PLAIN["b_dec"], "r_mag": TENSORS["r_mag"]}
    | {"gate_bias": TENSORS["b_gate"], "mag_bias": PLAIN["b_enc"]},
    "JumpReluAutoEncoder": MATRICES | {"threshold": TENSORS["threshold"].abs()},
    # Its threshold is saved too, and not used.
    "AutoEncoderTopK": LINEAR
    | {"encoder.bias": PLAIN["b_enc"], "b_dec": PLAIN["b_dec"]}
    | {"k": torch.tensor(7), "threshold": torch.tensor(-1.0)},
    "BatchTopKSAE": LINEAR
    | {"encoder.bias": PLAIN["b_enc"], "b_dec": PLAIN["b_dec"]}
    | {"k": torch.tensor(7), "threshold": torch.tensor(1.5)},
    "MatryoshkaBatchTopKSAE": MATRICES
    | {"k": torch.tensor(7), "threshold": torch.tensor(1.5), "group_sizes": torch.tensor([10, 30])},
}


@pytest.mark.parametrize("name", STATES)
def test_dictionary_learning(tmp_path: Path, name: str, x: torch.Tensor) -> None:
    sae = load_sae(dictionary(tmp_path, name, STATES[name]))
    expected = expected_of(name, x)
    assert (sae.site, sae.metadata["model_name"]) == (Site(3, "resid_post"), "EleutherAI/pythia-70m")
    close(sae.encode(x), expected)
    close(sae.reconstruct(x), expected @ PLAIN["W_dec"] + PLAIN["b_dec"])


def test_other_sites_of_dictionary_learning(tmp_path: Path) -> None:
    state = STATES["AutoEncoder"]
    folder = dictionary(tmp_path, "AutoEncoder", state, submodule_name="attention_out_layer_3")
    assert load_sae(folder).site == Site(3, "attn_out")
    with pytest.raises(UsageError, match="submodule 'embed'"):
        load_sae(dictionary(tmp_path, "AutoEncoder", state, submodule_name="embed"))
    assert load_sae(tmp_path, hook_name="blocks.0.hook_resid_pre").site == Site(0, "resid_pre")


class Payload:
    """Something that a pickle would run."""


def test_dictionaries_that_are_not_plain_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pickled objects are not loaded"):
        load_sae(dictionary(tmp_path, "AutoEncoder", {"model": Payload()}))
    with pytest.raises(UsageError, match="no state dictionary"):
        load_sae(dictionary(tmp_path, "AutoEncoder", [torch.ones(1)]))
    with pytest.raises(UsageError, match="dict_class 'CrossCoder'"):
        load_sae(dictionary(tmp_path, "CrossCoder", STATES["AutoEncoder"]))
    untrained = STATES["BatchTopKSAE"] | {"threshold": torch.tensor(-1.0)}
    with pytest.raises(UsageError, match="negative threshold"):
        load_sae(dictionary(tmp_path, "BatchTopKSAE", untrained))
    with pytest.raises(UsageError, match="no tensor 'encoder.weight'"):
        load_sae(dictionary(tmp_path, "AutoEncoder", {"bias": PLAIN["b_dec"]}))


# --------------------------------------------------------------------------------------------- what is no SAE


def test_folders_without_an_sae_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no SAE at"):
        load_sae(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=r"it has notes\.txt\); known are SAELens"):
        load_sae(tmp_path)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "sae.pt")
    with pytest.raises(UsageError, match=r"sae\.pt may be a pickle, which is not loaded"):
        load_sae(tmp_path)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    folder = saelens(tmp_path / "a", V6)
    (folder / "sae_weights.safetensors").write_bytes(b"no")
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        load_sae(folder)
    (folder / "cfg.json").write_text("[1")
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        load_sae(folder)
    broken = gemma_1(tmp_path / "gemma-scope-2b-pt-res/layer_1")
    (broken / "params.npz").write_bytes(b"no")
    with pytest.raises(UsageError, match="not an npz file"):
        load_sae(broken)
    ae = dictionary(tmp_path / "d", "AutoEncoder", STATES["AutoEncoder"])
    (ae / "ae.pt").write_bytes(b"no")
    with pytest.raises(UsageError, match="not a plain state dictionary"):
        load_sae(ae)


def test_a_site_given_by_hand_wins(tmp_path: Path) -> None:
    sae = load_sae(saelens(tmp_path, V6), hook_name="blocks.2.hook_mlp_out")
    assert sae.site == Site(2, "mlp_out")
    assert dataclasses.replace(sae, hook_name="blocks.4.hook_resid_post").fingerprint == load_sae(tmp_path).fingerprint
