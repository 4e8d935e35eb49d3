"""Small breakages of the package, each with the tests that must catch it: data for `seeded_faults.py`.

Each is a mistake that somebody could make in good faith while changing the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Fault:
    """One breakage of one file.

    Attributes:
        name: What is wrong then.
        file: The file within the package.
        edits: The new text for each old one, which occurs exactly once.
        tests: The fewest tests of which one must fail, as pytest names them, from the folder of the tests on.
    """

    name: str
    file: str
    edits: Mapping[str, str]
    tests: Sequence[str]

    def applied(self, text: str) -> str:
        """The file's text with the fault in it.

        Args:
            text: The text as it is.

        Raises:
            ValueError: If an old text does not occur exactly once, or the new text is no Python.
        """
        for old, new in self.edits.items():
            if text.count(old) != 1:
                raise ValueError(f"{self.file} has {text.count(old)} times, and not once: {old!r}")
            text = text.replace(old, new)
        try:
            compile(text, self.file, "exec")
        except SyntaxError as error:
            raise ValueError(f"{self.file} would be no Python: {error}") from error
        return text


# Locks, and what interrupts them

LOCKS = [
    Fault(
        "the buffer's lock is not reentrant",
        "buffers/memory.py",
        {"self._lock = _thread.RLock()": "self._lock = _thread.allocate_lock()"},
        ["test_buffers.py::test_memory_is_safe_against_signal_handlers[calls]"],
    ),
    Fault(
        "callers wake the consumer through a queue.Queue",
        "buffers/memory.py",
        {
            "import _thread\n": "import _thread\nimport queue\n",
            "self._token = _thread.allocate_lock()  #": "self._token = queue.Queue()  #",
            "        self._token.acquire()\n": "",
            "if ready and self._token.locked():": "if ready:",
            "self._token.release()": "self._token.put(None)",
            "        self._token.acquire(timeout=-1 if timeout is None else": (
                "        with suppress(queue.Empty):\n            self._token.get(timeout=None if timeout is None else"
            ),
        },
        ["test_reentry.py::test_signal_handlers_can_track_while_they_interrupt_track[drop_newest-50-1000000000]"],
    ),
    Fault(
        "a record is counted by a method that is called under the lock",
        "buffers/memory.py",
        {
            "                    self.ledger.tracked += 1\n                    self._messages += 1\n": (
                "                    self._messages += 1\n                    self._count()\n"
            ),
            "    def _make_room(": ("    def _count(self):\n        self.ledger.tracked += 1\n\n    def _make_room("),
        },
        ["test_reentry.py::test_a_call_can_be_interrupted_anywhere[track-thread-drop_newest-100000-10]"],
    ),
    Fault(
        "on_delivery is called under the buffer's lock",
        "consumer.py",
        {
            "            self._reporter.delivered(outcome.receipt)": (
                "            with self._buffer._lock:\n                self._reporter.delivered(outcome.receipt)"
            )
        },
        ["test_callbacks.py::test_no_callback_runs_under_a_lock"],
    ),
]

# Threads: the consumer's, and who else may run it

THREADS = [
    Fault(
        "a consumer that died keeps its claim, and none starts again",
        "pipeline.py",
        {
            "            self._died = False\n        finally:\n            if _HOLDER in claim": (
                "            self._died = False\n        finally:\n            if not self._died and _HOLDER in claim"
            )
        },
        ["test_reentry.py::test_a_killed_consumer_starts_again[message]"],
    ),
    Fault(
        "an exception out of a callback ends the consumer",
        "report.py",
        {"except BaseException as error:": "except ArithmeticError as error:"},
        ["test_callbacks.py::test_a_callback_that_raises_harms_nobody[RuntimeError-True]"],
    ),
    Fault(
        "the consumer's thread holds up the end of the process",
        "pipeline.py",
        {"daemon=True).start()": "daemon=False).start()"},
        ["test_client.py::test_the_idle_client_has_no_thread_and_the_busy_one_has_one"],
    ),
    Fault(
        "every message wakes the consumer",
        "buffers/memory.py",
        {"ready = self._messages >= self._wake_messages or": "ready = self._messages > 0 or"},
        ["test_buffers.py::test_put_wakes_nobody_unasked"],
    ),
    Fault(
        "an idle consumer looks again all the time",
        "consumer.py",
        {"self._may_sleep(now):\n            return None": "self._may_sleep(now):\n            return 0.5"},
        ["test_consumer.py::test_an_idle_consumer_asks_for_nothing_until_it_is_woken"],
    ),
    Fault(
        "the first message after each batch wakes the consumer",
        "consumer.py",
        {"return now >= self._awake_until and not": "return not"},
        ["test_consumer.py::test_after_a_batch_no_single_message_wakes_the_consumer"],
    ),
    Fault(
        "a consumer in a hurry waits all the same",
        "consumer.py",
        {"if not in_a_hurry and not": "if not"},
        ["test_consumer.py::test_others_are_let_in_before_a_batch_is_written[end-False]"],
    ),
    Fault(
        "a consumer that was busy never sleeps again",
        "consumer.py",
        {"return now >= self._awake_until and not": "return self._awake_until == 0 and not"},
        ["test_consumer.py::test_after_a_batch_no_single_message_wakes_the_consumer"],
    ),
    Fault(
        "an answer that is not all there is taken for one",
        "answer.py",
        {'headers.get("content-length") != str(len(body)) or ': ""},
        ["test_transport.py::test_an_answer_means_the_same_on_a_new_connection_and_on_a_kept_one[plain]"],
    ),
    Fault(
        "what came of an answer already is not read again",
        "connection.py",
        {"_Begun(data, connection)": '_Begun(b"", connection)'},
        ["test_transport.py::test_an_answer_means_the_same_on_a_new_connection_and_on_a_kept_one[plain]"],
    ),
    Fault(
        "a connection that the answer closes is used again",
        "answer.py",
        {' or (name == "connection" and value.lower() != "keep-alive")': ""},
        ["test_transport.py::test_a_connection_that_the_server_will_close_is_closed[1]"],
    ),
    Fault(
        "a callback waits for room that only its own thread can make",
        "lanes.py",
        {" and not any(one.pipeline.is_runner for one in lanes)": ""},
        ["test_fan_out.py::test_a_callback_never_blocks_for_another_destination"],
    ),
    Fault(
        "a flush in a callback waits for the other destinations",
        "lanes.py",
        {
            "return _at_once(deadlines)\n    with _without_locks(deadlines):\n        late = drain_all(deadlines, patie"
            "nt=T": "pass\n    with _without_locks(deadlines):\n        late = drain_all(deadlines, patient=T"
        },
        ["test_fan_out.py::test_a_flush_in_a_callback_waits_for_no_destination"],
    ),
]

# Forks

FORKS = [
    Fault(
        "the fork hook is forgotten",
        "lifecycle.py",
        {"os.register_at_fork(after_in_child=_after_fork)": "pass"},
        ["test_fork.py::test_a_child_of_an_idle_parent_begins_anew[thread]"],
    ),
    Fault(
        "a forked child goes on with its parent's random numbers",
        "stamp.py",
        {"    os.register_at_fork(after_in_child=reseed)": "    pass"},
        ["test_stamp.py::test_forked_children_repeat_nothing"],
    ),
    Fault(
        "a resumed snapshot goes on with the same random numbers",
        "stamp.py",
        {"        reseed()\n    return _pack": "        pass\n    return _pack"},
        ["test_stamp.py::test_resumed_snapshot_repeats_nothing"],
    ),
    Fault(
        "a forked child sends what its parent had queued",
        "pipeline.py",
        {"        self.buffer.reset()\n": ""},
        ["test_fork.py::test_a_child_leaves_what_the_parent_queued_to_the_parent[thread]"],
    ),
    Fault(
        "a forked child uses its parent's connection",
        "transport.py",
        {"line, self._line, self._adapter, self._watch.kept = self._line, None, None, None\n": ("line = None\n")},
        ["test_fork.py::test_a_child_of_an_idle_parent_begins_anew[thread]"],
    ),
    Fault(
        "a closed client is open again in a forked child",
        "pipeline.py",
        {"        if self._closed:\n            self.buffer.close()\n": ""},
        ["test_fork.py::test_a_closed_client_stays_closed_in_a_child"],
    ),
    Fault(
        "the end of a multiprocessing child is hooked where its start clears it again",
        "lifecycle.py",
        {"util.register_after_fork(_after_fork, _finalize_after_fork)": "_finalize_after_fork()"},
        ["test_fork.py::test_multiprocessing_children_deliver_at_their_end[fork-parent]"],
    ),
    Fault(
        "a client made in a multiprocessing child has no hook for its end",
        "lifecycle.py",
        {'"_parent_pid", None) is not None:': '"_parent_pid", None) is util:'},
        ["test_fork.py::test_multiprocessing_children_deliver_at_their_end[forkserver-child]"],
    ),
    Fault(
        "a multiprocessing child's end is hooked once, though its start has cleared that",
        "lifecycle.py",
        {" or not finalizer.still_active()": ""},
        ["test_fork.py::test_multiprocessing_grandchildren_deliver_at_their_end[fork-child]"],
    ),
    Fault(
        "billiard's children load what their end is hooked to after the fork hook",
        "lifecycle.py",
        {'if "billiard" in sys.modules:': 'if "billiard" in ():'},
        ["test_celery.py::test_children_of_celerys_own_multiprocessing_deliver[True]"],
    ),
    Fault(
        "celery's signal that a child ends is not heard",
        "lifecycle.py",
        {"signals.worker_process_shutdown.connect(_shut_down_with_celery, weak=False)": "pass"},
        ["test_celery.py::test_celerys_children_deliver_at_sigterm_with_no_glue[in the parent]"],
    ),
    Fault(
        "workers that uWSGI forks go on as their master",
        "lifecycle.py",
        {"uwsgi.post_fork_hook = forked": "pass"},
        ["test_servers.py::test_uwsgis_workers_deliver_throughout[how0]"],
    ),
    Fault(
        "the application's import of uwsgidecorators takes the hook away",
        "lifecycle.py",
        {'hooks.append(importlib.import_module("uwsgidecorators").postfork_chain_hook)': "pass"},
        ["test_servers.py::test_an_applications_own_hooks_of_uwsgi_are_called_too"],
    ),
]

# Greenlets

GREENLETS = [
    Fault(
        "the buffer's lock is that of threading, which under gevent is written in Python",
        "buffers/memory.py",
        {"self._lock = _thread.RLock()": "self._lock = threading.RLock()"},
        ["test_servers.py::test_signal_handlers_track_under_gevent_too"],
    ),
    Fault(
        "the consumer of a client made before gevent's patch stops the hub while it waits",
        "pipeline.py",
        {"            self.buffer.renew()": "            pass"},
        ["test_servers.py::test_greenlets_track_and_flush_without_stopping_each_other[late-thread]"],
    ),
    Fault(
        "the consumer of a client made before gevent's patch stops the hub while it posts",
        "pipeline.py",
        {"            self._consumer.renew()": "            pass"},
        ["test_servers.py::test_greenlets_track_and_flush_without_stopping_each_other[late-thread]"],
    ),
]

# The end, and deadlines

ENDS = [
    Fault(
        "the exit hook is missing",
        "lifecycle.py",
        {"atexit.register(shut_down)": "pass"},
        ["test_exit.py::test_exit_delivers_what_is_queued_and_keeps_the_status[return-0]"],
    ),
    Fault(
        "a flush waits for a request, however long that takes",
        "pipeline.py",
        {"self._wait_for_runner(ticket, min(deadline - now, _LOOK))": "self._wait_for_runner(ticket, 5.0)"},
        ["test_client.py::test_flush_against_a_hanging_endpoint_returns_in_time"],
    ),
    Fault(
        "a request made by a flush is not bound by its deadline",
        "pipeline.py",
        {"wait = self._step(deadline)": "wait = self._step(None)"},
        ["test_client.py::test_without_a_thread_a_hanging_endpoint_ends_with_the_flush"],
    ),
    Fault(
        "where no threads run, the first destination may take everybody's time",
        "lanes.py",
        {"deadline if pipeline.start() else share": "deadline"},
        ["test_fan_out.py::test_several_that_hang_share_one_deadline[inline]"],
    ),
    Fault(
        "a shutdown drains before it refuses",
        "lanes.py",
        {
            "        pipeline.close()\n": "        pipeline.begin_flush()\n",
            "    late = drain_all(deadlines, patient=False)\n": (
                "    late = drain_all(deadlines, patient=False)\n"
                "    for pipeline, _ in deadlines:\n"
                "        pipeline.close()\n"
            ),
        },
        ["test_client.py::test_shutdown_refuses_before_it_drains"],
    ),
    Fault(
        "a closed client accepts",
        "buffers/memory.py",
        {"            self._max_messages = _CLOSED\n": ""},
        ["test_buffers.py::test_closed_buffer_refuses"],
    ),
    Fault(
        "a shutdown waits for its deadline though the next attempt lies beyond it",
        "lanes.py",
        {"drain_all(deadlines, patient=False)": "drain_all(deadlines, patient=True)"},
        ["test_client.py::test_shutdown_does_not_wait_for_an_attempt_beyond_its_deadline"],
    ),
    Fault(
        "what is left behind at the end is told to nobody",
        "pipeline.py",
        {"        if left:\n": "        if left and not timed_out:\n"},
        ["test_callbacks.py::test_on_drop_is_told_of_what_was_left_at_the_end"],
    ),
]

# The books

BOOKS = [
    Fault(
        "messages are settled before the answer has come",
        "consumer.py",
        {
            "            outcome = self._sender.send(self._lease.records, deadline)\n": (
                "            records = self._lease.records\n"
                "            self._buffer.settle(self._lease, range(len(records)), ())\n"
                "            outcome = replace(self._sender.send(records, deadline), delivered=(), losses=())\n"
            ),
            "import math\n": "import math\nfrom dataclasses import replace\n",
        },
        ["test_client.py::test_the_queue_recovers_when_the_endpoint_does"],
    ),
    Fault(
        "an evicted message is not counted",
        "buffers/memory.py",
        {"evicted += 1\n            self._keep(record": "evicted += 0\n            self._keep(record"},
        ["test_buffers.py::test_eviction_takes_the_oldest"],
    ),
    Fault(
        "drop_oldest evicts a batch that is being retried",
        "consumer.py",
        {"release(lease, outcome.tried)": "release(lease, 0 if outcome.wait else outcome.tried)"},
        ["test_consumer.py::test_drop_oldest_spares_a_batch_that_is_being_retried"],
    ),
    Fault(
        "a refused message is counted as tracked twice",
        "buffers/memory.py",
        {
            "                    refusal = self._make_room(size)\n": (
                "                    refusal = self._make_room(size)\n"
                "                    self.ledger.tracked += refusal is not None\n"
            )
        },
        ["test_buffers.py::test_count_is_bounded"],
    ),
    Fault(
        "what the end dropped is counted as delivered too",
        "buffers/memory.py",
        {"valid = lease in self._leases": "valid = True"},
        ["test_consumer.py::test_an_abandoned_batch_is_not_counted_twice"],
    ),
    Fault(
        "destinations share their books",
        "buffers/memory.py",
        {
            "class MemoryBuffer:": "_BOOKS = Ledger()\n\n\nclass MemoryBuffer:",
            "self.ledger = Ledger()": "self.ledger = _BOOKS",
        },
        ["test_fan_out.py::test_figures_are_kept_for_each_destination_beside_their_sum"],
    ),
    Fault(
        "a flush takes a filtered message for a lost one",
        "stats.py",
        {" - self.lost[DropReason.FILTERED]": ""},
        ["test_stats.py::test_lost_is_what_had_been_accepted"],
    ),
]

# Bounds and sizes

SIZES = [
    Fault(
        "the queue is bound by its messages only",
        "buffers/memory.py",
        {
            "if self._messages < self._max_messages and self._bytes + size <= self._max_bytes:": (
                "if self._messages < self._max_messages:"
            )
        },
        ["test_buffers.py::test_bytes_are_bounded"],
    ),
    Fault(
        "what is in flight does not count towards the queue's bound",
        "buffers/memory.py",
        {
            "and self._bytes + size <= self._max_bytes:\n                    self.ledger": (
                "and self._waiting_bytes + size <= self._max_bytes:\n                    self.ledger"
            )
        },
        ["test_buffers.py::test_bytes_are_bounded"],
    ),
    Fault(
        "a record's overhead is forgotten",
        "buffers/memory.py",
        {'sys.getsizeof(b"") + 8 + 16': "0"},
        ["test_buffers.py::test_memory_takes_no_more_than_it_says"],
    ),
    Fault(
        "a batch is measured in characters",
        "batch.py",
        {"size += len(wire) +": "size += len(wire.decode()) +"},
        ["test_main_job.py::test_every_body_stays_within_the_limits"],
    ),
    Fault(
        "a message is measured in characters",
        "message.py",
        {"    size = len(body)\n": "    size = len(body.decode())\n"},
        ["test_client.py::test_a_message_over_the_limit_is_too_large"],
    ),
    Fault(
        "the envelope is not counted",
        "batch.py",
        {"    size = envelope\n": "    size = 0\n"},
        ["test_batch.py::test_limits_hold_to_the_byte"],
    ),
    Fault(
        "the commas are not counted",
        "batch.py",
        {" + (1 if taken else 0)": ""},
        ["test_batch.py::test_limits_hold_to_the_byte"],
    ),
    Fault(
        "the envelope of one vendor is taken for another's",
        "destinations/customerio.py",
        {"""envelope = len('{"batch":[]}')""": 'envelope = len("[]")'},
        ["test_customerio.py::test_request_at_its_limit"],
    ),
    Fault(
        "a body that will be compressed may be four times as large",
        "delivery.py",
        {
            "fits(wires, self._limits,": (
                "fits(wires, dataclasses.replace(self._limits, bytes=(1 + 3 * self._gzip) * self._limits.bytes),"
            )
        },
        ["test_segment.py::test_request_at_its_limit[packed]"],
    ),
    Fault(
        "the id and the time that are still to be written are not counted",
        "message.py",
        {"        size += _TIME_WIRE_BYTES\n": "        pass\n"},
        ["test_client.py::test_a_message_over_the_limit_is_too_large"],
    ),
]

# Ids, times, order

IDS = [
    Fault(
        "an id is made at each attempt",
        "message.py",
        {
            "from uuid import UUID\n": "from uuid import UUID, uuid4\n",
            "        start.encode() + record[_CONTENT_START:]\n": (
                """        f'{{"messageId":"{uuid4()}",{start[52:]}'.encode() + record[_CONTENT_START:]\n"""
            ),
        },
        ["test_delivery.py::test_a_retry_repeats_the_same_bytes"],
    ),
    Fault(
        "the time is that of the sending",
        "stamp.py",
        {
            '"timestamp":"{iso_milliseconds(milliseconds)}"': (
                '"timestamp":"{iso_milliseconds(int(time.time() * 1000))}"'
            ),
        },
        ["test_client.py::test_the_moment_is_the_calls"],
    ),
    Fault(
        "Customer.io's id comes of another stamp",
        "destinations/customerio.py",
        {
            "NATIVE, TIME_GIVEN, flags_of,": "NATIVE, TIME_GIVEN, flags_of, new_head,",
            "ulid_text(record) if given is None": "ulid_text(new_head()) if given is None",
        },
        ["test_customerio.py::test_same_id_over_retries"],
    ),
    Fault(
        "ids come from the application's own generator",
        "stamp.py",
        {"_random = Random()": "import random as _random"},
        ["test_stamp.py::test_seeding_by_the_application_repeats_nothing"],
    ),
    Fault(
        "a message's age counts from its timestamp",
        "stamp.py",
        {
            "    accepted: float = _unpack_double(record, STAMP_BYTES)[0]\n": (
                "    accepted: float = _unpack_double(record, STAMP_BYTES)[0]\n"
                "    if flags_of(record) & TIME_GIVEN:\n"
                "        import calendar\n\n"
                '        moment = record.split(b\'"timestamp":"\')[1][:19].decode()\n'
                "        accepted = calendar.timegm(time.strptime(moment, '%Y-%m-%dT%H:%M:%S')) - _least_offset\n"
            )
        },
        ["test_client.py::test_given_id_and_time_are_kept"],
    ),
    Fault(
        "a message waits for ever, however old it is",
        "consumer.py",
        {"        self._expire(now)\n": ""},
        ["test_consumer.py::test_messages_expire_while_they_wait"],
    ),
    Fault(
        "a failed batch goes to the end of the line",
        "consumer.py",
        {
            "        self._buffer.release(lease, outcome.tried)\n": (
                "        self._buffer.release(lease, outcome.tried)\n"
                "        if outcome.wait and self._buffer.settle(lease, range(len(records)), ()):\n"
                "            self._buffer.ledger.delivered -= len(records)\n"
                "            self._buffer.ledger.tracked -= len(records)\n"
                "            for record in records:\n"
                "                self._buffer.put(record)\n"
            )
        },
        ["test_client.py::test_the_queue_recovers_when_the_endpoint_does"],
    ),
    Fault(
        "what was given back goes to the end of the line",
        "buffers/memory.py",
        {
            "back = list(islice(self._returned, messages))": (
                "back = list(islice(self._returned if not self._waiting else (), messages))"
            )
        },
        ["test_buffers.py::test_released_records_go_to_the_head"],
    ),
    Fault(
        "before_send may change an id",
        "message.py",
        {".items() if field not in _RESERVED}": ".items()}"},
        ["test_delivery.py::test_before_send_changes_and_drops_messages_once"],
    ),
    Fault(
        "before_send runs at each attempt",
        "before_send.py",
        {"said = self._said.get(stamp)\n": "said = None\n"},
        ["test_delivery.py::test_before_send_changes_and_drops_messages_once"],
    ),
    Fault(
        "a message for which before_send fails is sent as it was",
        "before_send.py",
        {'return DropReason.FILTERED, f"before_send raised {type(error).__name__}"': "return record"},
        ["test_delivery.py::test_before_send_fails_closed"],
    ),
]

# Retries and verdicts

VERDICTS = [
    Fault(
        "the waits have no jitter",
        "retry.py",
        {'_chance.uniform(0, bound) if self._retry.jitter == "full" else float(bound)': "float(bound)"},
        ["test_retry.py::test_jitter_is_full"],
    ),
    Fault(
        "the waits go on growing after a delivery",
        "delivery.py",
        {"        self._schedule.reset()\n        self._done(stamps)": "        self._done(stamps)"},
        ["test_delivery.py::test_a_delivery_begins_the_waits_anew"],
    ),
    Fault(
        "Retry-After is ignored",
        "destinations/__init__.py",
        {"detail, asked_wait(answer.headers))": "detail)"},
        ["test_delivery.py::test_retry_after_is_the_wait"],
    ),
    Fault(
        "Retry-After is believed for hours",
        "retry.py",
        {"return min(wait, MAX_WAIT)": "return wait"},
        ["test_retry.py::test_seconds"],
    ),
    Fault(
        "a date in Retry-After is not understood",
        "retry.py",
        {"        from email.utils import": "        return None\n        from email.utils import"},
        ["test_retry.py::test_http_date"],
    ),
    Fault(
        "a date in Retry-After is taken for local time",
        "retry.py",
        {"moment.replace(tzinfo=timezone.utc)).timestamp()": "moment.astimezone()).timestamp()"},
        ["test_retry.py::test_http_date_is_in_utc_in_every_time_zone"],
    ),
    Fault(
        "a flush shortens a back-off",
        "consumer.py",
        {
            "        if now < self.not_before:\n": (
                "        if now < self.not_before and self._buffer.settled_below() >= self.flush_below:\n"
            )
        },
        ["test_consumer.py::test_a_failed_batch_stays_at_the_head_of_the_line"],
    ),
    Fault(
        "a 413 is not split",
        "destinations/__init__.py",
        {"return Verdict(Action.SPLIT, detail)": "return Verdict(Action.HALT, detail)"},
        ["test_delivery.py::test_413_splits_until_it_fits"],
    ),
    Fault(
        "the neighbours of a rejected message go with it",
        "delivery.py",
        {"HALT_PROBE\n        if len(chosen) > 1:": "HALT_PROBE\n        if len(chosen) > 2:"},
        ["test_main_job.py::test_three_poisoned_messages_of_300"],
    ),
    Fault(
        "a 401 costs the messages",
        "destinations/__init__.py",
        {"return Verdict(Action.HALT, detail, by_content": "return Verdict(Action.REJECTED, detail, by_content"},
        ["test_delivery.py::test_a_401_halts_and_keeps_everything"],
    ),
    Fault(
        "a 429 is taken for a fault of the request",
        "destinations/__init__.py",
        {"frozenset({408, 410, 425, 429, 460})": "frozenset({408, 410, 425, 460})"},
        ["test_vitally.py::test_status"],
    ),
    Fault(
        "the indexes of a 207 are off by one",
        "destinations/customerio.py",
        {"return index if known else None": "return index - 1 if known else None"},
        ["test_customerio.py::test_207_rejects_only_what_it_lists"],
    ),
    Fault(
        "a 207 is a delivery of everything",
        "destinations/customerio.py",
        {"return replace(verdict, rejected=rejected)": "return verdict"},
        ["test_customerio.py::test_207_rejects_only_what_it_lists"],
    ),
    Fault(
        "Jitsu's ok:false is a delivery",
        "destinations/segment.py",
        {'said.get("ok") is False': 'said.get("ok") is None'},
        ["test_segment.py::test_jitsu_partial_failure"],
    ),
    Fault(
        "a captive portal's page is a delivery",
        "destinations/vitally.py",
        {"            if is_json_object(answer):": "            if is_json_object(answer) or answer.status == 200:"},
        ["test_vitally.py::test_success_with_a_body_that_is_not_the_vendors"],
    ),
    Fault(
        "a redirect is a delivery",
        "destinations/__init__.py",
        {"if _OK <= status < _REDIRECTS.start:": "if _OK <= status < _REDIRECTS.stop:"},
        ["test_client.py::test_redirects_are_not_followed"],
    ),
]

# The network

NETWORK = [
    Fault(
        "redirects are followed",
        "transport.py",
        {
            "        from requests import PreparedRequest, utils  #": (
                "        from requests import PreparedRequest, Session, utils\n\n        self._session = Session()  #"
            ),
            "        request.prepare_headers({**HEADERS, **headers})\n": (
                "        request.prepare_headers({**HEADERS, **headers})\n        request.prepare_cookies({})\n"
            ),
            "self._adapter.send(request, stream=True": "self._session.send(request, stream=True",
        },
        ["test_transport.py::test_redirect_is_not_followed"],
    ),
    Fault(
        "a .netrc replaces the Authorization",
        "transport.py",
        {
            "        request.prepare_headers({**HEADERS, **headers})\n": (
                "        request.prepare_headers({**HEADERS, **headers})\n"
                "        request.prepare_auth(utils.get_netrc_auth(url))\n"
            )
        },
        ["test_transport.py::test_netrc_is_ignored"],
    ),
    Fault(
        "proxies of the environment are used unasked",
        "transport.py",
        {'if self._proxy == "environment":': 'if self._proxy in {None, "environment"}:'},
        ["test_transport.py::test_proxies_of_the_environment_are_ignored"],
    ),
    Fault(
        "an answer is read to its end, however long it is",
        "connection.py",
        {"read(BODY_LIMIT + 1 - len(body))": "read(None)"},
        ["test_transport.py::test_long_body_is_cut_and_its_connection_closed"],
    ),
    Fault(
        "a server may say as much as it likes",
        "connection.py",
        {"if self.received > _SPEECH_LIMIT:": "if self.received > _SPEECH_LIMIT**2:"},
        ["test_transport.py::test_chunk_of_a_negative_size_is_not_read_to_its_end[plain]"],
    ),
    Fault(
        "headers that break off are an answer",
        "connection.py",
        {"    if cut:\n": "    if False:\n"},
        ["test_transport.py::test_incomplete_or_bad_answer"],
    ),
    Fault(
        "a compressed answer is inflated",
        "transport.py",
        {"decode_content=False": "decode_content=True"},
        ["test_transport.py::test_compressed_body_stays_compressed"],
    ),
    Fault(
        "the timeout is that of each read",
        "connection.py",
        {"self.settimeout(self.watch.left())": "self.settimeout(self.watch.total)"},
        ["test_transport.py::test_slow_proxy_ends_at_the_timeout"],
    ),
    Fault(
        "a kept connection that was closed meanwhile costs the attempt",
        "transport.py",
        {'result.kind == "reset" and not (watch': 'result.kind == "closed" and not (watch'},
        ["test_transport.py::test_stale_connection_is_replaced[plain]"],
    ),
    Fault(
        "a request whose answer has begun is sent again",
        "transport.py",
        {"not (watch.dialled or watch.received)": "not watch.dialled"},
        ["test_transport.py::test_begun_answer_is_not_asked_for_again"],
    ),
    Fault(
        "with authorities of one's own certificates are not checked",
        "transport.py",
        {
            "        if self._verify is False:\n": "        if self._verify is not True:\n",
            '"verify": self._verify is not False': '"verify": self._verify is True',
        },
        ["test_transport.py::test_other_host_is_refused"],
    ),
    Fault(
        "certificates are not checked",
        "transport.py",
        {
            "        if self._verify is False:\n": "        if self._verify:\n",
            '"verify": self._verify is not False': '"verify": not self._verify',
        },
        ["test_transport.py::test_unknown_authority_is_refused"],
    ),
    Fault(
        "plain http is taken for hosts that only look like this machine",
        "destinations/__init__.py",
        {'host == "localhost" or host.endswith(".localhost")': '"localhost" in host'},
        ["test_vitally.py::test_plain_http_is_for_this_machine"],
    ),
    Fault(
        "only the beginning of a subdomain is looked at",
        "destinations/vitally.py",
        {"_SUBDOMAIN.fullmatch(subdomain)": "_SUBDOMAIN.match(subdomain)"},
        ["test_vitally.py::test_subdomain_that_is_no_name"],
    ),
    Fault(
        "Vitally's token goes as a user's name",
        "destinations/vitally.py",
        {
            "from dataclasses import replace\n": "from base64 import b64encode\nfrom dataclasses import replace\n",
            'f"Basic {token}"': """f"Basic {b64encode(f'{token}:'.encode()).decode()}\"""",
        },
        ["test_vitally.py::test_token_goes_raw"],
    ),
]

