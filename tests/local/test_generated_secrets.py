"""Secrets of a platform: made once, private, never silently replaced."""

import base64
import hashlib
import stat
from pathlib import Path

import pytest

from ias.local.errors import PlatformError
from ias.local.generated_secrets import load_or_generate


def test_secrets_stay_the_same_from_one_start_to_the_next(tmp_path: Path):
    first = load_or_generate(tmp_path / "secrets.json")
    assert load_or_generate(tmp_path / "secrets.json") == first


def test_two_platforms_share_no_secret(tmp_path: Path):
    one = load_or_generate(tmp_path / "one.json")
    other = load_or_generate(tmp_path / "other.json")
    assert one.secret_key != other.secret_key
    assert one.admin_password != other.admin_password


def test_only_the_owner_can_read_the_secrets(tmp_path: Path):
    load_or_generate(tmp_path / "secrets.json")
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_the_root_secret_is_32_bytes_and_identity_is_told_only_a_digest(tmp_path: Path):
    made = load_or_generate(tmp_path / "secrets.json")
    assert len(base64.b64decode(made.secret_key)) == 32
    assert made.service_secret_digest == hashlib.sha256(made.service_secret.encode()).hexdigest()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"secret_key": "x"}'])
def test_damaged_secrets_are_an_error_and_not_replaced(tmp_path: Path, content: str):
    path = tmp_path / "secrets.json"
    path.write_text(content)
    with pytest.raises(PlatformError, match="damaged"):
        load_or_generate(path)
    assert path.read_text() == content
