"""What was typed, decided: ports, the upstream's URL and its model."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ias.local.errors import UsageProblemError
from ias.local.options import DEFAULT_MODEL, UpOptions, Upstream
from ias.local.resolution import normalise_upstream, resolve_options
from tests.local.openai_server import OpenAiServer, serve_models

TYPED: dict[str, Any] = {
    "data_dir": Path("/data"),
    "ephemeral": False,
    "host": "127.0.0.1",
    "port": 8000,
    "management_port": 8080,
    "workers": 2,
    "upstream": None,
    "upstream_key": None,
    "model": None,
}


@pytest.fixture
async def upstream():
    async with serve_models([]) as server:
        yield server


async def resolve(*given: str, **typed: Any) -> tuple[UpOptions, list[str]]:
    shown: list[str] = []
    return await resolve_options({**TYPED, **typed}, set(given) | set(typed), shown.append), shown


async def test_without_options_the_usual_ports_and_the_built_in_engines_model_are_taken():
    options, _ = await resolve()
    assert (options.port, options.management_port, options.model, options.upstream) == (8000, 8080, DEFAULT_MODEL, None)


async def test_an_ephemeral_platform_takes_free_ports_unless_they_are_given():
    options, _ = await resolve(ephemeral=True, port=9123)
    assert options.port == 9123
    assert options.management_port not in (8080, 9123)


async def test_both_servers_on_one_port_are_refused():
    with pytest.raises(UsageProblemError, match="must differ"):
        await resolve(port=9000, management_port=9000)


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/v1"),
        ("http://127.0.0.1:11434/v1/", "http://127.0.0.1:11434/v1"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("https://api.example.com/openai/v1/chat/completions", "https://api.example.com/openai/v1"),
    ],
)
def test_an_upstreams_url_is_taken_however_it_is_written(typed: str, url: str):
    assert normalise_upstream(typed) == url


@pytest.mark.parametrize("typed", ["localhost:8000", "ftp://host/v1", "http://"])
def test_what_is_no_url_is_refused(typed: str):
    with pytest.raises(UsageProblemError, match="is not a URL"):
        normalise_upstream(typed)


async def test_an_upstreams_only_model_needs_no_naming(upstream: OpenAiServer):
    upstream.models = [{"id": "tiny", "max_model_len": 4096}]
    options, shown = await resolve(upstream=upstream.url, upstream_key="secret")
    assert options.model == "tiny"
    assert options.context_length == 4096
    assert options.upstream == Upstream(url=f"{upstream.url}", api_key="secret")
    assert shown == []


async def test_of_several_models_one_must_be_named(upstream: OpenAiServer):
    upstream.models = [{"id": "one"}, {"id": "two"}]
    with pytest.raises(UsageProblemError, match="one, two"):
        await resolve(upstream=upstream.url)
    options, shown = await resolve(upstream=upstream.url, model="three")
    assert options.model == "three"
    assert "does not list three" in shown[0]


async def test_an_upstream_that_is_away_needs_a_model_and_is_noted():
    with pytest.raises(UsageProblemError, match="--model is needed"):
        await resolve(upstream="http://127.0.0.1:9/v1")
    options, shown = await resolve(upstream="http://127.0.0.1:9/v1", model="named")
    assert options.model == "named"
    assert "does not list its models now" in shown[0]


async def test_options_survive_the_way_to_a_detached_supervisor():
    options, _ = await resolve(upstream="http://127.0.0.1:9/v1", model="m", upstream_key="k")
    plain, _ = await resolve()
    assert UpOptions.from_json(options.to_json()) == options
    assert UpOptions.from_json(plain.to_json()) == plain
    await asyncio.sleep(0)