# What is shown

SHOWN = [
    Fault(
        "a repr shows the token",
        "destinations/vitally.py",
        {'return f"Vitally({self.url!r}, ': 'return f"Vitally({self.url!r}, {self.secrets[0]!s}, '},
        ["test_vitally.py::test_token_is_not_shown"],
    ),
    Fault(
        "a token that a server repeats is shown",
        "text.py",
        {"    for secret in secrets:": "    for secret in ():"},
        ["test_client.py::test_the_token_is_nowhere_to_be_seen"],
    ),
    Fault(
        "a server's text is not escaped",
        "text.py",
        {"c if c.isprintable() else": "c if c else"},
        ["test_callbacks.py::test_text_from_a_server_cannot_forge_log_lines"],
    ),
    Fault(
        "an error about a bad header repeats the header",
        "transport.py",
        {"detail = type(root).__name__\n": 'detail = f"{type(root).__name__}: {root}"\n'},
        ["test_transport.py::test_bad_url_or_header"],
    ),
    Fault(
        "an error in the consumer quotes the message",
        "report.py",
        {"{type(error).__name__} in {place.name}": "{error!r} in {place.name}"},
        ["test_callbacks.py::test_an_error_in_the_consumer_costs_a_wait_and_quotes_nothing"],
    ),
    Fault(
        "every failure makes a line in the log",
        "log.py",
        {"if total and (now or moment >= self._next.get(reason, moment)):": "if total:"},
        ["test_callbacks.py::test_failures_are_logged_once_in_ten_seconds"],
    ),
]

