"""The keys that verify this platform's tokens, published for everybody."""

from typing import Any

from ias.identity.api.parts import PartsOf
from ias.kit.authorization import public
from ias.kit.routing import Router
from ias.kit.web import Answer

router = Router(prefix="/identity/v1/.well-known", tags=["signing keys"])


class JwksAnswer(Answer):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, Any]]


@router.get("/jwks.json", openapi_extra=public("public keys"))
async def get_jwks(parts: PartsOf) -> JwksAnswer:
    """Every key with which a token that may still be valid was signed, and the one that signs next."""
    return JwksAnswer.model_validate(await parts.signing_keys.get_jwks())


@router.get("/audit-jwks.json", openapi_extra=public("public keys"))
async def get_audit_jwks(parts: PartsOf) -> JwksAnswer:
    """Every key that ever signed, for checking the audit log's checkpoints. Tokens are checked with `jwks.json`."""
    return JwksAnswer.model_validate(await parts.signing_keys.get_every_public_key())
