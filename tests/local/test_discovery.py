"""Inference servers that already run here are offered by name."""

from ias.local.discovery import LocalServer, find_local_servers
from tests.local.openai_server import serve_models


async def test_a_server_on_its_usual_port_is_offered_by_name_with_the_command_to_use_it():
    async with serve_models([{"id": "llama3:8b", "owned_by": "library"}]) as server:
        found = await find_local_servers({server.port: "Ollama"})
        assert found == [LocalServer("Ollama", server.url, ("llama3:8b",))]
        assert f"ias up --upstream {server.url} --model llama3:8b" in found[0].offer()


async def test_a_server_that_says_what_it_is_is_believed_over_its_port():
    async with serve_models([{"id": "m", "owned_by": "llamacpp"}]) as server:
        assert [found.name for found in await find_local_servers({server.port: "vLLM"})] == ["llama.cpp"]


async def test_another_platform_of_this_kind_is_not_offered():
    async with serve_models([{"id": "m", "owned_by": "ias"}]) as server:
        assert await find_local_servers({server.port: "vLLM"}) == []


async def test_nothing_is_offered_where_nothing_listens():
    assert await find_local_servers({9: "Ollama"}) == []