# Values and forms

VALUES = [
    Fault(
        "a naive datetime is taken for UTC",
        "given.py",
        {"moment.replace(tzinfo=tzlocal())": "moment.replace(tzinfo=timezone.utc)"},
        ["test_message.py::test_naive_datetimes_are_local_time"],
    ),
    Fault(
        "a number of seconds is truncated to milliseconds",
        "given.py",
        {"round(seconds * 1000)": "int(seconds * 1000)"},
        ["test_message.py::test_numbers_are_rounded"],
    ),
    Fault(
        "NaN is written as NaN",
        "encoding.py",
        {
            "dumps, loads = orjson.dumps, orjson.loads": (
                'dumps, loads = (lambda m, d, o: json.dumps(m, separators=(",", ":")).encode()), orjson.loads'
            ),
            " if math.isfinite(value) else None,": ",",
        },
        ["test_client.py::test_odd_values_never_cost_the_event"],
    ),
    Fault(
        "a value whose own code raises costs the call",
        "encoding.py",
        {"        return _FAILED\n": "        raise\n"},
        ["test_encoding.py::test_hook_that_raises"],
    ),
    Fault(
        "an integer of too many digits raises",
        "encoding.py",
        {"except ValueError:  # over sys": "except OverflowError:  # over sys"},
        ["test_encoding.py::test_digits_that_python_refuses"],
    ),
    Fault(
        "an object that occurs twice is taken for a circle",
        "encoding.py",
        {"            self._path.discard(identity)": "            pass"},
        ["test_encoding.py::test_same_object_twice"],
    ),
    Fault(
        "orjson is handed the caller's own dict",
        "plain.py",
        {"copy, room = content.copy(), None": "copy, room = content, None"},
        ["test_plain.py::test_copy_is_private"],
    ),
    Fault(
        "orjson is handed what stands in a list below a list",
        "plain.py",
        {"is not tuple:\n        return None": "is not tuple:\n        return value"},
        ["test_plain.py::test_anything_else_is_not_plain"],
    ),
    Fault(
        "a UUID that was never finished is plain",
        "plain.py",
        {"type(number) is int and not number >> _UUID_BITS": "number != 0"},
        ["test_values.py::test_what_crashes_the_encoder_does_not_reach_it"],
    ),
    Fault(
        "a native message is known by what it says of itself",
        "message.py",
        {"if not issubclass(type(message), dict):": "if not isinstance(message, dict):"},
        ["test_values.py::test_nothing_makes_enqueue_raise"],
    ),
    Fault(
        "a message id of a caller's own class is asked for its length",
        "given.py",
        {"    text = text_of(value)\n    if 1 <=": '    text = value if isinstance(value, str) else ""\n    if 1 <='},
        ["test_values.py::test_no_argument_makes_a_call_raise[message_id]"],
    ),
    Fault(
        "a duration depends on the application's decimal context",
        "encoding.py",
        {
            "    return int(seconds) if seconds.is_integer() else seconds": (
                "    from decimal import Decimal\n    whole = Decimal(seconds)\n"
                "    return int(whole) if whole == int(whole) else seconds"
            )
        },
        ["test_values.py::test_numbers_whatever_the_decimal_context_traps"],
    ),
    Fault(
        "a class is looked up by itself",
        "encoding.py",
        {"_SCALARS.get(id(type(value)))": "{**_SCALARS}.get(hash(type(value)) and id(type(value)))"},
        ["test_values.py::test_no_argument_makes_a_call_raise[a value]"],
    ),
    Fault(
        "what never ends is read to the same bound each time",
        "encoding.py",
        {"self._most = max(self._most // 2, _FEW)": "self._most = _VALUES"},
        ["test_values.py::test_what_never_ends_is_read_to_a_bound_that_many_share"],
    ),
    Fault(
        "a native message is changed in the caller's hands",
        "message.py",
        {"    flags = NATIVE\n": '    message.setdefault("sentBy", "us")\n    flags = NATIVE\n'},
        ["test_client.py::test_arguments_are_neither_kept_nor_changed"],
    ),
    Fault(
        "a native message with an id gets another one",
        "message.py",
        {"dict.__contains__(message, id_field)": 'dict.__contains__(message, "messageId")'},
        ["test_customerio.py::test_native_event_keeps_its_own_id_and_time"],
    ),
    Fault(
        "Segment is not told the library",
        "destinations/segment.py",
        {'context.setdefault("library", _LIBRARY)': "pass"},
        ["test_segment.py::test_form_of_a_message"],
    ),
    Fault(
        "context of Segment's is sent to Vitally",
        "destinations/vitally.py",
        {"if flags_of(record) & SEGMENT_FIELDS:": "if flags_of(record) < SEGMENT_FIELDS:"},
        ["test_vitally.py::test_what_is_meant_for_other_vendors_does_not_reach_vitally"],
    ),
    Fault(
        "bodies are compressed for vendors that do not take that",
        "assembly.py",
        {"gzip=bool(options.gzip) and destination.gzip": "gzip=bool(options.gzip)"},
        ["test_segment.py::test_compressed_only_where_the_vendor_takes_it"],
    ),
    Fault(
        "importing the package loads requests",
        "__init__.py",
        {"from .version import __version__\n": "from .assembly import assemble\nfrom .version import __version__\n"},
        ["test_imports.py::test_import_loads_nothing_heavy"],
    ),
]

