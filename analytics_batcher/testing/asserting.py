"""The assertions of a recorder."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Final, NoReturn
from uuid import UUID

from ..errors import DropReason, InvalidMessage
from ..given import timestamp as text_of_moment
from .matching import ABSENT, ANY, Difference, Including, differences, equals
from .telling import counted, line_of, lines_of, lines_of_differences, lines_of_drops, lines_of_fields, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..stats import Drop, Stats

_CONTENT: Final = frozenset({"properties", "traits"})
_STAMP: Final = frozenset({"messageId", "timestamp"})
_NEAREST: Final = 3
_LOOKED_AT: Final = 1_000


class Assertions:
    """What a recorder asserts. A failure says what was expected, what is nearest to it, and what was dropped.

    Values are compared as JSON has them: `Decimal("9.90")`, a date or an enum may be given as the application gives it.
    A dict must be equal as a whole; `including(plan="pro")` equals what has at least this. `ANY`, the default, asks for
    nothing, and `None` says that the message has no such field. In the place of a value may stand whatever knows by
    `==` what it equals: `unittest.mock.ANY`, `pytest.approx`, the types of `dirty-equals`.

    `times` is how many such messages there are; `None`: at least one; 0: none. Each assertion returns them.
    """

    _default: Callable[[Any], Any] | None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What was recorded."""
        raise NotImplementedError

    @property
    def dropped(self) -> list[Drop]:
        """What was dropped."""
        raise NotImplementedError

    def stats(self) -> Stats:
        """The figures."""
        raise NotImplementedError

    def assert_tracked(
        self,
        event: Any,
        *,
        user_id: Any = ANY,
        properties: Any = ANY,
        account_id: Any = ANY,
        organization_id: Any = ANY,
        anonymous_id: Any = ANY,
        context: Any = ANY,
        integrations: Any = ANY,
        timestamp: Any = ANY,
        message_id: Any = ANY,
        times: int | None = None,
    ) -> list[dict[str, Any]]:
        """Assert that something was tracked; see the class.

        Raises:
            AssertionError: If it was not, or not so many times.
        """
        __tracebackhide__ = True
        asked = {"event": event, "userId": user_id, "properties": properties, "accountId": account_id}
        asked |= {"organizationId": organization_id, "anonymousId": anonymous_id, "context": context}
        asked |= {"integrations": integrations, "timestamp": timestamp, "messageId": message_id}
        return self._assert("track", asked, times)

    def assert_identified(
        self,
        user_id: Any,
        *,
        traits: Any = ANY,
        account_id: Any = ANY,
        organization_id: Any = ANY,
        anonymous_id: Any = ANY,
        context: Any = ANY,
        integrations: Any = ANY,
        timestamp: Any = ANY,
        message_id: Any = ANY,
        times: int | None = None,
    ) -> list[dict[str, Any]]:
        """Assert that a user was identified; see the class.

        Raises:
            AssertionError: If it was not, or not so many times.
        """
        __tracebackhide__ = True
        asked = {"userId": user_id, "traits": traits, "accountId": account_id, "organizationId": organization_id}
        asked |= {"anonymousId": anonymous_id, "context": context, "integrations": integrations}
        asked |= {"timestamp": timestamp, "messageId": message_id}
        return self._assert("user", asked, times)

    def assert_account(
        self,
        account_id: Any,
        *,
        traits: Any = ANY,
        user_id: Any = ANY,
        organization_id: Any = ANY,
        anonymous_id: Any = ANY,
        context: Any = ANY,
        integrations: Any = ANY,
        timestamp: Any = ANY,
        message_id: Any = ANY,
        times: int | None = None,
    ) -> list[dict[str, Any]]:
        """Assert that an account was described; see the class.

        Raises:
            AssertionError: If it was not, or not so many times.
        """
        __tracebackhide__ = True
        asked = {"accountId": account_id, "traits": traits, "userId": user_id, "organizationId": organization_id}
        asked |= {"anonymousId": anonymous_id, "context": context, "integrations": integrations}
        asked |= {"timestamp": timestamp, "messageId": message_id}
        return self._assert("account", asked, times)

    def assert_message(self, message: Any, *, times: int | None = None) -> list[dict[str, Any]]:
        """Assert that a message of any kind was recorded.

        Args:
            message: In neutral form, or native as it was given: a dict, whole but for `messageId` and `timestamp`,
                which may be left out; or `including(type="alias", userId="u2")`.
            times: See the class.

        Raises:
            AssertionError: If it was not, or not so many times.
        """
        __tracebackhide__ = True
        fields = message.fields if isinstance(message, Including) else message
        return self._judge(fields, lambda one: self._of_message(message, one), times)

    def assert_messages(self, expected: Sequence[Any]) -> None:
        """Assert that these messages were recorded, in this order, and no others.

        Args:
            expected: Each as for `assert_message`.

        Raises:
            AssertionError: If it was not so; it says which are missing, which too many, and which differ in what.
        """
        __tracebackhide__ = True
        found = self.messages
        lines = list(_compared(list(expected), found, self._of_message))
        if lines:
            self._fail([f"expected {counted(len(expected), 'message')}, found {len(found)}:", *lines])

    def assert_nothing(self) -> None:
        """Assert that nothing was sent, and nothing dropped, but for what `before_send` kept back.

        Raises:
            AssertionError: If something was; it says what.
        """
        __tracebackhide__ = True
        found = self.messages
        if found or self._lost():
            self._fail([f"expected no message, found {len(found)}{':' if found else ''}", *lines_of(found)])

    def assert_nothing_lost(self) -> None:
        """Assert that nothing was dropped, at a call or later, but for what `before_send` kept back.

        Raises:
            AssertionError: If something was; it says what and why.
        """
        __tracebackhide__ = True
        lost = self._lost()
        if lost:
            count = sum(drop.count for drop in lost)
            raise AssertionError("\n".join([f"{counted(count, 'message')} dropped:", *lines_of_drops(lost)]))

    def _lost(self) -> list[Drop]:
        return [drop for drop in self.dropped if drop.reason is not DropReason.FILTERED]

    def _assert(self, kind: str, asked: Mapping[str, Any], times: int | None) -> list[dict[str, Any]]:
        __tracebackhide__ = True
        fields = {"type": kind, **{field: value for field, value in asked.items() if value is not ANY}}

        def compare(message: Mapping[str, Any]) -> list[Difference]:
            pairs = ((field, value, message.get(field, ABSENT)) for field, value in fields.items())
            return [difference for pair in pairs for difference in self._of_field(*pair)]

        return self._judge(fields, compare, times)

    def _of_field(self, field: str, expected: Any, found: Any) -> Iterable[Difference]:
        if expected is None:
            if found is ABSENT or (field in _CONTENT and not found):
                return ()
            return (Difference(field, ABSENT, found),)
        if found is ABSENT:
            return () if equals(expected, ABSENT) else (Difference(field, expected, ABSENT),)
        if field.endswith("Id") and isinstance(expected, (int, UUID)) and not isinstance(expected, bool):
            expected = str(expected)
        if field == "timestamp" and not equals(expected, found):
            expected = _moment(expected)
        return differences(expected, found, field, self._default)

    def _of_message(self, expected: Any, message: Mapping[str, Any]) -> list[Difference]:
        asked = expected.fields if isinstance(expected, Including) else expected
        if isinstance(asked, dict):
            free = _STAMP - asked.keys()
            message = {field: value for field, value in message.items() if field not in free}
        return list(differences(expected, message, "", self._default))

    def _judge(
        self, fields: Any, compare: Callable[[Mapping[str, Any]], list[Difference]], times: int | None
    ) -> list[dict[str, Any]]:
        __tracebackhide__ = True
        messages = self.messages
        matching = [number for number, message in enumerate(messages, 1) if not compare(message)]
        if len(matching) != times and not (times is None and matching):
            wanted = "a message" if times is None else counted(times, "message") if times else "no message"
            found = f"{len(matching)}: {listed(matching)}" if matching else "none"
            lines = [f"expected {wanted} like this, found {found}", *_asked(fields)]
            if len(matching) < (times or 1):
                rest = [(number, one) for number, one in enumerate(messages, 1) if number not in {*matching}]
                lines += _nearest(rest, compare)
            if messages:
                lines += [f"recorded: {counted(len(messages), 'message')}", *lines_of(messages)]
            self._fail(lines)
        return [messages[number - 1] for number in matching]

    def _fail(self, lines: Sequence[str]) -> NoReturn:
        __tracebackhide__ = True
        dropped = self.dropped
        if dropped:
            count = sum(drop.count for drop in dropped)
            lines = [*lines, f"dropped: {counted(count, 'message')}", *lines_of_drops(dropped)]
        elif not self.messages:
            called = "since clear()" if self.stats().tracked else "at all: does the code use another client?"
            lines = [*lines, f"nothing was recorded {called}"]
        raise AssertionError("\n".join(lines))


