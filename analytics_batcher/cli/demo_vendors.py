"""The demo's vendors: where each one's messages go, and what each call of the world shall become there."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .. import CustomerIO, Segment, Vitally, __version__
from ..receiver import CustomerIOWire, SegmentWire, VitallyWire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..batch import Limits
    from ..destinations import Destination
    from ..receiver.wire import Wire
    from .demo_world import Call

_SITE: Final = "demo"
_ACCOUNT_TYPE: Final = "1"
_OBJECT_TYPES: Final = {"organization": "2", "support-ticket": "3"}


class Vendor(NamedTuple):
    """One vendor.

    Attributes:
        name: What the destination and the receiver's wire are called.
        title: What people call it.
        limits: What one request may come to.
        id_field: Where a message carries its id.
        destination: Makes the destination, of the receiver's URL and a secret.
        wire: Makes the receiver's wire, of the same secret.
        form: What a call shall become on the wire, but for id and time; `None` if the vendor has no such message.
    """

    name: str
    title: str
    limits: Limits
    id_field: str
    destination: Callable[[str, str], Destination]
    wire: Callable[[str], Wire]
    form: Callable[[Call], dict[str, Any] | None]

    def content(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message as it arrived, without its id and time: to be compared with a form.

        Args:
            message: The message.
        """
        return {field: value for field, value in message.items() if field not in {self.id_field, "timestamp"}}


def sender_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The name of the vendor whose messages these are: each vendor's have a look of their own."""
    first = messages[0]
    if "action" in first:
        return "customerio"
    return "segment" if "context" in first else "vitally"


# What calls become. It is written down here on its own, because a mapping that judged itself would always be right.


def _as_vitally(call: Call) -> dict[str, Any]:
    message = call.message()
    if message["type"] == "account":
        del message["userId"]  # which Segment needs, and Vitally does not know
    return message


def _as_customerio(call: Call) -> dict[str, Any]:
    message = call.message()
    match message:
        case {"type": "user", "userId": user, "accountId": account, "traits": traits}:
            return {**_person("identify", user, account), "attributes": _with_seconds(traits)}
        case {"type": "track", "userId": user, "event": event, "properties": properties}:
            return {**_person("event", user), "name": event, "attributes": properties}
        case {"type": "unlink", "userId": user, "accountId": account}:
            return _person("delete_relationships", user, account)
    return _as_object(message)


def _as_object(message: Mapping[str, Any]) -> dict[str, Any]:
    traits = message["traits"]
    match message:
        case {"type": "account", "accountId": account, "userId": user}:
            people = [{"identifiers": {"id": user}}]
            return {**_object(_ACCOUNT_TYPE, account), "attributes": traits, "cio_relationships": people}
        case {"type": "organization", "organizationId": organization}:
            return {**_object(_OBJECT_TYPES["organization"], organization), "attributes": traits}
    own = _object(_OBJECT_TYPES[message["customObjectId"]], message["externalId"])
    return {**own, "attributes": {**traits, "name": message["name"]}}


def _person(action: str, user: str, account: str | None = None) -> dict[str, Any]:
    operation: dict[str, Any] = {"type": "person", "action": action, "identifiers": {"id": user}}
    if account is not None:
        operation["cio_relationships"] = [{"identifiers": _identifiers(_ACCOUNT_TYPE, account)}]
    return operation


def _object(object_type: str, own: str) -> dict[str, Any]:
    return {"type": "object", "action": "identify", "identifiers": _identifiers(object_type, own)}


def _identifiers(object_type: str, own: str) -> dict[str, str]:
    return {"object_type_id": object_type, "object_id": own}


def _with_seconds(traits: Mapping[str, Any]) -> dict[str, Any]:
    """The one date-time of the world as this vendor wants it."""
    created = datetime.fromisoformat(traits["createdAt"].replace("Z", "+00:00"))
    return {**traits, "createdAt": int(created.timestamp())}


def _as_segment(call: Call) -> dict[str, Any] | None:
    context: dict[str, Any] = {"library": {"name": "analytics-batcher", "version": __version__}}
    match call.message():
        case {"type": "user", "userId": user, "accountId": account, "traits": traits}:
            context["groupId"] = account
            return {"type": "identify", "userId": user, "traits": traits, "context": context}
        case {"type": "track", "userId": user, "accountId": account, "event": event, "properties": properties}:
            context["groupId"] = account
            return {"type": "track", "userId": user, "event": event, "properties": properties, "context": context}
        case {"type": "account", "accountId": account, "userId": user, "traits": traits}:
            return {"type": "group", "userId": user, "groupId": account, "traits": traits, "context": context}
    return None


def _to_customerio(url: str, secret: str) -> Destination:
    return CustomerIO(_SITE, secret, base_url=url, object_type_id=_ACCOUNT_TYPE, object_types=_OBJECT_TYPES)


VITALLY: Final = Vendor(
    name="vitally",
    title="Vitally",
    limits=Vitally.limits,
    id_field=Vitally.id_field,
    destination=lambda url, secret: Vitally(api_token=secret, base_url=url),
    wire=VitallyWire,
    form=_as_vitally,
)
CUSTOMERIO: Final = Vendor(
    name="customerio",
    title="Customer.io",
    limits=CustomerIO.limits,
    id_field=CustomerIO.id_field,
    destination=_to_customerio,
    wire=lambda secret: CustomerIOWire(_SITE, secret),
    form=_as_customerio,
)
SEGMENT: Final = Vendor(
    name="segment",
    title="Segment",
    limits=Segment.limits,
    id_field=Segment.id_field,
    destination=lambda url, secret: Segment(secret, base_url=url),
    wire=SegmentWire,
    form=_as_segment,
)
VENDORS: Final = (VITALLY, CUSTOMERIO, SEGMENT)