# Several requests in flight

FLIGHTS = [
    Fault(
        "two requests are about one user at a time",
        "concurrency.py",
        {"or not taken.isdisjoint(entities)": ""},
        ["test_concurrency.py::test_requests_overlap_up_to_the_limit_and_a_user_stays_in_order"],
    ),
    Fault(
        "an alias that waits for one of its ids does not hold back the other",
        "concurrency.py",
        {"                taken.update(entities)": "                taken.update(entities[1:])"},
        ["test_concurrency.py::test_an_alias_waits_for_both_and_holds_both_back"],
    ),
    Fault(
        "whom a batch that is tried again is about is forgotten",
        "concurrency.py",
        {"        if not slot.lease.records:\n            slot.entities = _NOBODY": "        slot.entities = _NOBODY"},
        ["test_concurrency.py::test_failures_keep_each_users_order_and_lose_nothing"],
    ),
    Fault(
        "a vendor that fails is asked by all requests at once",
        "concurrency.py",
        {"self._careful = outcome.error is not None": "self._careful = False"},
        ["test_concurrency.py::test_after_a_failure_one_request_at_a_time_asks_again"],
    ),
    Fault(
        "a 429 pauses the request that got it",
        "concurrency.py",
        {"            self.not_before = max(self.not_before, self._clock() + outcome.wait)\n": "            pass\n"},
        ["test_concurrency.py::test_a_429_pauses_all_requests"],
    ),
    Fault(
        "each destination has a pace of its own",
        "assembly.py",
        {"options, pace, alone=alone)) for": "options, rate and Pace(rate), alone=alone)) for"},
        ["test_concurrency.py::test_requests_keep_the_pace_over_all_destinations"],
    ),
    Fault(
        "the threads of requests outlive the client",
        "concurrency.py",
        {"            inbox.put(None)\n": "            pass\n"},
        ["test_concurrency.py::test_threads_end_with_the_client"],
    ),
]

