"""Every name people give a site, and no other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.errors import ToolError
from marple.tools.engine.sites import SITE_NAMES, Site, parse_site

PROFILE = settings.get_profile("engine")


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("resid_post.4", Site(4, "resid_post")),
        ("4.resid_pre", Site(4, "resid_pre")),
        ("blocks.3.hook_resid_post", Site(3, "resid_post")),
        ("blocks.0.hook_resid_mid", Site(0, "resid_mid")),
        ("blocks.12.hook_attn_out", Site(12, "attn_out")),
        ("blocks.3.hook_in", Site(3, "resid_pre")),
        ("blocks.3.hook_out", Site(3, "resid_post")),
        ("model.layers.3.output", Site(3, "resid_post")),
        ("model.layers.3.input", Site(3, "resid_pre")),
        ("model.language_model.layers.3.output", Site(3, "resid_post")),
        ("model.layers.3.mlp.output", Site(3, "mlp_out")),
        ("model.layers.3.self_attn.output", Site(3, "attn_out")),
        ("model.layers.3.post_feedforward_layernorm.output", Site(3, "mlp_out")),
        ("transformer.h.7.output", Site(7, "resid_post")),
        ("transformer.h.7.attn.output", Site(7, "attn_out")),
        ("gpt_neox.layers.2.attention.output", Site(2, "attn_out")),
        ("3-gemmascope-2-res-16k", Site(3, "resid_post")),
        ("20-gemmascope-res-16k", Site(20, "resid_post")),
        ("5-gemmascope-att-16k", Site(5, "attn_out")),
        ("5-gemmascope-mlp-16k", Site(5, "mlp_out")),
        ("17-res-jb", Site(17, "resid_post")),
        ("0-res_post_32k-oai", Site(0, "resid_post")),
    ],
)
def test_a_name_is_a_site(text: str, site: Site) -> None:
    assert parse_site(text) == site


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resid_post",
        "resid_post.",
        "resid_post.x",
        "resid_post.-1",
        "resid.3",
        "blocks.3.hook_resid_poste",
        "blocks.x.hook_resid_post",
        "blocks.3.attn.hook_z",
        "model.layers.3",
        "model.layers.3.mlp.input",
        "model.layers.3.self_attn.o_proj.output",
        "model.layers.3.input_layernorm.output",
        "model.embed_tokens.output",
        "3-gemmascope-transcoder-16k",
        "3-gemmascope-res-mlp-16k",
        "gemmascope-2-res-16k",
        "blocks.3.hook_resid_post ",
        "x" * 5000,
    ],
)
def test_what_is_no_site_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ToolError, match=r'is not known; give one of resid_pre, .*such as "resid_post.2"') as refused:
        parse_site(text)
    assert len(str(refused.value)) < 400


@settings(PROFILE, max_examples=50)
@given(layer=st.integers(0, 200), name=st.sampled_from(SITE_NAMES))
def test_a_sites_own_name_is_that_site(layer: int, name: str) -> None:
    site = Site(layer, name)  # type: ignore[arg-type]
    assert parse_site(str(site)) == site
    assert parse_site(f"{name}.{layer}") == site


@settings(PROFILE, max_examples=200)
@given(
    st.text(max_size=30) | st.from_regex(r"(blocks|model\.layers|[a-z_]+)\.[0-9]{1,3}\.[a-z_.]{0,20}", fullmatch=True)
)
def test_any_text_is_a_site_or_refused(text: str) -> None:
    try:
        site = parse_site(text)
    except ToolError:
        return
    assert str(site.layer) in text
    assert site.name in SITE_NAMES


def test_the_stream_behind_a_layer_is_the_next_ones_input() -> None:
    assert Site(2, "resid_post").place == Site(3, "resid_pre").place == Site(3, "resid_pre")
    assert len({Site(3, name).place for name in SITE_NAMES}) == 5
    assert [Site(2, name).depth for name in SITE_NAMES] == [2, 3, 3, 3, 3]
    assert [Site(2, name).boundary for name in SITE_NAMES] == [2, None, 3, None, None]
