"""`ias audit verify`: what was done to an export is found and said in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from joserfc import jws
from joserfc.jwk import OKPKey

from ias.cli.audit import audit
from ias.contracts.audit_chain import CHECKPOINT_TYPE, FIRST_HASH, hash_entry
from ias.identity.core.audit_log import make_entry
from ias.kit.audit import Cause, Change, make_records

KEY = OKPKey.generate_key("Ed25519", parameters={"kid": "one"})
CHAIN = UUID(int=5)

Lines = list[dict[str, Any]]


def sign(sequence: int, digest: str, *, key: OKPKey = KEY, typ: str = CHECKPOINT_TYPE, at: str = "2030-01-01") -> str:
    payload = {"chain_id": str(CHAIN), "sequence": sequence, "hash": digest, "at": at}
    return jws.serialize_compact(
        {"alg": "Ed25519", "kid": key.kid, "typ": typ}, json.dumps(payload), key, algorithms=["Ed25519"]
    )


def build_entries(number: int) -> list[dict[str, Any]]:
    changes = [Change("project.update", UUID(int=i), CHAIN, {"name": "ä"}, {"name": f"n{i}"}) for i in range(number)]
    entries: list[dict[str, Any]] = []
    for record in make_records("identity", Cause("system", None), changes):
        previous = entries[-1]["hash"] if entries else FIRST_HASH
        entries.append(make_entry(record, CHAIN, len(entries) + 1, previous))
    return entries


@pytest.fixture
def lines() -> Lines:
    """Ten entries, signed at the sixth and at the end."""
    entries = build_entries(10)
    checkpoints = [{"checkpoint": sign(n, entries[n - 1]["hash"], at=f"2030-01-{n:02}")} for n in (6, 10)]
    return [*checkpoints, *({"entry": entry} for entry in entries)]


Verify = Callable[..., Result]


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}))

    def run(lines: Lines, *options: str, keys: str = str(jwks), earlier: Lines | None = None) -> Result:
        for name, content in (("export", lines), ("earlier", earlier or [])):
            (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in content))
        more = ["--earlier", str(tmp_path / "earlier")] if earlier else []
        return CliRunner().invoke(audit, ["verify", str(tmp_path / "export"), "--jwks", keys, *more, *options])

    return run


def rehash(entry: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """A forger's entry: changed, with a hash that fits."""
    forged = {**entry, **changed}
    return {**forged, "hash": hash_entry(forged)}


def test_an_export_that_nobody_touched_is_intact(lines: Lines, verify: Verify) -> None:
    result = verify(lines)
    assert result.exit_code == 0, result.output
    assert result.output == f"intact: 10 entries of chain {CHAIN} up to number 10; its end was signed at 2030-01-10\n"


