import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from marple.errors import ToolError, UsageError
from marple.tools.engine.sites import SITE_NAMES, Site
from marple.tools.vectors.files import load_vectors, save_vectors
from marple.tools.vectors.gguf_files import export_gguf, import_gguf
from marple.tools.vectors.vector import Vector

settings.load_profile("vectors")


def vector(layer: int = 1, values: list[float] | None = None, name: str = "resid_post") -> Vector:
    direction = torch.tensor(values or [1.0, -2.0, 0.5])
    return Vector(Site(layer, name), direction, "difference_of_means", {"positive": 3})  # type: ignore[arg-type]


sites = st.builds(Site, st.integers(0, 80), st.sampled_from(SITE_NAMES))


@given(st.lists(sites, min_size=1, max_size=6, unique=True), st.integers(1, 40), st.integers(0, 2**31))
def test_vectors_come_back_from_safetensors_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, where: list[Site], width: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("vectors") / "v.safetensors"
    generator = torch.Generator().manual_seed(seed)
    given_ones = [Vector(site, torch.randn(width, generator=generator), "pca", {"n": width}) for site in where]
    found = load_vectors(save_vectors(path, given_ones), width=width)
    assert [one.site for one in found] == sorted(where)
    for one in given_ones:
        (same,) = [other for other in found if other.site == one.site]
        assert torch.equal(same.direction, one.direction)
        assert same.metadata() == one.metadata()


def test_the_header_is_plain_json_that_other_tools_can_read(tmp_path: Path) -> None:
    from safetensors import safe_open

    path = save_vectors(tmp_path / "v.safetensors", [vector(2)])
    assert list(load_file(path)) == ["blocks.2.hook_resid_post"]
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["marple"])
    assert header["vectors"]["blocks.2.hook_resid_post"]["method"] == "difference_of_means"


@pytest.mark.parametrize("name", ["7", "resid_post.7", "blocks.7.hook_resid_post", "model.layers.7.output"])
def test_plain_files_of_other_tools_are_read_by_layer_or_site(tmp_path: Path, name: str) -> None:
    save_file({name: torch.ones(4)}, tmp_path / "v.safetensors")
    (found,) = load_vectors(tmp_path / "v.safetensors")
    assert found.site == Site(7, "resid_post")
    assert found.method == "unknown"


