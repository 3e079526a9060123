"""Ports: a taken one is said in one line, with its holder and the option that chooses another."""

import os
import socket

import pytest

from ias.local.errors import PlatformError
from ias.local.ports import find_free_ports, is_free, require_free


@pytest.fixture
def taken_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_taken_port_is_refused_with_its_holder_and_the_option_to_change(taken_port: int):
    with pytest.raises(PlatformError) as caught:
        require_free(taken_port, "127.0.0.1", "--port")
    assert f"port {taken_port} is in use by " in str(caught.value)
    assert f"(process {os.getpid()})" in str(caught.value)
    assert "--port" in str(caught.value)


def test_a_taken_port_is_found_on_every_address(taken_port: int):
    with pytest.raises(PlatformError, match="is in use"):
        require_free(taken_port, "0.0.0.0", "--management-port")


@pytest.mark.parametrize("host", ["192.0.2.1", "300.1.1.1", "nobody.invalid", "2001:db8::1"])
def test_an_address_that_is_not_this_machines_is_said_to_be_the_reason(host: str):
    with pytest.raises(PlatformError, match=f"{host} is not an address of this machine: .*--host") as caught:
        require_free(18000, host, "--port")
    assert "--port" not in str(caught.value)


def test_free_ports_are_free_and_different():
    ports = find_free_ports(5)
    assert len(set(ports)) == 5
    assert all(is_free(port) for port in ports)
