"""The one-process management app sends every service's routes to that service, and to no other."""

import pytest
from contracts.generate import build_app

from ias.local.management import ROUTES
from ias.local.processes import SERVICES
from tests.laws.routes import list_routes

OWN_OF_EACH = {"/health", "/ready", "/metrics"}


def test_every_service_with_a_database_has_its_paths():
    assert set(ROUTES) == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_described_where_the_index_says(service: str):
    assert build_app(service).openapi_url == f"/{service}/v1/openapi.json"


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_routes_lead_to_it(service: str):
    for route in list_routes(build_app(service)):
        if route.path not in OWN_OF_EACH:
            owners = [name for name, prefixes in ROUTES.items() if route.path.startswith(prefixes)]
            assert owners == [service], route
