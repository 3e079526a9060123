"""Passwords: bcrypt, on threads of their own, a bounded number at a time."""

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from ias.kit.problems import FieldError, InvalidError, UnavailableError

PASSWORD_BYTES_MAX = 72
"""bcrypt reads no further, so a longer password would be cut without anybody noticing."""
PASSWORD_CHARACTERS_MIN = 8

Result = TypeVar("Result")


class Passwords:
    """Hashes and checks passwords at one cost. `close` it."""

    def __init__(self, *, rounds: int, threads: int, waiting_max: int) -> None:
        self._rounds = rounds
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="bcrypt")
        self._waiting_max = waiting_max
        self._waiting = 0
        self._nobodys_hash = bcrypt.hashpw(b"nobody has this password", bcrypt.gensalt(rounds)).decode()

    async def hash(self, password: str) -> str:
        """The hash to store of a new password.

        Raises:
            InvalidError: too short, or more than 72 bytes.
            UnavailableError: too many are waiting.
        """
        if len(password) < PASSWORD_CHARACTERS_MIN:
            raise _invalid(f"A password has at least {PASSWORD_CHARACTERS_MIN} characters.")
        hashed = await self._run(bcrypt.hashpw, _encode(password), bcrypt.gensalt(self._rounds))
        return hashed.decode()

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Whether the password is the one that was hashed. Without a hash the work is the same and the answer is no.

        Raises:
            InvalidError: more than 72 bytes.
            UnavailableError: too many are waiting.
        """
        encoded = _encode(password)
        matches: bool = await self._run(bcrypt.checkpw, encoded, (password_hash or self._nobodys_hash).encode())
        return matches and password_hash is not None

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., Result], *arguments: bytes) -> Result:
        if self._waiting >= self._waiting_max:
            raise UnavailableError("Too many sign-ins are waiting.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._waiting -= 1


def _encode(password: str) -> bytes:
    encoded = unicodedata.normalize("NFKC", password).encode()
    if len(encoded) > PASSWORD_BYTES_MAX:
        raise _invalid(f"A password has at most {PASSWORD_BYTES_MAX} bytes in UTF-8; this one has {len(encoded)}.")
    return encoded


def _invalid(detail: str) -> InvalidError:
    return InvalidError(detail, code="invalid_password", errors=[FieldError(pointer="/password", detail=detail)])
