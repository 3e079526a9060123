"""Every management route says who may call it, and refuses everybody else before anything is touched."""

import httpx
import pytest
from contracts.generate import discover_services
from tests.laws.routes import Guarded, Issuer, build_guarded_app, list_routes

from ias.contracts.permissions import ROLE_PERMISSIONS, Role
from ias.kit.authorization import SIGNED_IN
from ias.kit.tokens import MANAGEMENT_AUDIENCE

PUBLIC = {
    "GET /health",
    "GET /ready",
    "GET /metrics",
    "GET /identity/v1/.well-known/audit-jwks.json",
    "GET /identity/v1/.well-known/jwks.json",
    "POST /identity/v1/sessions",
    "POST /identity/v1/leaked-keys",
    "POST /identity/v1/sessions/refresh",
    "POST /internal/service-tokens",
    "GET /identity/v1/sign-in-providers",
    "POST /identity/v1/sign-in-providers/{provider_id}/begin",
    "POST /identity/v1/sessions/oidc",
    "POST /identity/v1/sessions/second-factor",
    "POST /identity/v1/password-resets",
    "POST /identity/v1/password-resets/complete",
    "POST /identity/v1/invitations/look-up",
    "POST /identity/v1/invitations/accept-as-new-user",
}
"""Routes that anybody may call. A new one needs a reason in the code and a line here."""

ISSUER = Issuer()


@pytest.mark.parametrize("service", discover_services())
def test_every_route_declares_exactly_one_guard_or_is_public_with_a_reason(service: str) -> None:
    wrong = []
    for route in list_routes(build_guarded_app(service, ISSUER)):
        is_public = bool(route.public_reason) and str(route) in PUBLIC
        if len(route.guards) != (0 if is_public else 1):
            wrong.append(f"{route}: guards {route.guards}, public because {route.public_reason!r}")
    assert wrong == []


def test_a_public_route_that_is_gone_leaves_the_list() -> None:
    routes = [route for service in discover_services() for route in list_routes(build_guarded_app(service, ISSUER))]
    assert PUBLIC - {str(route) for route in routes if route.public_reason} == set()


@pytest.mark.parametrize("service", discover_services())
def test_internal_routes_and_no_others_are_under_internal(service: str) -> None:
    for route in list_routes(build_guarded_app(service, ISSUER)):
        if not route.public_reason:
            assert route.path.startswith("/internal/") == route.is_internal, route
            assert route.is_internal or route.path.startswith(f"/{service}/v1/"), route


@pytest.mark.parametrize("service", discover_services())
async def test_without_a_token_every_guarded_route_answers_401(service: str) -> None:
    app = build_guarded_app(service, ISSUER)
    for route in guarded(service):
        for headers in ({}, {"authorization": "Bearer nonsense"}):
            answer = await call(app, route, headers)
            assert answer.status_code == 401, f"{route} answered {answer.status_code}: {answer.text}"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("service", discover_services())
async def test_with_a_role_that_lacks_the_permission_every_route_answers_403(service: str) -> None:
    app = build_guarded_app(service, ISSUER)
    for route in guarded(service):
        if route.guards == (SIGNED_IN,):
            continue
        audience = service if route.is_internal else MANAGEMENT_AUDIENCE
        lacking = [role for role in Role if route.is_internal or route.permission not in ROLE_PERMISSIONS[role]]
        for roles in [(), *((role.value,) for role in lacking)]:
            answer = await call(app, route, bearer(ISSUER.token(audience, roles=roles)))
            assert answer.status_code == 403, f"{route} answered {answer.status_code} to {roles}: {answer.text}"


@pytest.mark.parametrize("service", discover_services())
async def test_a_service_token_opens_no_management_route(service: str) -> None:
    app = build_guarded_app(service, ISSUER)
    for route in guarded(service):
        if not route.is_internal:
            answer = await call(app, route, bearer(ISSUER.token(MANAGEMENT_AUDIENCE, kind="service")))
            assert answer.status_code == 403, f"{route} answered {answer.status_code}"


@pytest.mark.parametrize("service", discover_services())
async def test_a_token_for_another_audience_is_no_token(service: str) -> None:
    app = build_guarded_app(service, ISSUER)
    for route in guarded(service):
        answer = await call(app, route, bearer(ISSUER.token("elsewhere", roles=("owner",))))
        assert answer.status_code == 401, f"{route} answered {answer.status_code}"


def guarded(service: str) -> list[Guarded]:
    return [route for route in list_routes(build_guarded_app(service, ISSUER)) if not route.public_reason]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def call(app: object, route: Guarded, headers: dict[str, str]) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        return await http.request(route.method, route.url, headers=headers)
