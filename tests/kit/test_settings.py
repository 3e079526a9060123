"""Settings of a wrong form are refused when they are read, by the variable's name and never with the value."""

import base64

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from ias.kit.settings import BusUrl, DatabaseUrl, ProcessSettings, RedisUrl, SecretKey

KEY = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (SecretKey, KEY),
        (RedisUrl, "redis://127.0.0.1:6379/0"),
        (RedisUrl, "rediss://:password@[::1]:6379"),
        (RedisUrl, "unix:///run/redis.sock"),
        (BusUrl, "amqps://user:password@rabbit.example:5671/vhost"),
        (BusUrl, "redis://:password@redis/1"),
        (DatabaseUrl, "postgresql://user:pass/word@127.0.0.1:5432/ias_identity"),
        (DatabaseUrl, "postgresql://user@[::1]/ias_identity?ssl=require"),
        (DatabaseUrl, "postgresql:///ias_identity?host=/run/postgresql"),
    ],
)
def test_what_has_the_right_form_is_taken_as_it_stands(kind: object, value: str):
    taken: SecretStr = TypeAdapter(kind).validate_python(value)
    assert taken.get_secret_value() == value


@pytest.mark.parametrize(
    ("kind", "value", "form"),
    [
        (SecretKey, "", "base64 of 32 bytes"),
        (SecretKey, "hunter2-hunter2", "base64 of 32 bytes"),
        (SecretKey, KEY[:-8], "base64 of 32 bytes"),
        (RedisUrl, "hunter2", "redis://"),
        (RedisUrl, "http://hunter2@redis:6379", "redis://"),
        (RedisUrl, "redis://:hunter2@redis:port", "redis://"),
        (BusUrl, "kafka://hunter2", "amqp://"),
        (DatabaseUrl, "hunter2", "postgresql://"),
        (DatabaseUrl, "mysql://user:hunter2@host/name", "postgresql://"),
        (DatabaseUrl, "postgresql://user:hunter2@host:port/name", "postgresql://"),
    ],
)
def test_what_has_a_wrong_form_is_refused_without_being_shown(kind: object, value: str, form: str):
    with pytest.raises(ValidationError, match=form) as caught:
        TypeAdapter(kind).validate_python(value)
    assert "hunter2" not in caught.value.errors()[0]["msg"]


def test_a_traceback_of_wrong_settings_holds_no_value():
    with pytest.raises(ValidationError) as caught:
        ProcessSettings(secret_key=KEY, redis_url="http://hunter2")  # type: ignore[arg-type]
    assert "redis_url" in str(caught.value)
    assert "hunter2" not in str(caught.value)
