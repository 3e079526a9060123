"""Where a backend may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ias.kit.egress import EgressPolicy, EgressRefusedError, Resolve, remembering, system_resolver


def names(**known: list[str]) -> Resolve:
    """A name service that knows these names (written with `_` for `.`)."""

    async def resolve(host: str) -> list[str]:
        return known.get(host.replace(".", "_"), [])

    return resolve


OPEN = EgressPolicy(allow_loopback=True, allow_private_networks=True, resolve=names())
PRIVATE = EgressPolicy(allow_loopback=False, allow_private_networks=True, resolve=names())
PUBLIC = EgressPolicy(allow_loopback=False, allow_private_networks=False, resolve=names())


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("http://10.0.0.7:8000/v1", "http://10.0.0.7:8000/v1"),
        ("http://10.0.0.7:8000/v1/", "http://10.0.0.7:8000/v1"),
        ("http://10.0.0.7:8000", "http://10.0.0.7:8000/v1"),
        ("HTTPS://API.Example.COM:443/openai/v1//", "https://api.example.com/openai/v1"),
        ("http://vllm-0.vllm.models.svc.cluster.local.:80", "http://vllm-0.vllm.models.svc.cluster.local/v1"),
        ("http://[2001:DB8::1]:8000/v1", "http://[2001:db8::1]:8000/v1"),
        ("http://localhost:11434/v1", "http://localhost:11434/v1"),
        ("https://example.com:8443/a/b", "https://example.com:8443/a/b"),
    ],
)
def test_a_url_has_one_spelling(written: str, normalised: str) -> None:
    assert OPEN.normalise(written) == normalised
    assert OPEN.normalise(normalised) == normalised


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/v1",
        "http://169.254.170.2/v1",
        "http://[fe80::1]/v1",
        "http://[fd00:ec2::254]/v1",
        "http://[fd20:ce::254]/v1",
        "http://100.100.100.200/v1",
        "http://168.63.129.16/v1",
        "http://192.0.0.192/v1",
        "http://metadata.google.internal/v1",
        "http://METADATA.google.internal./v1",
        "http://metadata/v1",
        "http://instance-data/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://[::ffff:a9fe:a9fe]/v1",
        "http://[64:ff9b::a9fe:a9fe]/v1",
        "http://[2002:a9fe:a9fe::1]/v1",
        "http://[::169.254.169.254]/v1",
        "http://[2001:0:4136:e378:8000:63bf:5601:5601]/v1",
    ],
)
def test_metadata_and_link_local_are_refused_whatever_the_settings(url: str) -> None:
    with pytest.raises(EgressRefusedError):
        OPEN.normalise(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/v1",
        "http://127.9.9.9/v1",
        "http://[::1]/v1",
        "http://[::ffff:127.0.0.1]/v1",
        "http://localhost/v1",
        "http://LOCALHOST./v1",
        "http://api.localhost/v1",
    ],
)
def test_loopback_is_for_those_who_allow_it(url: str) -> None:
    OPEN.normalise(url)
    for policy in (PRIVATE, PUBLIC):
        with pytest.raises(EgressRefusedError):
            policy.normalise(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/v1",
        "http://172.16.0.1/v1",
        "http://192.168.1.1/v1",
        "http://100.64.0.1/v1",
        "http://[fd12:3456::1]/v1",
        "http://[::ffff:10.0.0.1]/v1",
        "http://[64:ff9b::10.0.0.1]/v1",
        "http://[fec0::1]/v1",
    ],
)
def test_private_networks_are_for_those_who_allow_them(url: str) -> None:
    PRIVATE.normalise(url)
    with pytest.raises(EgressRefusedError):
        PUBLIC.normalise(url)


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "https://8.8.8.8/v1", "https://[2606:4700::1111]/v1"])
def test_the_public_internet_is_allowed(url: str) -> None:
    PUBLIC.normalise(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "10.0.0.1:8000",
        "/v1",
        "ftp://10.0.0.1/v1",
        "file:///etc/passwd",
        "gopher://10.0.0.1/",
        "unix:///run/docker.sock",
        "http:///v1",
        "http://:80/v1",
        "http://user@10.0.0.1/v1",
        "http://user:secret@10.0.0.1/v1",
        "http://@10.0.0.1/v1",
        "http://10.0.0.1/v1?x=1",
        "http://10.0.0.1/v1?",
        "http://10.0.0.1/v1#x",
        "http://10.0.0.1:0/v1",
        "http://10.0.0.1:99999/v1",
        "http://10.0.0.1:port/v1",
        "http://10.0.0.1 /v1",
        "http://10.0.0.1\t/v1",
        "http://10.0.0.1\n/v1",
        "http://example.com\\@10.0.0.1/v1",
        "http://\uff12130706433/v1",
        "http://127\u30020\u30020\u30021/v1",
        "http://2130706433/v1",
        "http://0x7f000001/v1",
        "http://0x7f.1/v1",
        "http://127.1/v1",
        "http://0177.0.0.1/v1",
        "http://010.0.0.1/v1",
        "http://1.2.3.4.5/v1",
        "http://0/v1",
        "http://0.0.0.0/v1",
        "http://0.1.2.3/v1",
        "http://255.255.255.255/v1",
        "http://224.0.0.1/v1",
        "http://240.0.0.1/v1",
        "http://[::]/v1",
        "http://[ff02::1]/v1",
        "http://[fe80::1%25eth0]/v1",
        "http://[2001:db8::1%25eth0]/v1",
        "http://[::1/v1",
        "http://-host/v1",
        "http://host-/v1",
        "http://a..b/v1",
        "http://" + "a" * 64 + "/v1",
        "http://" + "a." * 127 + "aa/v1",
        "http://10.0.0.1/" + "a" * 2048,
    ],
)
def test_what_is_not_a_plain_url_of_one_server_is_refused(url: str) -> None:
    with pytest.raises(EgressRefusedError):
        OPEN.normalise(url)


@given(st.text(max_size=60).map(lambda text: "http://" + text) | st.text(max_size=60))
def test_any_text_is_normalised_or_refused_and_normalised_only_once(text: str) -> None:
    try:
        normalised = OPEN.normalise(text)
    except EgressRefusedError:
        return
    assert OPEN.normalise(normalised) == normalised


@given(st.ip_addresses(v=4).filter(lambda address: address.is_global) | st.ip_addresses(v=6))
def test_an_address_is_never_more_welcome_in_a_narrower_policy(address: object) -> None:
    url = f"http://[{address}]/v1" if ":" in str(address) else f"http://{address}/v1"
    verdicts = []
    for policy in (PUBLIC, PRIVATE, OPEN):
        try:
            policy.normalise(url)
            verdicts.append(1)
        except EgressRefusedError:
            verdicts.append(0)
    assert verdicts == sorted(verdicts)


@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.1", "::1", "fe80::1%2", "0.0.0.0"])
async def test_a_name_is_refused_for_any_address_it_has(address: str) -> None:
    policy = EgressPolicy(
        allow_loopback=False, allow_private_networks=True, resolve=names(rebound_example=["10.0.0.1", address])
    )
    with pytest.raises(EgressRefusedError):
        await policy.admit("http://rebound.example")
    with pytest.raises(EgressRefusedError):
        await policy.find_address("rebound.example")


async def test_a_name_that_nobody_knows_yet_is_admitted_but_has_no_address() -> None:
    assert await PUBLIC.admit("https://soon.example/v1") == "https://soon.example/v1"
    assert await PUBLIC.find_address("soon.example") is None


async def test_the_address_to_connect_to_is_the_one_that_was_checked() -> None:
    policy = EgressPolicy(
        allow_loopback=False, allow_private_networks=True, resolve=names(engine_internal=["10.0.0.9"])
    )
    assert await policy.find_address("engine.internal") == "10.0.0.9"


async def test_a_remembered_name_is_judged_each_time_and_an_unknown_one_asked_again() -> None:
    asked: list[str] = []

    async def resolve(host: str) -> list[str]:
        asked.append(host)
        return {"bad.example": ["127.0.0.1"], "good.example": ["10.0.0.9"]}.get(host, [])

    policy = EgressPolicy(allow_loopback=False, allow_private_networks=True, resolve=remembering(resolve, ttl_s=60))
    for _ in range(2):
        assert await policy.find_address("good.example") == "10.0.0.9"
        assert await policy.find_address("absent.example") is None
        with pytest.raises(EgressRefusedError):
            await policy.find_address("bad.example")
    assert sorted(asked) == ["absent.example", "absent.example", "bad.example", "good.example"]
    forgetful = remembering(resolve, ttl_s=0)
    await forgetful("good.example")
    await forgetful("good.example")
    assert asked.count("good.example") == 3


async def test_the_systems_resolver_answers_with_addresses_or_with_none() -> None:
    resolve = system_resolver(5.0)
    assert set(await resolve("localhost")) <= {"127.0.0.1", "::1"}
    assert await resolve("no-such-name.invalid") == []
    assert await resolve("a" * 70 + ".invalid") == []
