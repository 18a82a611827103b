import pytest
import torch

from marple.errors import ToolError
from marple.tools.engine.sites import Site
from marple.tools.steering.planted import Planted
from marple.tools.target.target import Target
from marple.tools.vectors.choosing import Contrast, choose_direction, extract_vector
from marple.tools.vectors.contrast_sets import check_sets, encode_texts, read_states
from marple.tools.vectors.extraction import EXTRACTIONS, extract
from marple.tools.vectors.vector import Vector, keep_vector, kept_direction


def clouds(gap: float = 4.0, rows: int = 60, width: int = 20) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positive and negative rows, and the unit direction between them."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(width, generator=generator)
    direction /= direction.norm()
    noise = torch.randn(2, rows, width, generator=generator) * 0.5
    return noise[0] + gap / 2 * direction, noise[1] - gap / 2 * direction, direction


@pytest.mark.parametrize("method", EXTRACTIONS)
def test_every_method_finds_the_planted_direction_and_its_length(method: str) -> None:
    positive, negative, direction = clouds()
    found = extract(method, positive, negative)  # type: ignore[arg-type]
    # Whitening lets a probe's weight wander off where the classes lie far apart.
    assert float(found @ direction / found.norm()) > (0.85 if method == "probe" else 0.98)
    assert float(found.norm()) == pytest.approx(4.0, rel=0.1)
    back = extract(method, negative, positive)  # type: ignore[arg-type]
    assert float(torch.nn.functional.cosine_similarity(back, -found, dim=0)) > 0.99


def test_pca_sees_the_common_axis_of_pairs_that_the_means_drown_in() -> None:
    generator = torch.Generator().manual_seed(1)
    shared = 20 * torch.randn(40, 10, generator=generator)
    step = torch.zeros(10)
    step[3] = 2.0
    found = extract("pca", shared + step, shared)
    assert torch.allclose(found, step, atol=1e-3)


def test_contrasts_without_a_direction_are_refused() -> None:
    positive, negative, _ = clouds()
    with pytest.raises(ToolError, match="positive set is empty"):
        extract("difference_of_means", positive[:0], negative)
    with pytest.raises(ToolError, match="same activations"):
        extract("difference_of_means", positive, positive)
    with pytest.raises(ToolError, match="60 prompts and negative 59"):
        extract("pca", positive, negative[1:])
    with pytest.raises(ToolError, match="at least 4"):
        extract("probe", positive[:3], negative)
    positive[0, 0] = float("nan")
    with pytest.raises(ToolError, match="NaN"):
        extract("difference_of_means", positive, negative)


def test_sets_must_have_two_sides() -> None:
    with pytest.raises(ToolError, match="negative holds 0 texts"):
        check_sets(["a", "b"], [])
    with pytest.raises(ToolError, match="positive holds 1 texts"):
        check_sets(["a"], ["b", "c"])
    with pytest.raises(ToolError, match="1 texts stand in both sets, such as 'b'"):
        check_sets(["a", "b"], ["b", "c"])


def test_a_conversation_is_read_to_the_end_of_the_assistants_turn(tiny: Target) -> None:
    said = [{"role": "user", "content": "who is it"}, {"role": "assistant", "content": "the cat"}]
    asked, answered = encode_texts(tiny, [said[:1], said], chat=True, system=None)  # type: ignore[list-item]
    assert answered[: len(asked)] == asked
    assert tiny.decode(answered[len(asked) :]) == "the cat"
    with pytest.raises(ToolError, match="assistant's turn alone"):
        encode_texts(tiny, [said[1:]], chat=True, system=None)  # type: ignore[list-item]
    with pytest.raises(ToolError, match="chat true"):
        encode_texts(tiny, [said], chat=False, system=None)  # type: ignore[list-item]


def test_states_are_the_captured_ones(tiny: Target) -> None:
    prompts = encode_texts(tiny, ["who is it", "tell me about the lamp"], chat=True, system=None)
    site = Site(1, "resid_post")
    whole = tiny.capture(prompts, [site], positions="all")[site]
    assert torch.equal(read_states(tiny, prompts, [site], reading="last")[site][1], whole[1][-1])
    assert torch.allclose(read_states(tiny, prompts, [site], reading="mean")[site][0], whole[0][1:].mean(dim=0))


def test_the_planted_direction_is_extracted_where_it_enters(planted: Planted) -> None:
    sets = planted.contrast
    for method in EXTRACTIONS:
        contrast = Contrast(sets["positive"], sets["negative"], method, "mean", True, None)
        chosen = extract_vector(planted.target, contrast, site=Site(0, "resid_pre"))
        assert float(chosen.vector.unit @ planted.direction) > (0.5 if method == "probe" else 0.95)
        assert chosen.agreement is not None
        assert chosen.agreement > 0.9


def test_a_direction_is_named_in_exactly_one_way(planted: Planted) -> None:
    with pytest.raises(ToolError, match="give one direction"):
        choose_direction(planted.target, site=None)
    contrast = Contrast(["a", "b"], ["c", "d"], "difference_of_means", "mean", True, None)
    with pytest.raises(ToolError, match="give one direction"):
        choose_direction(planted.target, site=None, contrast=contrast, handle="vec-1")
    with pytest.raises(ToolError, match="sae is not given and there are 0"):
        choose_direction(planted.target, site=None, feature=3)
    with pytest.raises(ToolError, match="vec-1"):
        choose_direction(planted.target, site=None, handle="vec-1")


def test_a_handle_gives_the_vector_back_and_refuses_another_width(planted: Planted) -> None:
    target = planted.target
    name = keep_vector(target, Vector(Site(1, "mlp_out"), planted.direction, "planted"))
    kept, bias = kept_direction(target, name)
    assert torch.equal(kept.direction, planted.direction)
    assert (kept.site, bias) == (Site(1, "mlp_out"), 0.0)
    with pytest.raises(ToolError, match=r"\(8,\), the target's activations \(32,\)"):
        keep_vector(target, Vector(Site(1, "mlp_out"), torch.ones(8), "planted"))
    foreign = target.handles.put("vector", {"vector": torch.ones(8)}, {"site": "blocks.0.hook_resid_post"})
    with pytest.raises(ToolError, match="another model"):
        kept_direction(target, foreign)