TAMPERED: dict[str, tuple[Callable[[Lines], object], str]] = {
    "an entry was changed": (
        lambda lines: lines[5]["entry"]["after"].update(name="other"), "line 6: entry 4 does not fit its hash"),
    "a name was added": (lambda lines: lines[5]["entry"].update(note="x"), "line 6: entry 4 does not fit its hash"),
    "an entry was changed and hashed again": (
        lambda lines: lines[5].update(entry=rehash(lines[5]["entry"], actor_id="other")),
        "line 7: entry 5 does not follow from the entry before it"),
    "the last entry was changed and hashed again": (
        lambda lines: lines[-1].update(entry=rehash(lines[-1]["entry"], actor_id="other")),
        "line 12: entry 10 is not the one that was signed at 2030-01-10"),
    "an entry was removed": (lambda lines: lines.pop(5), "line 6: entry 5 stands where entry 4 should"),
    "the first entry was removed": (lambda lines: lines.pop(2), "line 3: entry 2 stands where entry 1 should"),
    "two entries changed places": (
        lambda lines: lines.insert(4, lines.pop(5)), "line 5: entry 4 stands where entry 3 should"),
    "an entry was inserted": (
        lambda lines: lines.insert(5, {"entry": rehash(lines[5]["entry"], action="org.delete")}),
        "line 7: entry 4 stands where entry 5 should"),
    "the end was cut off": (
        lambda lines: lines.__delitem__(slice(-3, None)), "the end is missing: entries 8 to 10 were there at 2030-01-10"),
    "everything was cut off": (
        lambda lines: lines.__delitem__(slice(2, None)), "the end is missing: entries 1 to 10"),
    "the checkpoints were taken out": (lambda lines: lines.__delitem__(slice(0, 2)), "there is no signed checkpoint"),
    "the last checkpoint was taken out": (lambda lines: lines.pop(1), "no checkpoint covers the entries after 6"),
    "an entry of another chain": (
        lambda lines: lines.append({"entry": {**lines[-1]["entry"], "sequence": 11, "chain_id": str(UUID(int=6))}}),
        "line 13: it belongs to chain"),
    "a checkpoint signed by somebody else": (
        lambda lines: lines[1].update(
            checkpoint=sign(10, "0" * 64, key=OKPKey.generate_key("Ed25519", parameters={"kid": "one"}))),
        "line 2: the checkpoint was not signed with a key of the key set"),
    "a signature over something else": (
        lambda lines: lines[1].update(checkpoint=sign(10, "0" * 64, typ="JWT")), "line 2: what was signed is no checkpoint"),
    "something else": (lambda lines: lines.insert(3, {"note": {}}), "line 4: neither an entry nor a checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_found_and_where_it_begins_is_said_in_one_line(lines: Lines, verify: Verify, name: str) -> None:
    tamper, said = TAMPERED[name]
    tamper(lines)
    result = verify(lines)
    assert result.exit_code == 1, result.output
    assert said in str(result.exception or result.output) or said in result.output


def test_a_name_that_stands_twice_is_refused(lines: Lines, verify: Verify, tmp_path: Path) -> None:
    verify(lines)
    path = tmp_path / "export"
    path.write_text(path.read_text().replace('"action":', '"action": "org.delete", "action":', 1))
    result = CliRunner().invoke(audit, ["verify", str(path), "--jwks", str(tmp_path / "jwks.json")])
    assert result.exit_code == 1


def test_a_log_that_was_shortened_and_signed_again_is_found_by_an_earlier_export(lines: Lines, verify: Verify) -> None:
    entries = [line["entry"] for line in lines[2:]]
    shortened = [{"checkpoint": sign(8, entries[7]["hash"], at="2031")}, *lines[2:10]]
    assert verify(shortened).exit_code == 0
    result = verify(shortened, earlier=lines)
    assert result.exit_code == 1
    assert "the end is missing: entries 9 to 10" in result.output


def test_a_log_that_was_written_anew_is_found_by_an_earlier_export(lines: Lines, verify: Verify) -> None:
    anew = build_entries(12)
    forged = [{"checkpoint": sign(12, anew[-1]["hash"], at="2031")}, *({"entry": entry} for entry in anew)]
    assert verify(forged).exit_code == 0
    result = verify(forged, earlier=lines)
    assert result.exit_code == 1
    assert "entry 6 is not the one that was signed at 2030-01-06" in result.output


def test_a_filtered_export_is_proved_entry_by_entry_when_that_is_asked_for(lines: Lines, verify: Verify) -> None:
    filtered = lines[:4] + lines[6:8]
    assert verify(filtered).exit_code == 1
    result = verify(filtered, "--partial")
    assert (result.exit_code, "4 entries" in result.output, "1 gaps" in result.output) == (0, True, True)
    filtered[-1]["entry"]["actor_id"] = "other"
    assert verify(filtered, "--partial").exit_code == 1


def test_keys_that_cannot_be_had_are_another_failure_than_a_broken_log(
    lines: Lines, verify: Verify, tmp_path: Path
) -> None:
    (tmp_path / "no keys").write_text("[]")
    for keys in ("/nowhere/jwks.json", str(tmp_path / "no keys"), "http://127.0.0.1:1/jwks.json"):
        result = verify(lines, keys=keys)
        assert result.exit_code == 3, result.output


def test_an_export_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IAS_TOKEN", raising=False)
    result = CliRunner().invoke(audit, ["export"])
    assert (result.exit_code, "IAS_TOKEN" in result.output) == (1, True)


def test_an_export_that_fails_leaves_no_file(tmp_path: Path) -> None:
    target = tmp_path / "log.ndjson"
    result = CliRunner().invoke(
        audit, ["export", "--url", "http://127.0.0.1:1", "-o", str(target)], env={"IAS_TOKEN": "x"}
    )
    assert (result.exit_code, target.exists()) == (3, False)