def _moment(expected: Any) -> Any:
    try:
        return text_of_moment(expected)
    except InvalidMessage:
        return expected


def _asked(fields: Any) -> Iterable[str]:
    return lines_of_fields(fields) if isinstance(fields, dict) else [f"  {fields!r}"]


def _nearest(
    messages: Sequence[tuple[int, Mapping[str, Any]]], compare: Callable[[Mapping[str, Any]], list[Difference]]
) -> Iterable[str]:
    """The messages of the same kind that differ least, and in what."""
    ranked = []
    for number, message in messages[-_LOOKED_AT:]:
        found = compare(message)
        if not any(one.path == "type" for one in found):
            ranked.append((sum(map(_weight, found)), number, found))
    least = min((weight for weight, _, _ in ranked), default=0.0)
    for weight, number, found in sorted(ranked, key=lambda one: one[:2])[:_NEAREST]:
        if weight == least:
            yield f"nearest is message {number}:"
            yield from lines_of_differences(found)


def _weight(difference: Difference) -> float:
    """How far a difference is: a misspelt name is near, another event is far, and so is another person."""
    if difference.path in {"event", "name"} and isinstance(difference.expected, str):
        return 10 * (1 - SequenceMatcher(None, difference.expected.lower(), str(difference.found).lower()).ratio())
    return 3.0 if difference.path.endswith("Id") else 1.0