# Dead letters, and sending them again

LETTERS = [
    Fault(
        "the end of what a killed process wrote swallows the next letter",
        "dead_letters.py",
        {'if os.read(file, 1) != b"\\n":': 'if os.read(file, 1) == b"":'},
        ["test_dead_letters.py::test_a_torn_last_line_swallows_no_other"],
    ),
    Fault(
        "a letter is written to a file that was moved away",
        "dead_letters.py",
        {"yield file if is_still(path, file) else None": "yield file"},
        ["test_dead_letters.py::test_a_file_that_was_moved_away_is_not_written_to"],
    ),
    Fault(
        "on a full disk the beginning of a letter stays",
        "dead_letters.py",
        {"        os.ftruncate(file, size)  # as nobody else writes\n": ""},
        ["test_dead_letters.py::test_a_full_disk_costs_letters_and_nothing_else"],
    ),
    Fault(
        "several processes write letters without a lock",
        "dead_letters.py",
        {"        _wait_for_lock(file, patience)\n": ""},
        [
            "test_dead_letters.py::test_a_file_that_was_moved_away_is_not_written_to",
            "test_dead_letters.py::test_who_keeps_the_lock_costs_a_second_once",
        ],
    ),
    Fault(
        "everybody may read the letters",
        "dead_letters.py",
        {"_MODE: Final = 0o600": "_MODE: Final = 0o644"},
        ["test_dead_letters.py::test_the_file_is_its_owners_alone"],
    ),
    Fault(
        "what before_send dropped is kept as a letter",
        "dead_letters.py",
        {"if reason is DropReason.FILTERED or not records:": "if not records:"},
        ["test_dead_letters.py::test_what_before_send_drops_is_not_written"],
    ),
    Fault(
        "a replay notes a batch as settled before it is sent",
        "replays.py",
        {
            "                            self._settle(batch)\n                            claim.settle(file, end)\n": (
                "                            claim.settle(file, end)\n                            self._settle(batch)\n"
            )
        },
        ["test_replay.py::test_a_kill_at_any_step_of_a_replay_loses_nothing"],
    ),
    Fault(
        "a replay believes a note that was begun",
        "claim.py",
        {'(\\d+) settled")': '(\\d+).*")'},
        ["test_replay.py::test_a_half_written_note_of_progress_is_not_believed"],
    ),
    Fault(
        "a replay gives a message another id",
        "replays.py",
        {'message["messageId"] = checked_message_id(own_id)\n        flags |= ID_GIVEN': "checked_message_id(own_id)"},
        ["test_replay.py::test_what_is_sent_again_is_what_was_refused[customerio-inline]"],
    ),
    Fault(
        "two replays of a file run at once",
        "claim.py",
        {"    if not try_lock(opened):\n": "    if try_lock(opened) is None:\n"},
        ["test_replay.py::test_a_second_replay_leaves"],
    ),
    Fault(
        "a shutdown returns while a loss is being told",
        "pipeline.py",
        {"            self.await_step(min(_REPORTING,": "            min((_REPORTING,"},
        ["test_callbacks.py::test_a_shutdown_waits_for_what_is_being_told"],
    ),
]

