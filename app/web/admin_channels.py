"""Admin, channels: how long each waits for more messages, when it hands over to a human, and who hears what is said.
Admins only: channels are the house's."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, get, patch
from litestar.params import JSONBody, PathParameter
from msgspec import UNSET, Meta, UnsetType

from app.domain import agents
from app.domain.agents import Instance
from app.flows import attend
from app.web.admin import seen
from app.web.admin_conversations import admin
from app.web.bodies import Line, Text, exact
from app.web.handler import Req, TheShop
from app.web.params import MAX_ID

ChannelId = Annotated[int, PathParameter(ge=1, le=MAX_ID)]
Keywords = Annotated[list[Annotated[Line, Meta(max_length=100)]], Meta(max_length=100)]


class ChannelEdit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to change: fields that are left out stay. `version` (or `If-Match`) is the one that you have seen."""

    version: Annotated[int, Meta(ge=1, le=MAX_ID)] | UnsetType = UNSET
    name: Annotated[Text, Meta(max_length=100)] | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    quiet_ms: Annotated[int, Meta(ge=0, le=60_000)] | UnsetType = UNSET
    most: Annotated[int, Meta(ge=1, le=10)] | UnsetType = UNSET
    escalation_enabled: bool | UnsetType = UNSET
    escalation_threshold: Annotated[int, Meta(ge=1, le=5)] | UnsetType = UNSET
    escalation_keywords: Keywords | UnsetType = UNSET
    endpoint_id: UUID | UnsetType | None = UNSET


class ChannelList(msgspec.Struct, frozen=True):
    channels: list[Instance]


@get("/api/admin/channels", limits=("address", "admin"))
async def list_channels(request: Req, shop: TheShop) -> ChannelList:
    """All channels."""
    await admin(request, shop)
    return ChannelList(await agents.instances(shop.deps.pg))


@patch("/api/admin/channels/{channel_id:int}", limits=("address", "admin"))
async def change_channel(
    request: Req, channel_id: ChannelId, data: JSONBody[ChannelEdit], shop: TheShop
) -> Response[Instance]:
    """The fields that you send are changed, unless somebody changed the channel after the version that you name; doors
    and workers follow within seconds."""
    user_id = await admin(request, shop)
    body = await exact(request, ChannelEdit)
    version = seen(request, body.version)
    fields = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
    fields.pop("version", None)
    changed = await attend.change(shop, user_id, channel_id, version, fields)
    return Response(changed, headers={"ETag": f'"{changed.version}"'})
