"""HTTP to servers that somebody named: only where the egress policy allows, and no answer without end."""

from collections.abc import AsyncIterator

import httpx

from ias.kit.egress import EgressPolicy

ANSWER_BYTES_MAX = 1_048_576


class AnswerTooLongError(httpx.ReadError):
    """The server sent more than anybody should want."""


class GuardedTransport(httpx.AsyncBaseTransport):
    """Looks the host up, checks every address, and connects to the very one that was checked, under the name that was asked for."""

    def __init__(self, policy: EgressPolicy, *, answer_bytes_max: int = ANSWER_BYTES_MAX) -> None:
        self._policy = policy
        self._inner = httpx.AsyncHTTPTransport(trust_env=False)
        self._answer_bytes_max = answer_bytes_max

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request (httpx). Redirects are the client's, which should follow none.

        Raises:
            EgressRefusedError: the host may not be called.
        """
        host = request.url.host
        address = await self._policy.find_address(host)
        if address is None:
            raise httpx.ConnectError("The host's name is not known.", request=request)
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.headers["accept-encoding"] = "identity"  # what is bounded is then what arrives
        request.url = request.url.copy_with(host=address)
        answer = await self._inner.handle_async_request(request)
        if isinstance(answer.stream, httpx.AsyncByteStream):
            answer.stream = _Bounded(answer.stream, self._answer_bytes_max)
        return answer

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, bytes_max: int) -> None:
        self._stream = stream
        self._left = bytes_max

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            self._left -= len(part)
            if self._left < 0:
                raise AnswerTooLongError("The answer is too long.")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
