"""The calls that make messages, in the neutral form, which is Vitally's wire form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .stamp import SEGMENT_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    Identifier = str | int | UUID
    Moment = datetime | float | str


_OF_OTHERS: Final = frozenset({"context", "integrations", "anonymousId"})


class Calls:
    """What an application calls. Each call returns at once, never raises for its data, and changes nothing it is given.

    Every call takes `timestamp`, the moment it is about: a `datetime` (naive: local time), Unix seconds, or ISO 8601
    text; the moment of the call if left out. And `message_id`: text of 1 to 99 characters by which the vendor knows
    repeats; one is made if left out. An id is text, a whole number or a UUID. `context`, `integrations` and
    `anonymous_id` are for Segment-shaped destinations.

    Every call returns whether the message was accepted into the buffer. If it was not, it is counted as dropped, with
    the reason; a client with `strict=True` raises `InvalidMessage`, `MessageTooLarge`, `QueueFull` or `ClientClosed`
    instead.
    """

    __slots__ = ()

    def _accept(  # noqa: PLR0917 - by position, which is cheaper
        self,
        message: dict[str, Any],
        timestamp: Any,
        message_id: Any,
        flags: int,
        field: str = "",
        content: Any = None,
    ) -> bool:
        """Take a message: `content` is to stand in its `field`; without `flags`, all else in it should be text."""
        raise NotImplementedError

    def identify(
        self,
        user_id: Identifier | None,
        traits: Mapping[str, Any] | None = None,
        *,
        account_id: Identifier | None = None,
        organization_id: Identifier | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        integrations: Mapping[str, Any] | None = None,
        anonymous_id: Identifier | None = None,
    ) -> bool:
        """Say who a user is.

        Args:
            user_id: Your id of the user.
            traits: What is known of the user: `name`, `email`, `createdAt`, `avatar` have a meaning to Vitally.
            account_id: The account that the user belongs to. Vitally needs this or `organization_id`.
            organization_id: The organization that the user belongs to.
            timestamp: See the class.
            message_id: See the class.
            context: See the class.
            integrations: See the class.
            anonymous_id: See the class.
        """
        message: dict[str, Any] = {"type": "user"}
        if user_id is not None:
            message["userId"] = user_id
        if account_id is not None:
            message["accountId"] = account_id
        if organization_id is not None:
            message["organizationId"] = organization_id
        flags = 0
        if context is not None or integrations is not None or anonymous_id is not None:
            flags = _add(message, context=context, integrations=integrations, anonymousId=anonymous_id)
        return self._accept(message, timestamp, message_id, flags, "traits", {} if traits is None else traits)

    def track(
        self,
        user_id: Identifier | None,
        event: str,
        properties: Mapping[str, Any] | None = None,
        *,
        account_id: Identifier | None = None,
        organization_id: Identifier | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        integrations: Mapping[str, Any] | None = None,
        anonymous_id: Identifier | None = None,
    ) -> bool:
        """Say that something happened.

        Args:
            user_id: Your id of the user; `None` where `account_id` or `organization_id` is given.
            event: The event's name.
            properties: What is to be said about it.
            account_id: The account it happened in: needed for users of several accounts.
            organization_id: The organization it happened in.
            timestamp: See the class.
            message_id: See the class.
            context: See the class.
            integrations: See the class.
            anonymous_id: See the class.
        """
        message: dict[str, Any] = {"type": "track", "event": event}
        if user_id is not None:
            message["userId"] = user_id
        if account_id is not None:
            message["accountId"] = account_id
        if organization_id is not None:
            message["organizationId"] = organization_id
        flags = 0
        if context is not None or integrations is not None or anonymous_id is not None:
            flags = _add(message, context=context, integrations=integrations, anonymousId=anonymous_id)
        return self._accept(
            message, timestamp, message_id, flags, "properties", {} if properties is None else properties
        )

    def account(
        self,
        account_id: Identifier,
        traits: Mapping[str, Any] | None = None,
        *,
        user_id: Identifier | None = None,
        organization_id: Identifier | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        integrations: Mapping[str, Any] | None = None,
        anonymous_id: Identifier | None = None,
    ) -> bool:
        """Say what an account is.

        Args:
            account_id: Your id of the account.
            traits: What is known of the account; Vitally asks for `name` at least.
            user_id: The user it concerns; for Segment-shaped destinations, which need one.
            organization_id: The organization that the account belongs to.
            timestamp: See the class.
            message_id: See the class.
            context: See the class.
            integrations: See the class.
            anonymous_id: See the class.
        """
        message: dict[str, Any] = {"type": "account", "accountId": account_id}
        flags = _add(
            message,
            organizationId=organization_id,
            userId=user_id,
            context=context,
            integrations=integrations,
            anonymousId=anonymous_id,
        )
        return self._accept(message, timestamp, message_id, flags, "traits", traits)

    def organization(
        self,
        organization_id: Identifier,
        traits: Mapping[str, Any] | None = None,
        *,
        timestamp: Moment | None = None,
        message_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        integrations: Mapping[str, Any] | None = None,
        anonymous_id: Identifier | None = None,
    ) -> bool:
        """Say what an organization is. Vitally takes it where the organization level is switched on.

        Args:
            organization_id: Your id of the organization.
            traits: What is known of the organization.
            timestamp: See the class.
            message_id: See the class.
            context: See the class.
            integrations: See the class.
            anonymous_id: See the class.
        """
        message: dict[str, Any] = {"type": "organization", "organizationId": organization_id}
        flags = _add(message, context=context, integrations=integrations, anonymousId=anonymous_id)
        return self._accept(message, timestamp, message_id, flags, "traits", traits)

    def custom_object(
        self,
        external_id: Identifier,
        custom_object_id: Identifier,
        traits: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        account_id: Identifier | None = None,
        organization_id: Identifier | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        integrations: Mapping[str, Any] | None = None,
        anonymous_id: Identifier | None = None,
    ) -> bool:
        """Say what an instance of a custom object is.

        Args:
            external_id: Your id of the instance.
            custom_object_id: The vendor's id of the custom object, from its settings page's URL.
            traits: What is known of the instance.
            name: The instance's name.
            account_id: The account it belongs to. Vitally needs this or `organization_id`.
            organization_id: The organization it belongs to.
            timestamp: See the class.
            message_id: See the class.
            context: See the class.
            integrations: See the class.
            anonymous_id: See the class.
        """
        message: dict[str, Any] = {
            "type": "customobjectinstance",
            "externalId": external_id,
            "customObjectId": custom_object_id,
        }
        flags = _add(
            message,
            name=name,
            accountId=account_id,
            organizationId=organization_id,
            context=context,
            integrations=integrations,
            anonymousId=anonymous_id,
        )
        return self._accept(message, timestamp, message_id, flags, "traits", {} if traits is None else traits)

    def unlink(
        self,
        user_id: Identifier,
        account_id: Identifier,
        *,
        timestamp: Moment | None = None,
        message_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        integrations: Mapping[str, Any] | None = None,
        anonymous_id: Identifier | None = None,
    ) -> bool:
        """Say that a user no longer belongs to an account.

        Args:
            user_id: Your id of the user.
            account_id: Your id of the account.
            timestamp: See the class.
            message_id: See the class.
            context: See the class.
            integrations: See the class.
            anonymous_id: See the class.
        """
        message: dict[str, Any] = {"type": "unlink", "userId": user_id, "accountId": account_id}
        flags = _add(message, context=context, integrations=integrations, anonymousId=anonymous_id)
        return self._accept(message, timestamp, message_id, flags)

    def page(
        self,
        user_id: Identifier | None,
        name: str,
        properties: Mapping[str, Any] | None = None,
        *,
        timestamp: Moment | None = None,
        message_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        integrations: Mapping[str, Any] | None = None,
        anonymous_id: Identifier | None = None,
    ) -> bool:
        """Say that a page was seen. Vitally has no such message.

        Args:
            user_id: Your id of the user; `None` where `anonymous_id` is given.
            name: The page's name.
            properties: What is to be said about it.
            timestamp: See the class.
            message_id: See the class.
            context: See the class.
            integrations: See the class.
            anonymous_id: See the class.
        """
        message: dict[str, Any] = {"type": "page", "name": name, "properties": {} if properties is None else properties}
        flags = _add(message, userId=user_id, context=context, integrations=integrations, anonymousId=anonymous_id)
        return self._accept(
            message, timestamp, message_id, flags, "properties", {} if properties is None else properties
        )

    def screen(
        self,
        user_id: Identifier | None,
        name: str,
        properties: Mapping[str, Any] | None = None,
        *,
        timestamp: Moment | None = None,
        message_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        integrations: Mapping[str, Any] | None = None,
        anonymous_id: Identifier | None = None,
    ) -> bool:
        """Say that a screen of an app was seen. Vitally has no such message.

        Args:
            user_id: Your id of the user; `None` where `anonymous_id` is given.
            name: The screen's name.
            properties: What is to be said about it.
            timestamp: See the class.
            message_id: See the class.
            context: See the class.
            integrations: See the class.
            anonymous_id: See the class.
        """
        message: dict[str, Any] = {"type": "screen", "name": name}
        flags = _add(message, userId=user_id, context=context, integrations=integrations, anonymousId=anonymous_id)
        return self._accept(
            message, timestamp, message_id, flags, "properties", {} if properties is None else properties
        )

    def alias(
        self,
        previous_id: Identifier,
        user_id: Identifier,
        *,
        timestamp: Moment | None = None,
        message_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        integrations: Mapping[str, Any] | None = None,
        anonymous_id: Identifier | None = None,
    ) -> bool:
        """Say that a user is known by another id from now on. Vitally has no such message.

        Args:
            previous_id: The id so far.
            user_id: The id from now on. Customer.io merges the first person into this one, which cannot be undone.
            timestamp: See the class.
            message_id: See the class.
            context: See the class.
            integrations: See the class.
            anonymous_id: See the class.
        """
        message: dict[str, Any] = {"type": "alias", "previousId": previous_id, "userId": user_id}
        flags = _add(message, context=context, integrations=integrations, anonymousId=anonymous_id)
        return self._accept(message, timestamp, message_id, flags)


def _add(message: dict[str, Any], **fields: Any) -> int:
    """Add the fields that are given; the flags that the record gets for them."""
    given = {field: value for field, value in fields.items() if value is not None}
    message.update(given)
    return segment_flags(message)


def segment_flags(message: Mapping[str, Any]) -> int:
    """The flags of a message's record for fields that are for Segment-shaped destinations only."""
    others = _OF_OTHERS | {"userId"} if message["type"] == "account" else _OF_OTHERS
    return 0 if others.isdisjoint(message) else SEGMENT_FIELDS
