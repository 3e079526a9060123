"""A sealed secret opens for its purpose on its platform, and nowhere else."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ias.kit.sealing import SealBrokenError, Sealer, decode_secret_key

SEALER = Sealer(bytes(32), "backend credentials")


@settings(max_examples=30)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_what_was_sealed_opens_and_does_not_show(secret: str) -> None:
    sealed = SEALER.seal(secret)
    assert SEALER.open(sealed) == secret
    assert len(secret) < 4 or secret not in sealed
    assert sealed.isascii()


def test_the_same_secret_never_looks_the_same() -> None:
    assert SEALER.seal("s") != SEALER.seal("s")


def test_another_purpose_or_platform_cannot_open_it() -> None:
    sealed = SEALER.seal("s")
    for other in (Sealer(bytes(32), "something else"), Sealer(b"1" * 32, "backend credentials")):
        with pytest.raises(SealBrokenError):
            other.open(sealed)


def test_a_changed_text_does_not_open() -> None:
    sealed = SEALER.seal("s")
    for broken in (sealed[:-4], sealed[:30] + ("A" if sealed[30] != "A" else "B") + sealed[31:], "", "plain"):
        with pytest.raises(SealBrokenError):
            SEALER.open(broken)


def test_the_root_secret_is_32_bytes_in_base64() -> None:
    assert decode_secret_key(base64.b64encode(b"k" * 32).decode()) == b"k" * 32
    for wrong in ("", "short", base64.b64encode(b"k" * 31).decode(), "!" * 44):
        with pytest.raises(ValueError, match=r".+"):
            decode_secret_key(wrong)