FLEET = [
    Fault(
        "a batch whose answer was lost is added again",
        "fleet/entries.py",
        {"if last == ARGV[2] .. ' ' .. ARGV[3] then return {{'AGAIN'}} end\n": ""},
        ["test_redis_buffer.py::test_a_lost_answer_costs_no_second_entry"],
    ),
    Fault(
        "a stream has no bound",
        "fleet/entries.py",
        {"length + count > tonumber(ARGV[4]) or held + size > tonumber(ARGV[5])": "length + count > 1e9"},
        ["test_redis_buffer.py::test_a_full_stream_takes_nothing_more"],
    ),
    Fault(
        "a server that forgets is taken",
        "fleet/server.py",
        {'if not told.get("aof_enabled"):': 'if told.get("aof_enabled") == 7:'},
        ["test_redis_buffer.py::test_a_server_that_forgets_is_refused"],
    ),
    Fault(
        "each process has shards of its own",
        "fleet/shipping.py",
        {'int.from_bytes(blake2b(about, digest_size=8).digest(), "big") % shards': "hash(about) % shards"},
        ["test_redis_buffer.py::test_every_process_finds_the_same_shard"],
    ),
    Fault(
        "a relay sends for a shard that may be another's",
        "fleet/serving.py",
        {"        if not self._holding.is_sure:": "        if self._holding.lost:"},
        ["test_relay.py::test_nothing_is_begun_once_the_lease_may_be_another_ones"],
    ),
    Fault(
        "a 429 pauses one relay only",
        "fleet/serving.py",
        {"            self._pause(outcome.wait)": "            pass"},
        ["test_fleet.py::test_a_429_pauses_all_relays"],
    ),
    Fault(
        "each relay has the whole rate",
        "fleet/rate.py",
        {"keys.pause, keys.rate]": "keys.pause, keys.lease(shard) + str(id(self))]"},
        ["test_fleet.py::test_one_rate_holds_over_all_relays"],
    ),
    Fault(
        "what a dead relay had pending is left",
        "fleet/shard_buffer.py",
        {"        while self._adopted:": "        while not self._relay:"},
        ["test_fleet.py::test_another_relay_takes_over_within_the_lease"],
    ),
    Fault(
        "a message is acknowledged before its letter is written",
        "consumer.py",
        {
            "        self._write_durably(outcome.losses, records)\n": "",
            "        written = self._buffer.durable\n": "        written = bool(self)\n",
        },
        ["test_relay.py::test_dead_letters_go_to_a_file"],
    ),
    Fault(
        "a scrape fails with the server",
        "fleet/metrics.py",
        {"    except OSError:": "    except KeyError:"},
        ["test_metrics.py::test_a_scrape_finds_what_relays_did_and_what_is_left"],
    ),
]

DISK = [
    Fault(
        "a child keeps its parent's lock",
        "buffers/owners.py",
        {"    for descriptor in tuple(_held):\n": "    for descriptor in ():\n"},
        ["test_sqlite.py::test_a_child_does_not_keep_its_parent_alive"],
    ),
    Fault(
        "who lives is taken for dead",
        "buffers/spool_heirs.py",
        {"            if estate.is_free:": "            if True:"},
        [
            "test_sqlite.py::test_a_stopped_owner_keeps_its_messages",
            "test_sqlite.py::test_two_clients_of_one_process_are_two_owners",
        ],
    ),
    Fault(
        "others may read the file",
        "buffers/spool_disk.py",
        {"else flags, 0o600)": "else flags, 0o644)"},
        ["test_spool_file.py::test_nobody_else_may_read_the_files"],
    ),
    Fault(
        "the log may have the last of the disk",
        "buffers/spool_disk.py",
        {" - 2 * log_pages(path, page, most) * page": ""},
        ["test_sqlite.py::test_a_full_file_system_is_emptied"],
    ),
    Fault(
        "a removal writes all that it frees into the log",
        "buffers/spool_connections.py",
        {"secure_delete = FAST": "secure_delete = ON"},
        ["test_sqlite.py::test_a_full_file_system_is_emptied"],
    ),
    Fault(
        "the monotonic clock of another run of the system is believed",
        "buffers/spool_lines.py",
        {"record if line.same_boot else rebased(record, now, moment)": "record"},
        ["test_spool_file.py::test_ages_hold_across_processes"],
    ),
    Fault(
        "a wall clock that was never set is believed",
        "stamp.py",
        {" if _UNSET < wall < moment else 0.0": ""},
        ["test_spool_file.py::test_ages_hold_across_processes"],
    ),
    Fault(
        "the file grows without bound",
        "buffers/spool_connections.py",
        {"max_page_count = {pages}": "max_page_count = 999999999"},
        ["test_spool_file.py::test_the_file_is_bounded", "test_spool_file.py::test_the_bytes_of_others_count_too"],
    ),
    Fault(
        "the log grows without bound while somebody reads",
        "buffers/spool_connections.py",
        {"            self._bound_log(self._writer)\n": ""},
        ["test_spool_file.py::test_the_log_is_bounded_while_somebody_reads"],
    ),
    Fault(
        "what puts share is held while the log is written back",
        "buffers/spool_file.py",
        {"                    self.let_go()": "                    pass"},
        ["test_spool_file.py::test_puts_share_a_transaction_until_somebody_comes_by"],
    ),
    Fault(
        "puts share a transaction that nobody ends",
        "buffers/spool_statements.py",
        {"self._shares = self.may_share and ": "self._shares = "},
        ["test_spool_file.py::test_puts_share_a_transaction_until_somebody_comes_by"],
    ),
    Fault(
        "a put is refused because another process wrote",
        "buffers/spool_statements.py",
        {"                if self.let_go():": "                if False:"},
        ["test_spool_file.py::test_puts_of_two_who_share_nothing_with_each_other"],
    ),
    Fault(
        "another application's database is opened",
        "buffers/spool_schema.py",
        {"!= APPLICATION_ID:": "== 7:"},
        ["test_spool_file.py::test_a_strange_file_is_refused_and_left_as_it_is"],
    ),
    Fault(
        "a disk without shared memory is taken",
        "buffers/spool_schema.py",
        {'.fetchone()[0] != b"wal"': '.fetchone()[0] == b"?"'},
        ["test_spool_file.py::test_a_disk_without_shared_memory_is_refused"],
    ),
    Fault(
        "a damaged record is handed out",
        "buffers/spool_file.py",
        {"total == crc32(record, row & SEED)": "total is not None"},
        ["test_spool_file.py::test_a_damaged_file_costs_what_was_touched", "test_spool_file.py::test_a_loss_is_told"],
    ),
    Fault(
        "rows of a damaged file are believed in any order",
        "buffers/spool_file.py",
        {"if not last < row <= upto:": "if row == last == upto:"},
        ["test_spool_file.py::test_a_damaged_file_costs_what_was_touched"],
    ),
    Fault(
        "what cannot be read is asked for without a pause",
        "buffers/spool.py",
        {"            self._token.acquire(timeout=_UNREADABLE)": "            pass"},
        ["test_spool_file.py::test_what_cannot_be_read_is_asked_for_less_often"],
    ),
    Fault(
        "what was left is not sent before a call",
        "client.py",
        {"                if lane.buffer.durable:": "                if not lane.buffer.durable:"},
        ["test_sqlite.py::test_what_is_left_is_sent_by_the_next_client"],
    ),
    Fault(
        "the exit calls lost what is kept",
        "pipeline.py",
        {"kept=bool(kept)": "kept=False"},
        ["test_sqlite.py::test_the_exit_says_what_is_kept"],
    ),
    Fault(
        "a message leaves the file before its letter is written",
        "consumer.py",
        {
            "        self._write_durably(outcome.losses, records)\n": "",
            "        written = self._buffer.durable\n": "        written = False\n",
        },
        ["test_sqlite.py::test_a_kill_at_any_step_leaves_the_message_or_its_letter"],
    ),
]

