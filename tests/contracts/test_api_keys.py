"""Keys are unguessable, and a typo is seen without looking anything up."""

import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from ias.contracts.api_keys import KEY_LENGTH, KEY_PREFIX, digest_key, generate_key, has_valid_checksum, redact_key

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_new_key_has_its_form_and_its_checksum() -> None:
    for _ in range(200):
        key = generate_key()
        assert re.fullmatch(r"ias-sk-[0-9A-Za-z]{49}", key)
        assert len(key) == KEY_LENGTH
        assert has_valid_checksum(key)
        assert has_valid_checksum(key.encode())


def test_keys_do_not_repeat_and_use_the_whole_alphabet() -> None:
    keys = {generate_key() for _ in range(2000)}
    assert len(keys) == 2000
    assert set("".join(key.removeprefix(KEY_PREFIX) for key in keys)) == set(ALPHABET)


@given(st.data())
def test_any_one_changed_character_is_seen(data: st.DataObject) -> None:
    key = generate_key()
    place = data.draw(st.integers(0, KEY_LENGTH - 1))
    typo = data.draw(st.sampled_from(ALPHABET + "-_ ").filter(lambda character: character != key[place]))
    assert not has_valid_checksum(key[:place] + typo + key[place + 1 :])


@given(st.data())
def test_two_swapped_neighbours_are_seen(data: st.DataObject) -> None:
    key = generate_key()
    place = data.draw(st.integers(len(KEY_PREFIX), KEY_LENGTH - 2))
    swapped = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    assert swapped == key or not has_valid_checksum(swapped)


@given(st.text(max_size=80) | st.binary(max_size=80))
def test_any_other_text_is_no_key(text: str | bytes) -> None:
    assert not has_valid_checksum(text)


def test_a_key_that_is_cut_or_longer_is_none() -> None:
    key = generate_key()
    for wrong in (key[:-1], key + "0", " " + key[1:], key.upper(), key[len(KEY_PREFIX) :], ""):
        assert not has_valid_checksum(wrong)


def test_what_is_stored_is_the_sha_256_of_either_form() -> None:
    key = generate_key()
    assert digest_key(key) == digest_key(key.encode()) == hashlib.sha256(key.encode()).hexdigest()


def test_a_redacted_key_is_recognisable_and_useless() -> None:
    key = generate_key()
    shown = redact_key(key)
    assert shown.startswith(key[:11])
    assert shown.endswith(key[-4:])
    assert len(shown) < 20
