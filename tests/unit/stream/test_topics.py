from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxystore_hpc.exceptions import OffsetGoneError
from proxystore_hpc.stream.topics import Limits, Topic

CONSUMERS = (b"a", b"b", b"c")


def filled(count: int, history: int = 0) -> Topic:
    topic = Topic("t", Limits(100, 1000, history))
    topic.append([b"%d" % i for i in range(count)])
    return topic


def test_the_first_group_gets_what_was_there_before_it() -> None:
    topic = filled(3)
    group = topic.group("g", "earliest", lasting=True)
    taken = [topic.message(group.take(topic.end, b"a")) for _ in range(3)]
    assert taken == [b"0", b"1", b"2"]
    assert not group.available(topic.end)


def test_settled_items_make_room_and_history_is_bounded() -> None:
    topic = filled(10, history=4)
    groups = [topic.group(name, "earliest", lasting=True) for name in "gh"]
    for group in groups:
        for _ in range(6):
            group.acknowledge(group.take(topic.end, b"a"), b"a")
    assert topic.settle()
    assert (topic.live_items, topic.live_bytes) == (4, 4)
    assert (topic.base, topic.history_bytes) == (2, 4)
    assert not topic.settle()


def test_replay_reaches_as_far_back_as_history() -> None:
    topic = filled(10, history=4)
    group = topic.group("g", "earliest", lasting=True)
    for _ in range(10):
        group.acknowledge(group.take(topic.end, b"a"), b"a")
    topic.settle()
    topic.seek("g", 6)
    assert topic.live_items == 4
    assert topic.message(group.take(topic.end, b"a")) == b"6"
    with pytest.raises(OffsetGoneError, match="6 to 10") as caught:
        topic.seek("g", 5)
    assert (caught.value.oldest, caught.value.end) == (6, 10)
    with pytest.raises(OffsetGoneError):
        topic.group("h", 11, lasting=True)


def test_latest_is_what_comes_from_now_on() -> None:
    topic = filled(3)
    group = topic.group("g", "latest", lasting=True)
    assert not group.available(topic.end)
    topic.append([b"new"])
    assert topic.message(group.take(topic.end, b"a")) == b"new"


def test_a_slow_consumer_is_believed_until_another_has_its_item() -> None:
    topic = filled(2)
    group = topic.group("g", "earliest", lasting=True)
    first = group.take(topic.end, b"a")
    group.give_back(first, b"a")
    assert group.acknowledge(first, b"a")
    second = group.take(topic.end, b"a")
    assert second == 1
    group.give_back(second, b"a")
    assert group.take(topic.end, b"b") == second
    assert not group.acknowledge(second, b"a")
    assert second in group.again
    assert group.acknowledge(second, b"b")


def test_a_topic_closes_when_as_many_producers_as_expected_have_ended() -> None:
    topic = filled(0)
    topic.produce(b"a", 2)
    assert not topic.finish(b"a", ends=False)
    assert not topic.finish(b"a", ends=False)  # told twice
    topic.produce(b"b", 2)
    topic.produce(b"c", 2)
    assert not topic.finish(b"b", ends=False)
    assert topic.finish(b"c", ends=False)


class Log(RuleBasedStateMachine):
    """What is true of the log whatever producers and consumers do."""

    def __init__(self) -> None:
        super().__init__()
        self.topic = Topic("t", Limits(20, 200, 30))
        self.sent: list[bytes] = []
        self.seen: dict[str, set[int]] = {}
        self.held: set[tuple[str, int, bytes]] = set()
        for name in "gh":
            self.topic.group(name, "earliest", lasting=True)
            self.seen[name] = set()

    @rule(messages=st.lists(st.binary(max_size=15), min_size=1, max_size=4))
    def send(self, messages: list[bytes]) -> None:
        if self.topic.has_room(len(messages), sum(map(len, messages))):
            assert self.topic.append(messages) == len(self.sent)
            self.sent += messages

    @rule(name=st.sampled_from("gh"), consumer=st.sampled_from(CONSUMERS))
    def take(self, name: str, consumer: bytes) -> None:
        group = self.topic.groups[name]
        if not group.available(self.topic.end):
            return
        offset = group.take(self.topic.end, consumer)
        assert self.topic.message(offset) == self.sent[offset]
        assert offset not in self.seen[name], "it was worked off before"
        assert not any(held[:2] == (name, offset) for held in self.held), "another has it"
        self.held.add((name, offset, consumer))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), works=st.booleans())
    def end(self, data: st.DataObject, works: bool) -> None:
        name, offset, consumer = data.draw(st.sampled_from(sorted(self.held)))
        self.held.discard((name, offset, consumer))
        group = self.topic.groups[name]
        if works:
            group.acknowledge(offset, consumer)
            self.seen[name].add(offset)
        else:
            assert group.give_back(offset, consumer)
        self.topic.settle()

    @invariant()
    def counts_are_right(self) -> None:
        topic = self.topic
        settled = min(group.floor for group in topic.groups.values())
        assert topic.settled == settled
        assert topic.live_bytes == sum(map(len, self.sent[settled:]))
        assert topic.history_bytes == sum(map(len, self.sent[topic.base : settled]))
        assert topic.history_bytes <= topic.limits.history
        assert topic.live_items <= topic.limits.items
        assert topic.live_bytes <= topic.limits.nbytes

    def teardown(self) -> None:
        # Whatever happened, every group can work off the rest.
        for name, group in self.topic.groups.items():
            for held in [held for held in self.held if held[0] == name]:
                group.give_back(held[1], held[2])
            while group.available(self.topic.end):
                offset = group.take(self.topic.end, b"z")
                group.acknowledge(offset, b"z")
                self.seen[name].add(offset)
            assert self.seen[name] == set(range(len(self.sent)))
        self.topic.settle()
        assert self.topic.live_items == 0


TestLog = Log.TestCase
TestLog.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
