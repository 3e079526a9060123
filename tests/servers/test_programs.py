"""What happens where a server is not on the machine."""

import os

import pytest

from tests.servers import containers, redis_server
from tests.servers.programs import ALL, REDIS, ServerUnavailableError
from tests.servers.run import TestRun


@pytest.fixture
def machine_without_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program, nobody who may install one, and no Docker engine."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(containers, "engine_answers", lambda: False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(REDIS.url_variable, raising=False)


def test_a_server_that_cannot_be_had_is_named_with_what_to_install(
    machine_without_servers: None, test_run: TestRun
) -> None:
    with pytest.raises(
        ServerUnavailableError, match=r"apt-get install redis-server.*IAS_TEST_REDIS_URL.*Docker engine"
    ):
        redis_server._start(test_run, test_run.new_directory("redis-absent"))


@pytest.mark.parametrize("program", ALL, ids=lambda program: program.name)
def test_every_explanation_names_the_package_and_the_variable(program: object) -> None:
    explanation = program.explain()
    assert program.package in explanation
    assert program.url_variable in explanation


def test_a_url_in_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch, test_run: TestRun) -> None:
    monkeypatch.setenv(REDIS.url_variable, "redis://elsewhere:6379/0")
    assert redis_server.own_redis(test_run).startswith("redis://elsewhere:6379/")
