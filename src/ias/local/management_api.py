"""A small client of the management APIs: signs in, follows cursors, and says in one line what was refused."""

from collections.abc import AsyncIterator
from typing import Any

import httpx

from ias.local.errors import PlatformError

_PAGES_MAX = 100


class RefusedError(PlatformError):
    """A management API answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ManagementApi:
    """Calls with an administrator's token, which `sign_in` obtains."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self._headers: dict[str, str] = {}

    async def sign_in(self, email: str, password: str) -> None:
        """Obtain a token for the calls that follow. Raises `RefusedError` for a wrong password."""
        answer = await self.post("/identity/v1/sessions", {"email": email, "password": password})
        self._headers = {"Authorization": f"Bearer {answer['access_token']}"}

    async def list(self, path: str, **parameters: str) -> AsyncIterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        cursor: str | None = None
        for _ in range(_PAGES_MAX):
            page = await self._call("GET", path, params={**parameters, **({"cursor": cursor} if cursor else {})})
            for item in page["data"]:
                yield item
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create something; the answer's body."""
        return await self._call("POST", path, json=body)

    async def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Change something; the answer's body."""
        return await self._call("PATCH", path, json=body)

    async def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer = await self._client.request(method, self._url + path, headers=self._headers, **arguments)
        except httpx.HTTPError as error:
            raise PlatformError(
                f"{method} {path} got no answer ({type(error).__name__})", "the log of management says why"
            ) from error
        if answer.is_success:
            body: dict[str, Any] = answer.json() if answer.content else {}
            return body
        raise RefusedError(answer.status_code, f"{method} {path} answered {answer.status_code}: {_detail(answer)}")


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
