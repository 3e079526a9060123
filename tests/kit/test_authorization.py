"""Who gets through the one dependency that guards every management route, and as what."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from ias.contracts.permissions import PLATFORM_PERMISSIONS, ROLE_PERMISSIONS, Permission, Role
from ias.kit.authorization import Access, internal, requires, signed_in
from ias.kit.problems import ForbiddenError, NotFoundError
from ias.kit.routing import Router
from ias.kit.settings import ServiceSettings
from ias.kit.tokens import MANAGEMENT_AUDIENCE, Claims, TokenVerifier
from ias.kit.web import Answer, create_app
from tests.kit.token_issuer import TokenIssuer, bearer

SETTINGS = ServiceSettings(secret_key=base64.b64encode(bytes(32)).decode(), redis_url="redis://127.0.0.1:1/0")


class Who(Answer):
    sub: str


def build_app(issuer: TokenIssuer) -> FastAPI:
    router = Router()

    @router.get("/budgets")
    async def write_budgets(access: Annotated[Access, requires(Permission.BUDGETS_WRITE)]) -> Who:
        return Who(sub=access.actor.sub)

    @router.get("/me")
    async def show_me(actor: Annotated[Claims, signed_in()]) -> Who:
        return Who(sub=actor.sub)

    @router.get("/internal/thing")
    async def internal_thing(actor: Annotated[Claims, internal("probe")]) -> Who:
        return Who(sub=actor.sub)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_app("probe", description="", routers=[router], lifespan=lifespan, settings=SETTINGS)
    app.state.verifier = TokenVerifier(issuer.fetch_jwks, audience=MANAGEMENT_AUDIENCE)
    app.state.service_verifier = TokenVerifier(issuer.fetch_jwks, audience="probe")
    return app


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()


@pytest.fixture
async def client(issuer: TokenIssuer) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=build_app(issuer))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer nonsense", "token"])
@pytest.mark.parametrize("path", ["/budgets", "/me", "/internal/thing"])
async def test_without_a_valid_token_every_route_answers_401(
    client: httpx.AsyncClient, path: str, header: str | None
) -> None:
    answer = await client.get(path, headers={"Authorization": header} if header is not None else {})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_the_scheme_may_be_written_in_any_case(client: httpx.AsyncClient, issuer: TokenIssuer) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme}  {issuer.sign()}"}
        assert (await client.get("/me", headers=headers)).status_code == 200


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_opens_what_it_holds_and_nothing_else(
    client: httpx.AsyncClient, issuer: TokenIssuer, role: Role
) -> None:
    answer = await client.get("/budgets", headers=issuer.member("01900000-0000-7000-8000-000000000000", role))
    assert answer.status_code == (200 if Permission.BUDGETS_WRITE in ROLE_PERMISSIONS[role] else 403)


async def test_a_user_without_any_role_may_only_ask_about_themselves(
    client: httpx.AsyncClient, issuer: TokenIssuer
) -> None:
    headers = bearer(issuer.sign(sub="somebody"))
    assert (await client.get("/me", headers=headers)).json() == {"sub": "somebody"}
    assert (await client.get("/budgets", headers=headers)).status_code == 403


async def test_users_and_services_do_not_pass_for_each_other(client: httpx.AsyncClient, issuer: TokenIssuer) -> None:
    service_as_user = bearer(issuer.sign(kind="service", platform_admin=True))
    assert (await client.get("/budgets", headers=service_as_user)).status_code == 403
    assert (await client.get("/me", headers=service_as_user)).status_code == 403
    user_as_service = bearer(issuer.sign(aud="probe", platform_admin=True))
    assert (await client.get("/internal/thing", headers=user_as_service)).status_code == 403
    assert (await client.get("/internal/thing", headers=issuer.platform_admin())).status_code == 401
    service = bearer(issuer.sign(kind="service", aud="probe", sub="gateway"))
    assert (await client.get("/internal/thing", headers=service)).json() == {"sub": "gateway"}
    for_another = bearer(issuer.sign(kind="service", aud="billing"))
    assert (await client.get("/internal/thing", headers=for_another)).status_code == 401


def access_of(*grants: tuple[str, str | None, Role], admin: bool = False) -> Access:
    claims = Claims(sub="u", kind="user", aud="a", exp=0, jti="j", platform_admin=admin, grants=grants)
    return Access(claims, Permission.BUDGETS_WRITE)


def test_another_org_is_as_good_as_absent_and_the_own_one_without_the_permission_is_forbidden() -> None:
    access = access_of(("mine", None, Role.VIEWER), ("other", None, Role.OWNER))
    assert access.in_org("other").org_id == "other"
    with pytest.raises(ForbiddenError):
        access.in_org("mine")
    with pytest.raises(NotFoundError):
        access.in_org("elsewhere")


def test_a_role_in_a_project_reaches_no_further_than_the_project() -> None:
    access = access_of(("org", "p1", Role.ADMIN))
    assert access.in_project("org", "p1").project_id == "p1"
    for refused in (lambda: access.in_org("org"), lambda: access.in_project("org", "p2")):
        with pytest.raises(ForbiddenError):
            refused()
    with pytest.raises(NotFoundError):
        access.in_project("other", "p1")
    assert access.org_ids == frozenset()


def test_a_role_in_the_org_reaches_its_projects() -> None:
    access = access_of(("org", None, Role.FINANCE))
    assert access.in_project("org", "any").project_id is None
    assert access.org_ids == {"org"}


def test_only_a_platform_admin_is_on_the_platform_and_everywhere() -> None:
    admin = access_of(admin=True)
    assert admin.on_platform().platform_admin
    assert admin.in_org("any").org_id == "any"
    assert admin.org_ids is None
    with pytest.raises(ForbiddenError):
        access_of(("org", None, Role.OWNER)).on_platform()


def test_no_role_in_an_org_holds_what_belongs_to_the_platform() -> None:
    for role in Role:
        assert not ROLE_PERMISSIONS[role] & PLATFORM_PERMISSIONS, role


GRANTS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([None, "p", "q"]), st.sampled_from(list(Role))), max_size=5
)


@given(GRANTS, st.sampled_from(["a", "b"]), st.sampled_from(["p", "q"]))
def test_a_project_is_reached_exactly_by_grants_that_cover_it(
    grants: list[tuple[str, str | None, Role]], org_id: str, project_id: str
) -> None:
    access = access_of(*grants)
    covered = any(
        org == org_id and project in (None, project_id) and Permission.BUDGETS_WRITE in ROLE_PERMISSIONS[role]
        for org, project, role in grants
    )
    try:
        access.in_project(org_id, project_id)
    except (ForbiddenError, NotFoundError):
        assert not covered
    else:
        assert covered