# The live page

PAGE = [
    Fault(
        "any name in the Host header is answered",
        "live/access.py",
        {"        return own is not None and own.is_unspecified and _address(name) is not None": "        return True"},
        ["test_live.py::test_a_rebound_name_is_refused"],
    ),
    Fault(
        "an address is a known name of any receiver",
        "live/access.py",
        {"own is not None and own.is_unspecified and ": ""},
        ["test_live.py::test_a_rebound_name_is_refused"],
    ),
    Fault(
        "a form of another site presses buttons",
        "live/access.py",
        {"request.headers.get(HEADER) is None or ": ""},
        ["test_live.py::test_no_other_page_presses_the_buttons"],
    ),
    Fault(
        "a button is pressed from any origin",
        "live/access.py",
        {' or request.headers.get("origin") != f"http://{host}"': ""},
        ["test_live.py::test_no_other_page_presses_the_buttons"],
    ),
    Fault(
        "the data need no token",
        "live/serving.py",
        {
            '        if not self._access.admits(request):\n            return _said(HTTPStatus.UNAUTHORIZED, "Open': (
                '        if False:\n            return _said(HTTPStatus.UNAUTHORIZED, "Open'
            )
        },
        ["test_live.py::test_a_token_opens_the_page_once_and_a_cookie_from_then_on"],
    ),
    Fault(
        "the cookie is the token",
        "live/access.py",
        {"seal(secrets.token_urlsafe(24))": "token"},
        ["test_live.py::test_a_token_opens_the_page_once_and_a_cookie_from_then_on"],
    ),
    Fault(
        "headers are shown unless they are known to be secret",
        "live/rows.py",
        {"value[:_HEADER_TEXT] if name in _HARMLESS else _HIDDEN": "_HIDDEN if name == 'authorization' else value"},
        ["test_live.py::test_no_secret_is_ever_shown"],
    ),
    Fault(
        "faults are counted by messages, and not by places in the batch",
        "live/rows.py",
        {
            "    places = [place for place, text in enumerate(texts) if text.startswith(": (
                "    texts = [text for text in texts if text.startswith('{')]\n"
                "    places = [place for place, text in enumerate(texts) if text.startswith("
            )
        },
        ["test_live.py::test_each_rule_stands_with_the_message_that_breaks_it"],
    ),
    Fault(
        "a message is shown as a parser read it",
        "live/rows.py",
        {"        text = texts[place].encode()\n": "        text = json.dumps(message).encode()\n"},
        ["test_live.py::test_a_message_is_shown_as_it_was_spelt"],
    ),
    Fault(
        "what is kept has no bound in bytes",
        "live/feed.py",
        {" or (self._entries and self._bytes > self._most_bytes)": ""},
        ["test_live.py::test_the_newest_are_kept_within_both_bounds"],
    ),
    Fault(
        "ids are remembered after their messages",
        "live/feed.py",
        {"            if not self._seen[entry.key]:\n                del self._seen[entry.key]\n": ""},
        ["test_live.py::test_the_newest_are_kept_within_both_bounds"],
    ),
    Fault(
        "a stream's position is forgotten",
        "live/feed.py",
        {"return int(cleared), int(number)": "return int(cleared), 0"},
        ["test_live.py::test_a_browser_that_comes_again_goes_on_where_it_was"],
    ),
    Fault(
        "a clear is not told",
        "live/feed.py",
        {"            self._cleared += 1\n": ""},
        ["test_live.py::test_clearing_reaches_every_browser"],
    ),
    Fault(
        "a browser that has gone keeps its place",
        "live/feed.py",
        {"                self._browsers -= 1": "                pass"},
        ["test_live.py::test_so_many_browsers_and_no_more"],
    ),
    Fault(
        "weather does not end",
        "live/weather.py",
        {"(self._name, left) if left > 0 else (CLEAR, 0.0)": "(self._name, left)"},
        ["test_live.py::test_the_weather_ends_by_itself"],
    ),
    Fault(
        "other messages are refused at each retry",
        "live/weather.py",
        {"zlib.crc32(json.dumps(own, sort_keys=True).encode())": "time.monotonic_ns() >> 10"},
        ["test_live.py::test_an_application_copes_with_one_in_ten_refused"],
    ),
    Fault(
        "the secret stands in the curl",
        "live/curl.py",
        {'    return f"curl {auth}': "    auth = auth.replace('$TOKEN', 'key')\n    return f\"curl {auth}"},
        ["test_live.py::test_the_curl_sends_the_message_again"],
    ),
    Fault(
        "the page's policy allows any script",
        "live/serving.py",
        {"script-src 'nonce-{nonce}'": "script-src 'nonce-{nonce}' 'unsafe-eval'"},
        ["test_live.py::test_the_page_is_one_file_that_asks_nobody_else"],
    ),
]

# Imports of files, and what the command line says

