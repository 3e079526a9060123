"""Databases for the platform of a proof."""

from collections.abc import Callable

import pytest


@pytest.fixture
def proof_databases(make_migrated_database: Callable[[str], str]) -> dict[str, str]:
    return {service: make_migrated_database(service) for service in ("billing", "analytics")}
