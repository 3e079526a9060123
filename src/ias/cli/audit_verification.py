"""Whether an export of the audit log is what identity wrote: nothing changed, removed, inserted, moved or cut off.

Needs the file and identity's public keys, and nothing of the platform itself. Reads a line at a time, whatever the file's size.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from ias.contracts.audit_chain import CHECKPOINT_TYPE, FIRST_HASH, hash_entry

_ALGORITHM = "Ed25519"


class BrokenError(Exception):
    """The export proves nothing; says what is wrong first."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a chain ended at a time, as identity signed it."""

    chain_id: str
    sequence: int
    hash: str
    at: str


@dataclass(slots=True)
class Proof:
    """What an export was found to hold."""

    chain_id: str = ""
    entries: int = 0
    gaps: int = 0
    last_sequence: int = 0
    signed_at: str = ""
    """When its end was signed."""


@dataclass(slots=True)
class _Walk:
    partial: bool
    checkpoints: dict[int, Checkpoint]
    proof: Proof = field(default_factory=Proof)
    previous_hash: str = FIRST_HASH


def read_key_set(document: Any) -> KeySet:
    """Identity's public keys, from the JSON it publishes.

    Raises:
        ValueError: that is no key set.
    """
    try:
        return KeySet.import_key_set(document)
    except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("no JSON Web Key Set") from error


def read_checkpoints(lines: Iterable[bytes], keys: KeySet) -> list[Checkpoint]:
    """The checkpoints of an export, whose signatures hold. Raises BrokenError."""
    found = []
    for number, line in enumerate(lines, start=1):
        checkpoint = _parse(line, number).get("checkpoint")
        if checkpoint is None:
            break
        found.append(_open_checkpoint(checkpoint, keys, number))
    return found


def verify(lines: Iterable[bytes], keys: KeySet, *, earlier: Iterable[Checkpoint] = (), partial: bool = False) -> Proof:
    """Walk an export from its first line to its last.

    `earlier` are checkpoints of before, of another export say: what they saw must still be there. `partial` is for an export
    that was filtered: entries may be left out, those that are there must be true.

    Raises:
        BrokenError: see there.
    """
    walk = _Walk(partial, {checkpoint.sequence: checkpoint for checkpoint in earlier})
    for number, line in enumerate(lines, start=1):
        content = _parse(line, number)
        if "checkpoint" in content:
            checkpoint = _open_checkpoint(content["checkpoint"], keys, number)
            _check_chain(walk, checkpoint.chain_id, f"line {number}")
            known = walk.checkpoints.setdefault(checkpoint.sequence, checkpoint)
            if known.hash != checkpoint.hash or known.chain_id != checkpoint.chain_id:
                raise BrokenError(f"line {number}: entry {checkpoint.sequence} was signed with two different hashes")
        else:
            _check_entry(walk, content["entry"], f"line {number}")
    _check_end(walk)
    return walk.proof


def _check_entry(walk: _Walk, entry: dict[str, Any], place: str) -> None:
    proof, sequence = walk.proof, entry.get("sequence")
    if not isinstance(sequence, int) or isinstance(sequence, bool):
        raise BrokenError(f"{place}: an entry without a sequence number")
    expected = proof.last_sequence + 1
    if sequence < expected or (sequence > expected and not walk.partial):
        raise BrokenError(f"{place}: entry {sequence} stands where entry {expected} should")
    _check_chain(walk, str(entry.get("chain_id")), place)
    if sequence == expected and entry.get("previous_hash") != walk.previous_hash:
        raise BrokenError(f"{place}: entry {sequence} does not follow from the entry before it")
    try:
        fits = hash_entry(entry) == entry.get("hash")
    except (ValueError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise BrokenError(f"{place}: entry {sequence} does not fit its hash: it was changed")
    checkpoint = walk.checkpoints.get(sequence)
    if checkpoint is not None and checkpoint.hash != entry["hash"]:
        raise BrokenError(f"{place}: entry {sequence} is not the one that was signed at {checkpoint.at}")
    proof.gaps += sequence != expected
    proof.entries += 1
    proof.last_sequence, walk.previous_hash = sequence, entry["hash"]


def _check_chain(walk: _Walk, chain_id: str, place: str) -> None:
    walk.proof.chain_id = walk.proof.chain_id or chain_id
    if chain_id != walk.proof.chain_id:
        raise BrokenError(f"{place}: it belongs to chain {chain_id}, the ones before to {walk.proof.chain_id}")


def _check_end(walk: _Walk) -> None:
    if not walk.checkpoints:
        raise BrokenError("there is no signed checkpoint: whether the end was cut off cannot be seen")
    last = walk.checkpoints[max(walk.checkpoints)]
    if last.chain_id != walk.proof.chain_id:
        raise BrokenError(f"the checkpoint of {last.at} is of another chain, {last.chain_id}")
    ended = walk.proof.last_sequence
    if ended < last.sequence and not walk.partial:
        raise BrokenError(f"the end is missing: entries {ended + 1} to {last.sequence} were there at {last.at}")
    if ended > last.sequence:
        raise BrokenError(f"no checkpoint covers the entries after {last.sequence}")
    walk.proof.signed_at = last.at


def _parse(line: bytes, number: int) -> dict[str, Any]:
    try:
        content = json.loads(line, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and len(content) == 1:
        held = content.get("entry", content.get("checkpoint"))
        if isinstance(held, dict if "entry" in content else str):
            return content
    raise BrokenError(f"line {number}: neither an entry nor a checkpoint")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different: of two values one would be shown and the other checked."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name stands twice")
    return content


def _open_checkpoint(signed: str, keys: KeySet, number: int) -> Checkpoint:
    try:
        opened = jws.deserialize_compact(signed, keys, algorithms=[_ALGORITHM])
        payload = json.loads(opened.payload)
        checkpoint = Checkpoint(
            str(payload["chain_id"]), int(payload["sequence"]), str(payload["hash"]), str(payload["at"])
        )
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise BrokenError(f"line {number}: the checkpoint was not signed with a key of the key set") from error
    if opened.headers().get("typ") != CHECKPOINT_TYPE:
        raise BrokenError(f"line {number}: what was signed is no checkpoint")
    return checkpoint
