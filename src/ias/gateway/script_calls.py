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


def _template(*command: str | bytes | int) -> bytes:
    """A packed command in which marks have become places for `%`: ids as they are, numbers as `_bulk` packs them."""
    packed = pack(*command).replace(b"%", b"%%")
    return packed.replace(_ID_MARK.encode(), b"%b").replace(_NUMBER_MARK_PACKED, b"%b")


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
        self._template = _template(
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
        return self._template % (request_id, request_id, _bulk(amount_nano_usd), _bulk(tokens), _bulk(lifetime_s))


class SettleCall:
    """`settle.lua` for one org."""

    def __init__(self, org_id: str) -> None:
        self._template = _template(
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
        return self._template % (request_id, request_id, _bulk(cost_nano_usd), _bulk(tokens))
