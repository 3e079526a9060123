"""`ias models apply`: a file becomes models, routes and backends, and a second time nothing."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.registry.test_commands import Run, quiet, run

__all__ = ["quiet", "run"]

DESIRED: dict[str, Any] = {
    "models": [
        {
            "name": "base",
            "context_length": 8192,
            "aliases": ["small"],
            "route_policy": {"strategy": "least_tokens", "canary_percent": 10},
            "backends": [
                {"url": "HTTP://10.0.0.7:8000/", "engine": "vllm", "weight": 3, "adapters": {"sql": "tuned"}},
                {"url": "http://10.0.0.8:8000/v1", "group": "canary"},
            ],
        },
        {"name": "tuned", "context_length": 8192},
    ]
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


def write(file: Path, document: Any) -> None:
    file.write_text(document if isinstance(document, str) else json.dumps(document))


async def apply(run: Run, file: Path, document: Any, *options: str) -> list[str]:
    """What the command says of its changes."""
    write(file, document)
    told = await run("models", "apply", str(file), *options)
    assert told.exit_code == 0, told.output
    return told.output.splitlines()


async def test_a_file_is_shown_first_then_applied_and_then_there_is_nothing_to_do(
    run: Run, registry: httpx.AsyncClient, file: Path
) -> None:
    dry = await apply(run, file, DESIRED, "--dry-run")
    assert dry[-1] == "6 changes, none of them made"
    assert (await registry.get("/registry/v1/models")).json()["data"] == []
    told = await apply(run, file, DESIRED)
    assert told == [
        "+ model base",
        "+ model tuned",
        "+ backend HTTP://10.0.0.7:8000/ of base",
        "+ adapter sql of backend HTTP://10.0.0.7:8000/ of base, served as tuned",
        "+ backend http://10.0.0.8:8000/v1 of base",
        '~ route policy of base: strategy "prefix" → "least_tokens", canary_percent 0 → 10',
        "6 changes",
    ]
    assert await apply(run, file, DESIRED) == ["0 changes"]


async def test_what_was_changed_by_hand_is_seen_and_healed_and_what_the_file_does_not_speak_of_stays(
    run: Run, registry: httpx.AsyncClient, file: Path
) -> None:
    await apply(run, file, DESIRED)
    (base,) = (await registry.get("/registry/v1/models", params={"name": "base"})).json()["data"]
    listed = (await registry.get(f"/registry/v1/models/{base['id']}/backends")).json()["data"]
    by_hand = next(one for one in listed if one["group"] == "stable")
    path = f"/registry/v1/backends/{by_hand['id']}"
    await registry.patch(path, json={"weight": 9, "environment": "a-lab"})
    await registry.post(f"{path}/drain")
    await registry.post(f"/registry/v1/models/{base['id']}/backends", json={"url": "http://10.0.0.9:8000"})
    expected = ["~ backend HTTP://10.0.0.7:8000/ of base: weight 9 → 3"]
    assert (await apply(run, file, DESIRED, "--dry-run"))[:-1] == expected
    assert (await apply(run, file, DESIRED))[:-1] == expected
    healed = (await registry.get(path)).json()
    assert (healed["weight"], healed["environment"], healed["draining"]) == (3, "a-lab", True)
    assert (await apply(run, file, DESIRED, "--prune"))[:-1] == ["- backend http://10.0.0.9:8000/v1 of base"]
    fewer = json.loads(json.dumps(DESIRED))
    fewer["models"][0]["backends"][0]["adapters"] = {}
    assert await apply(run, file, fewer) == ["0 changes"]
    assert (await apply(run, file, fewer, "--prune"))[0].startswith("- adapter sql of backend")


async def test_a_canary_comes_before_its_share_and_goes_after_it(run: Run, file: Path) -> None:
    without: dict[str, Any] = {"name": "base", "context_length": 8192, "backends": [{"url": "http://10.0.0.7:8000"}]}
    having = json.loads(json.dumps(without))
    having["backends"].append({"url": "http://10.0.0.8:8000", "group": "canary"})
    having["route_policy"] = {"canary_percent": 10}
    without["route_policy"] = {"canary_percent": 0}
    successor = {"name": "next", "context_length": 8192}
    old = {"name": "old", "context_length": 8192, "status": "deprecated", "replacement": "next"}
    await apply(run, file, {"models": [without]})
    for models in ([having], [without], [without, successor, old]):
        dry = await apply(run, file, {"models": models}, "--prune", "--dry-run")
        told = await apply(run, file, {"models": models}, "--prune")
        assert len(told) > 2
        assert dry[:-1] == told[:-1]
        assert await apply(run, file, {"models": models}, "--prune") == ["0 changes"]


async def test_a_moment_in_yaml_is_the_same_moment_the_second_time(run: Run, file: Path) -> None:
    text = "models:\n- {name: old, context_length: 8192, status: deprecated, sunset_at: 2030-01-01T01:00:00+01:00}\n"
    assert await apply(run, file, text) == ["+ model old", "1 changes"]
    assert await apply(run, file, text) == ["0 changes"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("models: [", "is no YAML"),
        ("[]", "must hold a list under `models`"),
        ("models: &all [*all]", "nested too deeply, or holds itself"),
        pytest.param("[" * 50_000, "nested too deeply, or holds itself", id="deep"),
        ({"models": [], "backends": []}, "and nothing else"),
        ({"models": [{"context_length": 1}]}, "/models/0 must be a model with a `name`"),
        ({"models": [{"name": "a"}, {"name": "a"}]}, "names a model twice"),
        ({"models": [{"name": "a", "backends": [{}]}]}, "/models/0/backends/0 must be a backend with a `url`"),
        ({"models": [{"name": "a", "backends": [{"url": "x", "credential": "sk"}]}]}, "credential_from"),
        ({"models": [{"name": "a"}]}, "/context_length"),
        ("models: [{name: a, context_length: 1, sunset_at: 2030-01-01}]", "2030-01-01 says no time of day and no zone"),
        ({"models": [{"name": "a", "context_length": 1, "colour": "red"}]}, "/colour"),
    ],
)
async def test_a_file_that_cannot_be_followed_is_refused_in_a_line(
    run: Run, file: Path, document: Any, said: str
) -> None:
    write(file, document)
    told = await run("models", "apply", str(file))
    assert (told.exit_code, said in told.output) == (1, True), told.output