def _compared(
    expected: list[Any],
    found: list[dict[str, Any]],
    compare: Callable[[Any, Mapping[str, Any]], list[Difference]],
) -> Iterable[str]:
    """What is missing, too many, or different; nothing, if all is as expected."""
    pairs = _aligned(expected, found, lambda one, other: not compare(one, other))
    if all(one is not None and other is not None and not compare(expected[one], found[other]) for one, other in pairs):
        return
    for one, other in pairs:
        if other is None and one is not None:
            yield f"  missing: {_line(expected[one])}"
        elif one is None and other is not None:
            yield f"  {other + 1}. not expected: {line_of(found[other])}"
        elif one is not None and other is not None:
            differs = compare(expected[one], found[other])
            yield f"  {other + 1}. {line_of(found[other])}{', but:' if differs else ''}"
            yield from lines_of_differences(differs, "       ")


def _line(expected: Any) -> str:
    fields = expected.fields if isinstance(expected, Including) else expected
    return line_of(fields) if isinstance(fields, dict) else repr(fields)


def _aligned(
    expected: Sequence[Any], found: Sequence[Any], same: Callable[[Any, Any], bool]
) -> list[tuple[int | None, int | None]]:
    """Pairs of positions, so that the most are the same; what lies between two such pairs is paired in its order."""
    equal = [[same(one, other) for other in found] for one in expected]
    longest = [[0] * (len(found) + 1) for _ in range(len(expected) + 1)]
    for one in reversed(range(len(expected))):
        for other in reversed(range(len(found))):
            below, beside = longest[one + 1][other], longest[one][other + 1]
            longest[one][other] = 1 + longest[one + 1][other + 1] if equal[one][other] else max(below, beside)
    pairs: list[tuple[int | None, int | None]] = []
    one = other = 0
    lonely: tuple[list[int], list[int]] = ([], [])
    while one < len(expected) or other < len(found):
        inside = one < len(expected) and other < len(found)
        if inside and equal[one][other]:
            pairs += [*_side_by_side(*lonely, expected, found), (one, other)]
            lonely = ([], [])
            one, other = one + 1, other + 1
        elif other >= len(found) or (inside and longest[one + 1][other] >= longest[one][other + 1]):
            lonely[0].append(one)
            one += 1
        else:
            lonely[1].append(other)
            other += 1
    return pairs + _side_by_side(*lonely, expected, found)


def _side_by_side(
    missing: list[int], surplus: list[int], expected: Sequence[Any], found: Sequence[Any]
) -> list[tuple[int | None, int | None]]:
    """What differs is set beside the first one of its kind; the rest stays alone."""
    pairs: list[tuple[int | None, int | None]] = []
    left = list(surplus)
    for one in missing:
        fields = expected[one].fields if isinstance(expected[one], Including) else expected[one]
        kind = fields.get("type") if isinstance(fields, dict) else None
        other = next((place for place in left if kind is not None and found[place].get("type") == kind), None)
        if other is not None:
            left.remove(other)
        pairs.append((one, other))
    return sorted([*pairs, *((None, other) for other in left)], key=_place)


def _place(pair: tuple[int | None, int | None]) -> tuple[int, int]:
    one, other = pair
    return (other if other is not None else one or 0, 0 if other is not None else 1)
