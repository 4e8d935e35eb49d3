"""The rules of the model: what may be done to a client, and by what laws it is judged after each step."""

from __future__ import annotations

from collections import Counter

from conftest import balanced
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from observed_client import HOOKS, ObservedClient
from vendor_script import CLIMATES, WEATHERS, Killed

from analytics_batcher import DropReason

EARLY = 12  # steps before which no example shuts down
LATE = 25.0  # seconds in which a living consumer sees what expired: the longest request, and a look around
WRONG = (
    {"user_id": ""},
    {"user_id": True},
    {"event": ""},
    {"account_id": 1.5},
    {"timestamp": "yesterday"},
    {"timestamp": 10**13},
    {"message_id": "x" * 100},
    {"properties": "too many values"},
)
MANY = {"odd": {1}, "many": [None] * 250_001}
REACHED = set()  # the reasons that were met in any example of a run

CONFIGS = st.fixed_dictionaries(
    {
        "vendors": st.sampled_from([("vitally",), ("customerio",), ("segment",), ("vitally", "customerio")]),
        "background": st.booleans(),
        "when_full": st.sampled_from(["drop_newest", "drop_oldest", "block"]),
        "max_queue_messages": st.sampled_from([60, 10_000, 10, 3, 1]),
        "max_queue_bytes": st.sampled_from([2**25, 20_000, 4_000, 1_000]),
        "batch_messages": st.sampled_from([None, 25, None, 3, 1]),
        "sizes": st.sampled_from([(None, None), (3_000, 1_500), (1_500, 400), (1_000, 700)]),
        "flush_interval": st.sampled_from([0.5, 0, 4]),
        "max_age": st.sampled_from([90, "auto", None, 5]),
        "jitter": st.sampled_from(["full", "none"]),
        "timeout": st.sampled_from([10.0, 1.0, (1.0, 3.0)]),
        "block_timeout": st.sampled_from([0.3, 2, 0]),
        "strict": st.sampled_from([False, False, False, False, True]),
        "hooks": st.sampled_from([HOOKS, HOOKS, HOOKS[1:], HOOKS[:1], ()]),
    }
)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["track", "track", "identify", "native", "track", "account", "page", "organization"]),
        st.one_of(st.integers(0, 600), st.sampled_from([0, 0, 150, "fits", "over", "room"])),
        st.sampled_from([(), ("bad",), (), (), ("secret",), ("given",), ()]),
    ),
    min_size=1,
    max_size=4,
)
TIMES = st.sampled_from([3, 1, 10])
PLACES = st.integers(0, 1)
CALM = ["blind", "narrow", None]
SCRIPTS = st.lists(st.sampled_from(WEATHERS), max_size=6)
SECONDS = st.sampled_from([0.6, 0, 0.02, 0.06, 3, 20, 61, 400, 7_300])
TIMEOUTS = st.sampled_from([5, 0, 0.02, 0.3, 100])
MISDEEDS = st.sampled_from(["raise", "exit", "interrupt", "track", "flush", "shutdown"])
DISTURBANCES = st.sampled_from(["fork", "no threads", "threads", -4_000.0, 0.5, 8_000.0])
RESTS = st.tuples(st.sampled_from(["pass_time", "flush"]), SECONDS)
WORK = st.tuples(st.just("work"), CALLS, TIMES, PLACES, SCRIPTS, RESTS)
ACTIONS = st.one_of(
    WORK,
    WORK,
    WORK,
    WORK,
    st.tuples(st.just("track"), CALLS, TIMES),
    st.tuples(st.just("track_wrongly"), st.sampled_from(WRONG)),
    st.tuples(st.just("change_climate"), PLACES, st.sampled_from(CLIMATES)),
    st.tuples(st.just("pass_time"), SECONDS),
    st.tuples(st.just("flush"), TIMEOUTS, st.booleans()),
    st.tuples(st.just("misbehave"), st.sampled_from(HOOKS), MISDEEDS),
    st.tuples(st.just("disturb"), DISTURBANCES),
    st.tuples(st.just("shut_down"), TIMEOUTS),
)


