"""A secret that somebody presents is never compared by `==`, which ends at the first byte that differs.

What is looked up is a SHA-256 of it: how far two digests agree tells nothing about the secret. Those are comparisons of columns.
"""

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "ias"
SECRET = re.compile(r"(^|_)(secret|token|signature|digest|otp|nonce|verifier|password|csrf)(_hash)?$")
OWN_ROWS = {"user.password_hash != candidate.password_hash", "now.password_hash != user.password_hash"}
"""Both sides are what the database had, at two moments."""


def name_of(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Constant(value=str(name)):
            return name
        case ast.Subscript(slice=inner):
            return name_of(inner)
        case ast.Call(func=function):
            return name_of(function)
    return ""


def find_comparisons(source: str) -> list[str]:
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
        and any(SECRET.search(name_of(side)) for side in (node.left, *node.comparators))
        and ".c." not in ast.unparse(node)
    ]


def test_no_secret_is_compared_in_a_time_that_tells_how_much_of_it_was_right() -> None:
    found = {
        f"{path.relative_to(SOURCE)}: {one}"
        for path in SOURCE.rglob("*.py")
        for one in find_comparisons(path.read_text())
    }
    assert {one for one in found if one.partition(": ")[2] not in OWN_ROWS} == set()


def test_such_a_comparison_would_be_found() -> None:
    for source in ("given == self._client_secret", "claims['nonce'] != nonce", "_sign(x) == signature", "a.token == b"):
        assert find_comparisons(source) == [source]
    assert find_comparisons("keys.c.digest == digest; token_version == 2; token is None") == []