BAD = {
    "nan": ({"1": torch.tensor([1.0, float("nan")])}, "NaN"),
    "zero": ({"1": torch.zeros(3)}, "is 0"),
    "matrix": ({"1": torch.ones(2, 2)}, "must be \\(d_model,\\)"),
    "whole numbers": ({"1": torch.ones(3, dtype=torch.int64)}, "int64"),
    "no site": ({"weights": torch.ones(3)}, "not known"),
    "two widths": ({"1": torch.ones(3), "2": torch.ones(4)}, "width 3 and 4"),
    "same site twice": ({"1": torch.ones(3), "resid_post.1": torch.ones(3)}, "same site"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_with_anything_but_vectors_are_refused(tmp_path: Path, case: str) -> None:
    tensors, reason = BAD[case]
    save_file(tensors, tmp_path / "v.safetensors")
    with pytest.raises(UsageError, match=reason):
        load_vectors(tmp_path / "v.safetensors")


def test_files_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    with pytest.raises(UsageError, match="does not exist"):
        load_vectors(path)
    torch.save({"1": torch.ones(3)}, path)
    with pytest.raises(UsageError, match="no safetensors file"):
        load_vectors(path)
    whole = save_vectors(tmp_path / "w.safetensors", [vector()]).read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(UsageError, match="no safetensors file"):
        load_vectors(path)


def test_headers_of_another_version_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    for header, reason in (
        ('{"format": "marple-vectors-9", "vectors": {}}', "reads 'marple-vectors-1'"),
        ("{", "damaged"),
    ):
        save_file({"1": torch.ones(3)}, path, metadata={"marple": header})
        with pytest.raises(UsageError, match=reason):
            load_vectors(path)


def test_a_set_needs_vectors_of_the_width_that_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no vector"):
        save_vectors(tmp_path / "v.safetensors", [])
    path = save_vectors(tmp_path / "v.safetensors", [vector()])
    with pytest.raises(UsageError, match="width 3; width 8 is needed"):
        load_vectors(path, width=8)


@pytest.mark.parametrize("values", [[float("inf"), 1.0], [0.0, 0.0]])
def test_a_vector_must_be_a_direction(values: list[float]) -> None:
    with pytest.raises(ToolError):
        vector(values=values)


# ---------------------------------------------------------------------------------------- GGUF


def write_like_repeng(path: Path, directions: dict[int, np.ndarray], architecture: str = "controlvector") -> Path:
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", len(directions))
    for layer, direction in directions.items():
        writer.add_tensor(f"direction.{layer}", direction)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_gguf_comes_back_as_it_was_with_its_method(tmp_path: Path) -> None:
    ones = [vector(11), vector(2, [3.0, 0.0, 1.0])]
    found = import_gguf(export_gguf(tmp_path / "v.gguf", ones, model_hint="llama"), width=3)
    assert [one.site.layer for one in found] == [2, 11]
    assert torch.equal(found[1].direction, ones[0].direction)
    assert found[1].metadata() == ones[0].metadata()


def test_gguf_of_repeng_is_read(tmp_path: Path) -> None:
    directions: dict[int, np.ndarray] = {
        4: np.array([1, 2, 3], dtype=np.float32),
        9: np.array([0.5, 0, -1], dtype=np.float16),
    }
    found = import_gguf(write_like_repeng(tmp_path / "v.gguf", directions))
    assert [(one.site, one.direction.tolist()) for one in found] == [
        (Site(4, "resid_post"), [1.0, 2.0, 3.0]),
        (Site(9, "resid_post"), [0.5, 0.0, -1.0]),
    ]
    assert found[0].source["model_hint"] == "mistral"


def test_repeng_itself_reads_what_is_written_and_the_other_way_round(tmp_path: Path) -> None:
    if not hasattr(np, "float_"):
        np.float_ = np.float64  # type: ignore[attr-defined]  # repeng was written for the older numpy
    repeng = pytest.importorskip("repeng", exc_type=ImportError)
    ones = [vector(3), vector(5, [0.25, 4.0, 1.0])]
    theirs = repeng.ControlVector.import_gguf(export_gguf(tmp_path / "a.gguf", ones, model_hint="llama"))
    assert theirs.model_type == "llama"
    assert {layer: values.tolist() for layer, values in theirs.directions.items()} == {
        one.site.layer: one.direction.tolist() for one in ones
    }
    theirs.export_gguf(str(tmp_path / "b.gguf"))
    back = import_gguf(tmp_path / "b.gguf")
    assert all(torch.equal(one.direction, other.direction) for one, other in zip(back, ones, strict=True))


def test_bad_gguf_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.gguf"
    with pytest.raises(UsageError, match="does not exist"):
        import_gguf(path)
    path.write_bytes(b"GGUF" + b"\xff" * 60)
    with pytest.raises(UsageError, match="no readable GGUF"):
        import_gguf(path)
    whole = export_gguf(tmp_path / "w.gguf", [vector()], model_hint="llama").read_bytes()
    path.write_bytes(whole[:40])
    with pytest.raises(UsageError, match="no readable GGUF"):
        import_gguf(path)
    write_like_repeng(path, {1: np.ones(3, dtype=np.float32)}, architecture="llama")
    with pytest.raises(UsageError, match="'llama' model, not a control vector"):
        import_gguf(path)
    write_like_repeng(path, {1: np.array([1, np.nan], dtype=np.float32)})
    with pytest.raises(UsageError, match="NaN"):
        import_gguf(path)
    write_like_repeng(path, {1: np.ones(3, dtype=np.int32)})
    with pytest.raises(UsageError, match="I32"):
        import_gguf(path)
    with pytest.raises(UsageError, match="resid_post"):
        export_gguf(path, [vector(1, name="attn_out")], model_hint="llama")
