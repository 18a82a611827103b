"""Opening a model by name, and what is said when that cannot be done."""

from __future__ import annotations

import json

import pytest

from marple.agent.models import PROVIDERS, Price, load_prices, open_model
from marple.errors import MissingKeyError, UnknownNameError, UsageError
from tests.models.provider_server import Answer


def test_an_unknown_provider_gets_the_nearest_names():
    with pytest.raises(UnknownNameError, match="'antropic'.*did you mean anthropic.*openai-chat"):
        open_model("antropic/some-model")


@pytest.mark.parametrize(
    ("name", "example"),
    [("claude-x", "anthropic/claude-x"), ("gpt-x", "openai/gpt-x"), ("qwen", "openai-chat/qwen"), ("", "NAME")],
)
def test_a_name_without_a_provider_gets_an_example(name, example):
    with pytest.raises(UsageError, match=f"no provider.*{example}"):
        open_model(name)


def test_a_provider_without_a_model_is_refused(provider):
    with pytest.raises(UsageError, match="no model"):
        open_model(f"{provider}/")


def test_a_missing_key_is_named(provider):
    with pytest.raises(MissingKeyError, match=PROVIDERS[provider].key_variable):
        open_model(f"{provider}/m")
    with pytest.raises(MissingKeyError, match=PROVIDERS[provider].key_variable):
        open_model(f"{provider}/m", base_url=PROVIDERS[provider].base_url)


@pytest.mark.parametrize("bad", ["sk-a b", "sk-é", "sk-a\nX-Evil: 1"])
def test_a_key_no_header_can_hold_is_refused_without_being_shown(provider, monkeypatch, bad):
    monkeypatch.setenv(PROVIDERS[provider].key_variable, bad)
    with pytest.raises(UsageError, match=PROVIDERS[provider].key_variable) as raised:
        open_model(f"{provider}/m")
    assert bad not in str(raised.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "nonsense"])
def test_an_address_that_is_not_http_is_refused(provider, url):
    with pytest.raises(UsageError, match="base URL"):
        open_model(f"{provider}/m", base_url=url)


async def test_the_address_may_come_from_the_environment(provider, serve, monkeypatch):
    server = serve([Answer(text="ok")])
    monkeypatch.setenv(PROVIDERS[provider].url_variable, server.base_url(provider))
    model = open_model(f"{provider}/a/b/c")
    assert (await model.generate("", [], [])).text == "ok"
    assert server.requests[0].json["model"] == "a/b/c"
    await model.close()


async def test_a_given_address_wins_over_the_environment(provider, serve, monkeypatch, key):
    monkeypatch.setenv(PROVIDERS[provider].url_variable, "http://127.0.0.1:9/v1")
    server = serve([Answer(text="ok")])
    model = open_model(f"{provider}/m", base_url=server.base_url(provider))
    assert (await model.generate("", [], [])).text == "ok"
    await model.close()


@pytest.mark.parametrize("options", [{"max_retries": -1}, {"timeout_seconds": 0}])
def test_impossible_options_are_refused(provider, key, options):
    with pytest.raises(UsageError, match=next(iter(options))):
        open_model(f"{provider}/m", **options)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
async def test_prices_come_from_the_users_file(tmp_path, monkeypatch, serve, opened, suffix):
    path = tmp_path / f"prices{suffix}"
    path.write_text(json.dumps({"openai/m": {"input": 2, "output": 10.5}}), encoding="utf-8")
    monkeypatch.setenv("MARPLE_PRICES", str(path))
    assert load_prices() == {"openai/m": Price(2, 10.5)}
    server = serve(lambda _: Answer(text="ok", input_tokens=1000, output_tokens=100))
    listed = await opened("openai", server).generate("", [], [])
    assert listed.usage.cost_usd == pytest.approx(0.002 + 0.00105)
    assert (await opened("anthropic", server).generate("", [], [])).usage.cost_usd is None


@pytest.mark.parametrize(
    "text",
    [
        "- a list",
        "openai/m: 3",
        "openai/m: {input: 3}",
        "openai/m: {input: 3, output: -1}",
        "openai/m: {input: .nan, output: 1}",
        "openai/m: {input: yes, output: 1}",
        "openai/m: {input: 3, output: 1, cached: 1}",
        "openai/m: {input: [",
    ],
)
def test_a_broken_price_list_is_refused_by_name(tmp_path, text):
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"prices\.yaml"):
        load_prices(path)


def test_a_missing_price_list_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_prices(tmp_path / "none.yaml")


def test_no_price_list_is_fine():
    assert load_prices() == {}