class Model(RuleBasedStateMachine):
    """A client, and all that may happen to it."""

    def __init__(self):
        super().__init__()
        self.own = None

    @initialize(config=CONFIGS, place=PLACES, climate=st.sampled_from(CLIMATES), calm=st.sampled_from(CALM))
    def begin(self, config, place, climate, calm):
        """Make a client, to vendors of which one may have a climate of its own."""
        self.own = ObservedClient(config)
        self.world, self.vendors, self.client = self.own.world, self.own.vendors, self.own.client
        self.steps = 0
        self.starved = False  # whether the system had no thread for us
        self.calm = calm  # the weather before the end, if it is to clear
        self.change_climate(place, climate)

    @rule(action=ACTIONS)
    def act(self, action):
        """Do one thing. One rule for all, as Hypothesis leaves rules out of its examples at will."""
        self.perform(*action)

    # Actions

    def perform(self, name, *arguments):
        """Call an action."""
        getattr(self, name)(*arguments)

    def work(self, calls, times, place, script, rest):
        """Make a few calls again and again, in some weather, and rest or flush."""
        self.vendor(place).script.extend(script)
        self.track(calls, times)
        self.perform(*rest)

    def track(self, calls, times):
        """Make a few calls again and again."""
        for kind, size, odd in calls * times:
            self.own.interruptible(self.own.call, kind, size, odd)

    def track_wrongly(self, wrong):
        """Make a call that must be refused, whatever the queue."""
        many = "properties" in wrong
        number = next(self.own.numbers)
        call = {"user_id": "u", "event": "e", **wrong, "properties": {"n": number, **(MANY if many else {})}}
        expected = {vendor.name: {"unserializable" if many else "invalid"} for vendor in self.vendors}
        self.own.interruptible(self.own.make, self.vendors, number, expected, lambda: self.client.track(**call))

    def vendor(self, place):
        """One of the vendors."""
        return self.vendors[place % len(self.vendors)]

    def change_climate(self, place, climate):
        """Say how a vendor answers, unless a script says otherwise."""
        self.vendor(place).climate = climate

    def pass_time(self, seconds):
        """Let the other threads run."""
        self.world.sleep(seconds)

    def flush(self, timeout, elsewhere=False):
        """Flush, here or in another thread."""
        if elsewhere:
            self.world.start(lambda: self.flush(timeout))
        else:
            self.own.interruptible(self.own.flushed, self.client.flush, timeout)

    def misbehave(self, where, what):
        """Let a callback do once what callbacks should not do."""
        if what != "shutdown" or self.steps > EARLY:
            self.own.behaviours[where].append(what)

    def disturb(self, what):
        """Fork, let the system have no more threads, or set its wall clock."""
        if what == "fork":
            self.own.fork()
        elif isinstance(what, float):
            self.world.ahead += what
        else:
            self.world.has_threads = what == "threads"
            self.starved = True

    def shut_down(self, timeout):
        """Shut down, after which nothing is pending; but not early, or little else would be seen."""
        if self.steps <= EARLY:
            return
        self.own.closed = self.own.ending = True
        if self.own.interruptible(self.own.flushed, self.client.shutdown, timeout) is not None:
            assert self.client.stats().pending == 0

    def calm_down(self):
        """Once the weather is fair for long enough, everything is settled and told, whatever happened before."""
        for vendor in self.vendors:
            vendor.script.clear()
            vendor.climate = self.calm
        self.own.behaviours.clear()
        self.world.has_threads, self.starved = True, False
        self.world.sleep(2)
        if self.own.config["background"] and not self.own.closed:
            self.own.call("track")
            self.world.sleep(900)
        else:
            self.own.flushed(self.client.flush, 1_000)
        assert self.client.stats().pending == 0
        self.everything_was_told()

    # Laws

    @invariant()
    def laws_hold(self):
        """Conservation, bounds, what is counted and told, who lives, what is too old."""
        self.steps += 1
        stats = self.client.stats()
        assert balanced(stats)
        REACHED.update(stats.dropped)
        assert all(count <= len(self.vendors) for count in self.own.asked.values()), "before_send was asked again"
        assert all(isinstance(error, (Killed, KeyboardInterrupt)) for error in self.world.thrown), self.world.thrown
        self.own.killed = self.own.killed or bool(self.world.thrown)
        assert stats.consumer_alive or self.own.killed
        for vendor in self.vendors:
            self.laws_hold_for(vendor, stats.destinations[vendor.name])

    def laws_hold_for(self, vendor, stats):
        """The same for one destination."""
        config, told = self.own.config, self.own.told
        assert not vendor.faults, vendor.faults
        assert balanced(stats)
        assert 0 <= stats.pending <= config["max_queue_messages"]
        assert bool(stats.pending) <= stats.pending_bytes <= config["max_queue_bytes"] * bool(stats.pending)
        assert stats.delivered == len(vendor.yes)
        assert stats.dropped["rejected"] <= len(vendor.blamed)
        assert (stats.requests, stats.retries, stats.batches) == (vendor.requests, vendor.retries, vendor.batches)
        assert "on_delivery" not in config["hooks"] or self.own.told_delivered[vendor.name] == stats.delivered
        assert all(told[vendor.name, reason] <= stats.dropped[reason] for reason in DropReason)
        if config["background"] and stats.pending and not (vendor.flying or self.own.killed or self.starved):
            assert stats.oldest_pending_age <= vendor.max_age + LATE

    def everything_was_told(self):
        """Once it is quiet, `on_drop` has heard of everything that was dropped, but for an interrupted report."""
        stats = self.client.stats()
        for vendor in self.vendors:
            told = Counter({reason: self.own.told[vendor.name, reason] for reason in DropReason})
            dropped = stats.destinations[vendor.name].dropped
            assert not self.own.must_tell or +told == +Counter(dropped), (told, dropped)

    def teardown(self):
        """In the end everything was told, and no thread is left."""
        if self.own is None:
            return
        try:
            if self.calm is not None:
                self.calm_down()
            for vendor in self.vendors:
                vendor.script.clear()
            self.steps += EARLY
            self.shut_down(1.0)
            self.world.sleep(1_000)
            self.own.interruptible(self.own.flushed, self.client.shutdown, 0)
            self.world.sleep(1)  # a thread that was just started ends too
            self.laws_hold()
            assert self.world.tasks == [self.world.main]
            self.everything_was_told()
        finally:
            self.own.end()
