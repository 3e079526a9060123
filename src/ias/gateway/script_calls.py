"""The data path's two script calls as Redis reads them, filled into templates.

Names of an org's reservations differ in the request id alone, whose length is fixed, so all else of a call is laid out
once per org and admission plan. Packing each call anew costs several times as much.
"""

from pathlib import Path
from typing import Final

from ias.contracts import redis_keys
from ias.contracts.ids import REQUEST_ID_PREFIX
from ias.gateway.redis_connection import Script, pack

_ID_LENGTH: Final = len(REQUEST_ID_PREFIX) + 32
_ID_MARK: Final = "\x01" * _ID_LENGTH
_NUMBER_MARK: Final = "\x02"
_NUMBER_MARK_PACKED: Final = b"$1\r\n\x02\r\n"
_SERVERS_CLOCK: Final = ""
"""The time by which limits drain and leases run out is Redis' own: gateways' clocks differ. Tests give another."""


def read_script(name: str) -> Script:
    """A Lua script of this package, with what the scripts have in common put in where they ask for it."""
    directory = Path(__file__).parent / "lua"
    common = (directory / "buckets.lua").read_text()
    return Script((directory / f"{name}.lua").read_text().replace("--@ buckets.lua\n", common))


RESERVE: Final = read_script("reserve")
SETTLE: Final = read_script("settle")
RESTORE: Final = read_script("restore")


def _split(*command: str | bytes | int) -> list[bytes]:
    """What stands between the marks of a packed command: ids as they are, numbers as `_bulk` packs them."""
    return pack(*command).replace(_ID_MARK.encode(), _NUMBER_MARK_PACKED).split(_NUMBER_MARK_PACKED)


_BULKS: Final = tuple(b"$%d\r\n%d\r\n" % (len(str(number)), number) for number in range(1024))
"""Of lifetimes and most counts of tokens."""


def _bulk(number: int) -> bytes:
    if 0 <= number < 1024:
        return _BULKS[number]
    digits = b"%d" % number
    return b"$%d\r\n%b\r\n" % (len(digits), digits)


class ReserveCall:
    """`reserve.lua` for one org and one admission plan."""

    def __init__(self, org_id: str, keys: tuple[str, ...], claim: bytes, arguments: tuple[str, ...]) -> None:
        self._start, self._middle, self._ids_end, _, _, self._end = _split(
            "EVALSHA",
            RESERVE.sha,
            2 + len(keys),
            redis_keys.reservation(org_id, _ID_MARK),
            redis_keys.reservation_deadlines(org_id),
            *keys,
            _ID_MARK,
            _NUMBER_MARK,
            _NUMBER_MARK,
            _NUMBER_MARK,
            claim,
            _SERVERS_CLOCK,
            *arguments,
        )

    def fill(self, request_id: bytes, amount_nano_usd: int, tokens: int, lifetime_s: int) -> bytes:
        """The call for one request."""
        numbers = b"".join((_bulk(amount_nano_usd), _bulk(tokens), _bulk(lifetime_s)))
        return b"".join((self._start, request_id, self._middle, request_id, self._ids_end, numbers, self._end))


class SettleCall:
    """`settle.lua` for one org."""

    def __init__(self, org_id: str) -> None:
        self._start, self._middle, self._ids_end, _, self._end = _split(
            "EVALSHA",
            SETTLE.sha,
            2,
            redis_keys.reservation(org_id, _ID_MARK),
            redis_keys.reservation_deadlines(org_id),
            _ID_MARK,
            _NUMBER_MARK,
            _NUMBER_MARK,
            _SERVERS_CLOCK,
        )

    def fill(self, request_id: bytes, cost_nano_usd: int, tokens: int) -> bytes:
        """The call for one request."""
        numbers = b"".join((_bulk(cost_nano_usd), _bulk(tokens)))
        return b"".join((self._start, request_id, self._middle, request_id, self._ids_end, numbers, self._end))