IMPORTS = [
    Fault(
        "a given time in UTC is believed whatever its day",
        "given.py",
        {"|02-(?:0[1-9]|1[0-9]|2[0-8]))": "|02-(?:0[1-9]|[12][0-9]))"},
        ["test_message.py::test_utc_text_is_a_moment_or_invalid"],
    ),
    Fault(
        "a message whose time alone was given goes out without an id",
        "message.py",
        {"record[FLAGS_PLACE] & 0xF0 == _BOTH_GIVEN": "record[FLAGS_PLACE] & _BOTH_GIVEN"},
        ["test_client.py::test_a_given_id_and_time_are_checked_whatever_else_is_given"],
    ),
    Fault(
        "a row's id does not tell its line",
        "imports/ids.py",
        {'b"%d:%s" % (line, raw': 'b"%d:%s" % (0, raw'},
        ["test_import_rows.py::test_ids_are_of_content_and_position"],
    ),
    Fault(
        "the checkpoint moves on what is read",
        "imports/one_file.py",
        {"        self._await()\n        self._refused.sort(": "        self._refused.sort("},
        ["test_import.py::test_a_vendor_that_refuses_requests_ends_it"],
    ),
    Fault(
        "the checkpoint is written over",
        "imports/checkpoint.py",
        {'new = path.with_name(f"{path.name}.new")': "new = path"},
        ["test_import_rows.py::test_a_checkpoint_that_cannot_be_written_leaves_the_last_one"],
    ),
    Fault(
        "the last row that was settled is not compared",
        "imports/one_file.py",
        {"if note.last_bytes and digest_of(last) != note.last:": "if note.last_bytes and not last:"},
        ["test_import.py::test_a_change_far_inside_a_file_is_seen"],
    ),
    Fault(
        "an import goes on with other settings",
        "imports/one_file.py",
        {"\n        if found.mapping != self._job.plan.digest:\n": "\n        if not found.mapping:\n"},
        ["test_import.py::test_another_file_or_mapping_is_not_gone_on_with"],
    ),
    Fault(
        "a row without a time of its own gets that of the run",
        "imports/one_file.py",
        {"started=note.started": "started=datetime.now(timezone.utc).isoformat()"},
        ["test_import.py::test_a_second_run_repeats_the_same_messages"],
    ),
    Fault(
        "rows with the same id are taken for one",
        "imports/one_file.py",
        {"                if own_id in known:": "                if own_id in known and not own_id:"},
        ["test_import.py::test_rows_with_the_same_id_are_told_apart"],
    ),
    Fault(
        "what the client's hook drops counts as refused",
        "imports/one_file.py",
        {"if fate.reason == DropReason.FILTERED:": "if not fate.reason:"},
        ["test_import_vendors.py::test_what_before_send_does_not_want_is_skipped"],
    ),
    Fault(
        "a refused row loses what is not of its encoding",
        "imports/one_file.py",
        {"row = self._form.text_of(raw)": 'row = raw.decode("utf-8", "replace")'},
        ["test_import.py::test_a_refused_row_is_kept_whole"],
    ),
    Fault(
        "refused rows that a kill left are noted twice",
        "imports/rejected.py",
        {"if self.size > size:": "if self.size < size:"},
        ["test_import_rows.py::test_what_the_checkpoint_does_not_know_is_cut_off"],
    ),
    Fault(
        "two imports of a file go on side by side",
        "imports/rejected.py",
        {"fcntl.LOCK_EX | fcntl.LOCK_NB": "fcntl.LOCK_SH | fcntl.LOCK_NB"},
        ["test_import_rows.py::test_what_the_checkpoint_does_not_know_is_cut_off"],
    ),
    Fault(
        "an import notes refused rows in a file that another has removed",
        "imports/rejected.py",
        {"        return os.path.samestat(path.stat(), os.fstat(file))\n": "        return True\n"},
        ["test_import_rows.py::test_no_row_is_noted_in_a_file_that_another_import_has_just_removed"],
    ),
    Fault(
        "a column of which a few cells have leading zeros is one of numbers",
        "imports/columns.py",
        {"    if not any(_PADDED.fullmatch(cell) for cell in given):": "    if given:"},
        ["test_import_rows.py::test_types_are_columns"],
    ),
    Fault(
        "a cell with leading zeros becomes another number",
        "imports/columns.py",
        {"    if str(value) == cell:\n        return value\n    if _INTEGER.fullmatch(cell.strip()):": "    if cell:"},
        ["test_import_rows.py::test_cells_of_another_type_are_refused"],
    ),
    Fault(
        "thirteen digits are taken for microseconds",
        "imports/columns.py",
        {'13: "epoch_ms"': '13: "epoch_us"'},
        ["test_import.py::test_a_warehouse_export"],
    ),
    Fault(
        "a byte-order mark is part of the first column's name",
        "imports/source.py",
        {"skipped = len(bom) if data.startswith(bom) else 0": "skipped = 0"},
        ["test_import_rows.py::test_bytes_that_are_no_text_cost_their_row"],
    ),
    Fault(
        "wide text that cannot be decoded is replaced",
        "imports/source.py",
        {"errors=_MARK, newline": 'errors="replace", newline'},
        ["test_import_rows.py::test_bytes_that_are_no_text_cost_their_row"],
    ),
    Fault(
        "a line without an end is read into memory",
        "imports/rows.py",
        {"raw = again.pop() if known else readline(MOST_LINE_BYTES)": "raw = again.pop() if known else readline()"},
        ["test_import_rows.py::test_a_line_without_an_end_is_refused"],
    ),
    Fault(
        "a quote without an end takes the rows behind it along",
        "imports/rows.py",
        {"                self._give_back()\n": ""},
        ["test_import_rows.py::test_a_quote_without_an_end_costs_its_own_row"],
    ),
    Fault(
        "an empty cell is a trait",
        "imports/calls.py",
        {
            "                if cell:\n                    content[name] = cell if": (
                "                if cell is not None:\n                    content[name] = cell if"
            )
        },
        ["test_import.py::test_a_spreadsheet_export"],
    ),
    Fault(
        "a JSON value that is no text is not held against its column's type",
        "imports/calls.py",
        {"value = content.get(name)": "value = one if isinstance(one := content.get(name), str) else None"},
        ["test_import.py::test_json_values_become_what_a_type_says"],
    ),
    Fault(
        "text that is no moment is refused without a word on what was expected",
        "imports/calls.py",
        {'        if word == "timestamp":': '        if word == "moment":'},
        ["test_import.py::test_moments_that_are_none_are_refused"],
    ),
    Fault(
        "the name of the file of refused rows may be lost with the power",
        "imports/rejected.py",
        {"            if is_first:\n": "            if not lines:\n"},
        ["test_import_rows.py::test_a_new_file_is_on_the_disk_with_its_name"],
    ),
    Fault(
        "an import sends without a word on the types that it found",
        "imports/one_file.py",
        {"            self._show(job, look)\n": "            pass\n"},
        ["test_import.py::test_types_are_said_before_anything_is_sent"],
    ),
    Fault(
        "what is wrong with a later file is told of when the first one was sent",
        "imports/run.py",
        {"            _check(job)\n": "            pass\n"},
        ["test_import.py::test_a_file_that_makes_no_sense_is_told_of_before_another_is_sent"],
    ),
    Fault(
        "a reader's death is the file's end",
        "imports/reading.py",
        {'    raise Stopped(f"the process that reads': '    return []\n    raise Stopped(f"the process that reads'},
        ["test_import_reading.py::test_an_import_whose_reader_is_killed_goes_on_later"],
    ),
    Fault(
        "a signal for all processes ends the one that reads",
        "imports/reading.py",
        {"signal.signal(getattr(signal, name), signal.SIG_IGN)": "pass"},
        ["test_import_reading.py::test_a_signal_for_all_processes_is_the_imports_matter"],
    ),
    Fault(
        "a file that has taken another's place is read on",
        "imports/reading.py",
        {"if source.identity != task.identity:": "if not source.identity:"},
        ["test_import_reading.py::test_a_file_that_was_replaced_is_not_read"],
    ),
    Fault(
        "an error of the file ends the process that reads without a word",
        "imports/reading.py",
        {"            if isinstance(error, BrokenPipeError):\n": "            if error:\n"},
        ["test_import_reading.py::test_a_broken_file_is_told_of_as_where_it_is_read_here"],
    ),
    Fault(
        "what was settled is read ahead again",
        "imports/reading.py",
        {"source.at(task.offset)": "source.at(task.look.offset)"},
        ["test_import_reading.py::test_what_is_read_ahead_is_what_is_read_here"],
    ),
    Fault(
        "a row with a NUL is sent",
        "imports/rows.py",
        {'            if b"\\0" in raw:': '            if b"\\0\\0\\0" in raw:'},
        ["test_import_rows.py::test_a_row_with_a_nul_is_refused"],
    ),
    Fault(
        "the line by which a file tells its separator is its header",
        "imports/look.py",
        {"    if found is None:\n        return head, None": "    if found or not found:\n        return head, None"},
        ["test_exports.py::test_an_export_that_tells_excel_its_separator"],
    ),
    Fault(
        "cells behind the header's last one are dropped without a word",
        "imports/look.py",
        {"return 0 if any(behind) else": "return"},
        ["test_exports.py::test_a_cell_too_many_is_still_refused"],
    ),
    Fault(
        "files are sent in the order in which they were named",
        "imports/run.py",
        {"self.jobs = sorted(jobs, key=lambda job: job.plan.rank)": "self.jobs = list(jobs)"},
        ["test_import.py::test_every_row_is_accounted_for"],
    ),
    Fault(
        "a dry run shows messages in the neutral form",
        "imports/dry.py",
        {"loads(destination.wire(new_head(flags) + encode(dict(message))))": "dict(message)"},
        ["test_import_vendors.py::test_a_dry_run_shows_what_each_vendor_would_get"],
    ),
    Fault(
        "an import of which rows were refused says that all is well",
        "cli/import_.py",
        {"return SOME_REFUSED if result.sums.rejected else DONE": "return DONE"},
        ["test_import.py::test_refused_rows_say_what_was_wrong"],
    ),
    Fault(
        "an import that was stopped says that it failed",
        "cli/import_.py",
        {"return _SIGNALLED + came[0] if came else FAILED": "return FAILED"},
        ["test_import.py::test_a_stop_settles_what_is_in_flight"],
    ),
    Fault(
        "lines are broken where the terminal ends",
        "cli/face.py",
        {"fitting if self._out is None else _folded(fitting, self._out.width)": "fitting"},
        ["test_import.py::test_on_a_terminal"],
    ),
    Fault(
        "a secret on the command line is taken",
        "cli/__init__.py",
        {'if option.startswith("-") and name in _SECRETS:': 'if option.startswith("--") and option in _SECRETS:'},
        ["test_cli.py::test_a_secret_on_the_command_line_is_refused"],
    ),
    Fault(
        "an option of a command stays in the environment",
        "cli/app.py",
        {"            os.environ.pop(name)\n": ""},
        ["test_cli.py::test_options_leave_the_environment_as_it_was"],
    ),
    Fault(
        "a receipt does not say which line was refused",
        "cli/send.py",
        {"self._keep(self.lines.get(found), found": "self._keep(None, found"},
        ["test_send.py::test_what_is_refused_is_told_by_its_line"],
    ),
]

FAULTS = [
    *IMPORTS,
    *FLEET,
    *DISK,
    *FLIGHTS,
    *LETTERS,
    *LOCKS,
    *THREADS,
    *FORKS,
    *GREENLETS,
    *ENDS,
    *BOOKS,
    *SIZES,
    *IDS,
    *VERDICTS,
    *NETWORK,
    *SHOWN,
    *VALUES,
    *PAGE,
]
