"""`ETag`, `If-Match` and `If-None-Match` (RFC 9110).

A tag is `"VERSION-DIGEST"`: the version of what is shown, which grows with every change of it, and a digest of the answer, in
which more may change (what a budget has spent). `If-Match` compares the versions: a change that was decided on an older one is
refused, not merged by chance. `If-None-Match` compares the whole: an answer that the caller has is not sent again. What has no
version has the digest alone for a tag.
"""

import hashlib
import json
import re

from ias.kit.problems import PreconditionFailedError

_TAG = re.compile(r'(W/)?"([^"]*)"')
_OURS = re.compile(r"([0-9]{1,18})(?:-[0-9a-f]{16})?")


def make_etag(body: bytes) -> str:
    """The tag of an answer, from its JSON."""
    digest = hashlib.sha256(body).hexdigest()[:16]
    document = json.loads(body)
    version = document.get("version") if isinstance(document, dict) else None
    return f'"{version}-{digest}"' if isinstance(version, int) else f'"{digest}"'


def check_if_match(header: str | None, version: int) -> None:
    """Return when a change may be made to that version: there is no header, or it is `*`, or it names the version.

    Weak tags, and tags that are none of ours, name nothing.

    Raises:
        PreconditionFailedError: the header names other versions.
    """
    if header is None or header.strip() == "*":
        return
    ours = (_OURS.fullmatch(tag) for weak, tag in _TAG.findall(header) if not weak)
    if version not in {int(found.group(1)) for found in ours if found}:
        raise PreconditionFailedError(f"It is at version {version} by now; look at it again.")


def is_known(header: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` says that the caller has what the tag is for. Compared weakly, as RFC 9110 has it."""
    if header is None:
        return False
    return header.strip() == "*" or any(f'"{tag}"' == etag for _, tag in _TAG.findall(header))
