"""`/billing/v1/orgs/{org_id}/spending-settings`."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from ias.billing.api.parts import SpendingSettingsPart
from ias.billing.api.schemas import UsdText
from ias.billing.core.spending_settings import ChangedSettings
from ias.billing.store.spending_settings import SpendingSettings
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.contracts.spending import QUEUE_WEIGHT_MAX, QUEUE_WEIGHT_USUAL, Unpriced
from ias.kit.authorization import Access, requires
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/billing/v1/orgs/{org_id}/spending-settings", tags=["spending settings"])

TimeZoneName = Annotated[str, Field(min_length=1, max_length=64, examples=["Europe/Berlin"])]


class SpendingSettingsChange(Body):
    """What may be changed; what is absent stays."""

    time_zone: TimeZoneName | None = Field(
        None,
        description="Of budgets that are made without one; those there are keep theirs. A name of the IANA database.",
    )
    unpriced: Unpriced | None = Field(
        None,
        description="Requests for models without a price: `refuse` them, or `allow` them at no cost, booked as `unpriced`. Null: as"
        " the gateway's settings say. For platform admins.",
    )
    unguarded_usd: UsdText | None = Field(
        None,
        description="While Redis is away no budget or rate limit can be asked. Null: requests are refused then (503). Else each"
        " gateway worker serves the org's known keys for so much in one outage, by the most that requests can cost; what was"
        " spent is counted when Redis is back.",
    )
    queue_weight: int | None = Field(
        None,
        ge=1,
        le=QUEUE_WEIGHT_MAX,
        description="Where a model's servers are full, orgs that wait are given work in proportion to their weights: twice the"
        f" weight is twice the share. Null: the usual {QUEUE_WEIGHT_USUAL}. For platform admins.",
    )


class SpendingSettingsAnswer(Answer):
    """What an org says of its spending in general."""

    org_id: UUID
    time_zone: str
    unpriced: Unpriced | None
    unguarded_usd: str | None
    queue_weight: int
    version: int
    updated_at: datetime | None


@router.get("")
async def get_spending_settings(
    org_id: UUID,
    access: Annotated[Access, requires(Permission.BUDGETS_READ)],
    settings: SpendingSettingsPart,
) -> SpendingSettingsAnswer:
    """What an org says of its spending in general. Until it says something: UTC, and the gateway's settings."""
    return _render(await settings.get(access.in_org(str(org_id))))


@router.patch("")
async def change_spending_settings(
    org_id: UUID,
    body: SpendingSettingsChange,
    access: Annotated[Access, requires(Permission.BUDGETS_WRITE)],
    settings: SpendingSettingsPart,
) -> SpendingSettingsAnswer:
    """Change what an org says of its spending in general."""
    scope = access.in_org(str(org_id))
    says_unpriced, says_weight = (name in body.model_fields_set for name in ("unpriced", "queue_weight"))
    if says_unpriced or says_weight:
        access.on_platform()
    changed = ChangedSettings(
        body.time_zone,
        body.unpriced,
        forget_unpriced=says_unpriced and body.unpriced is None,
        unguarded_usd=body.unguarded_usd,
        forget_unguarded="unguarded_usd" in body.model_fields_set and body.unguarded_usd is None,
        queue_weight=(body.queue_weight or QUEUE_WEIGHT_USUAL) if says_weight else None,
    )
    return _render(await settings.change(scope, changed))


def _render(settings: SpendingSettings) -> SpendingSettingsAnswer:
    unguarded = settings.unguarded_nano_usd
    return SpendingSettingsAnswer(
        org_id=settings.org_id,
        time_zone=settings.time_zone,
        unpriced=settings.unpriced,
        unguarded_usd=None if unguarded is None else format_usd(unguarded),
        queue_weight=settings.queue_weight,
        version=settings.version,
        updated_at=settings.updated_at,
    )
