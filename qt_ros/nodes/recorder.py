"""Records one bag per episode: everything that the contract names, and how the episode went.

`/recorder/start_episode` opens a bag and marks the START, `/recorder/end_episode` marks the STOP
with its outcome, closes the bag and reports what is in it. Each bag begins with the newest
messages of every observation from just before the START, at their true times, so that tick 0 has a
full observation: several, for the one that came last need not be the one that was stamped last.
The contract travels in the bag's custom data.

A disk that fails ends the episode as aborted, never the node. What a killed recorder left
unfinished is found at the next start, kept as NAME.recovered and reported.
"""

from __future__ import annotations

import fcntl
import json
import re
import secrets
import shutil
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from q_transformer_ros.msg import EpisodeEvent
from q_transformer_ros.srv import EndEpisode, StartEpisode
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message, serialize_message
from rosgraph_msgs.msg import Clock as ClockMsg

from qt_ros.contract import Contract
from qt_ros.episode import OUTCOMES, SOURCES
from qt_ros.errors import BagError, QtRosError
from qt_ros.nodes.episode_bag import PARTIAL, EpisodeBag, leftovers, recover
from qt_ros.nodes.log_clock import Arrival, SimLogClock, SystemLogClock
from qt_ros.nodes.raw_topics import RawTopics
from qt_ros.nodes.ros import (
    EVENTS,
    announce,
    declare,
    now_ns,
    run_node,
    to_ns,
    to_stamp,
)

CLOCK_TOPIC = '/clock'
CLOCK_TYPE = 'rosgraph_msgs/msg/Clock'
STEP_TOPIC = 'policy/step'  # in the recorder's own namespace: that of its policy
STEP_TYPE = 'q_transformer_ros/msg/PolicyStep'
EVENT_TYPE = 'q_transformer_ros/msg/EpisodeEvent'
FIRST_S = 2.0  # that an episode waits at most for streams that were never heard yet
HEAD_S = 2.0  # a message from before the START that is older is no observation of tick 0
LATE_S, LATE = 0.5, 50  # among those that came in this time, at most so many, order is not sure
DRAIN_S = 0.01  # how often messages are taken; the middleware notes when they came
POLL_S = 0.5  # how often publishers and the disk are looked at
QUIET_S = 0.005  # without a message for this long, nothing is on its way any more
QUIET_TRIES = 5  # fast topics are never quiet for that long


@dataclass
class Running:
    """The episode that is being recorded."""

    bag: EpisodeBag
    start: EpisodeEvent
    topics: tuple[str, ...]


class Recorder(Node):
    """Records episodes on request."""

    busy = False

    def __init__(self) -> None:
        super().__init__('recorder')
        self._declare()
        self._lock = _locked(self.out)
        self._running: Running | None = None
        self._newest: dict[str, deque[tuple[bytes, Arrival]]] = {}
        self._own_events: list[EpisodeEvent] = []
        self._log_clock = self._make_log_clock()
        events = self.contract.episodes.topic or '/episode/events'
        self._events_topic = events
        self._events = self.create_publisher(EpisodeEvent, events, EVENTS)
        self._observed = {item.topic for item in self.contract.observed} | set(self._extra)
        self._steps = self.resolve_topic_name(STEP_TOPIC)
        topics = {
            **self.contract.topics,
            self._steps: STEP_TYPE,
            events: EVENT_TYPE,
            **self._extra,
        }
        self._recorded = topics
        clock = {CLOCK_TOPIC: CLOCK_TYPE} if isinstance(self._log_clock, SimLogClock) else {}
        self._topics = RawTopics(
            self, {**clock, **topics}, self._on_message, live_only=(events, self._steps)
        )
        self.create_service(StartEpisode, '~/start_episode', self._on_start)
        self.create_service(EndEpisode, '~/end_episode', self._on_end)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DRAIN_S, self._topics.drain, clock=steady)
        self.create_timer(POLL_S, self._poll, clock=steady)
        self._report_leftovers()
        announce('ready', out=str(self.out), topics=sorted(topics))

    def _declare(self) -> None:
        path = declare(self, 'contract', Parameter.Type.STRING, 'Contract (YAML) of the robot.')
        out = declare(self, 'out', Parameter.Type.STRING, 'Folder that the bags are put into.')
        extra = declare(
            self, 'extra_topics', [''], "More topics to record, each written 'TOPIC TYPE'."
        )
        self._min_free_mb = declare(
            self, 'min_free_mb', 200, 'Free space that an episode needs to begin [MB].', (0, 10**7)
        )
        self.contract = Contract.load(Path(path))
        self.out = Path(out).expanduser().resolve()
        self._extra = _extra_topics(extra)

    def _make_log_clock(self) -> SystemLogClock | SimLogClock:
        if not self.get_parameter('use_sim_time').value:
            return SystemLogClock()
        return SimLogClock()

    def _report_leftovers(self) -> None:
        for partial in leftovers(self.out):
            kept = recover(partial)
            size = sum(path.stat().st_size for path in kept.iterdir())
            self.get_logger().warning(
                f'a recorder was stopped in the middle of an episode; what it wrote is {kept}'
            )
            announce('recovered', uri=str(kept), bytes=size)

    # ---- messages

    def _on_message(self, topic: str, data: bytes, arrival: Arrival) -> None:
        if topic == CLOCK_TOPIC and isinstance(self._log_clock, SimLogClock):
            clock = deserialize_message(data, ClockMsg).clock
            self._log_clock.add(arrival.source_ns, to_ns(clock))
        if topic not in self._recorded:
            return
        if topic == self._events_topic:
            event = deserialize_message(data, EpisodeEvent)
            if event in self._own_events:  # written when it was published
                self._own_events.remove(event)
                return
        if self._running is not None:
            self._running.bag.put(topic, data, arrival)
        if topic in self._observed:
            newest = self._newest.setdefault(topic, deque(maxlen=LATE))
            while newest and arrival.monotonic_s - newest[0][1].monotonic_s > LATE_S:
                newest.popleft()
            newest.append((data, arrival))

    def _now_ns(self) -> int:
        """Return the time (ns), also while callbacks, and so the node's clock, are held up."""
        if isinstance(self._log_clock, SimLogClock):
            self._topics.drain()
            return self._log_clock.newest_ns
        return now_ns(self)

    def _poll(self) -> None:
        self._topics.refresh()
        if self._running is not None and self._running.bag.error:
            self._finish('aborted', self._running.bag.error)

    # ---- services

    def _on_start(self, request: Any, response: Any) -> Any:
        try:
            running = self._begin(request)
        except (QtRosError, OSError) as error:
            response.message = str(error)
            self.get_logger().error(f'no episode was started: {error}')
            return response
        response.success = True
        response.episode_id = running.start.episode_id
        response.stamp = running.start.header.stamp
        response.uri = str(running.bag.uri)
        return response

    def _begin(self, request: Any) -> Running:
        """Open a bag, put the newest observations at its head, and mark the START."""
        self._listen()
        self._check_start(request)
        episode_id = request.episode_id or time.strftime('%Y%m%d_%H%M%S_') + secrets.token_hex(3)
        topics = {
            topic: (kind, self._topics.qualities(topic)) for topic, kind in self._recorded.items()
        }
        bag = EpisodeBag(self.out, _folder_name(episode_id), topics, self._log_clock)
        event = EpisodeEvent(
            kind=EpisodeEvent.START,
            episode_id=episode_id,
            instruction=request.instruction,
            source=request.source,
            policy_id=request.policy_id,
        )
        event.header.stamp = to_stamp(self._now_ns())
        now_s = time.monotonic()
        for topic, newest in self._newest.items():
            for data, arrival in newest:
                if now_s - arrival.monotonic_s <= HEAD_S or self._topics.latched(topic):
                    log_ns = self._log_clock.log_ns(arrival, lambda: True)
                    bag.put_at(topic, data, log_ns, early=True)
        self._running = Running(bag, event, tuple(topics))
        self._mark(event)
        announce('start', episode_id=episode_id, uri=str(bag.uri))
        return self._running

    def _listen(self) -> None:
        """Take what has come; just after the start of the node, wait for each stream's first."""
        deadline_s = time.monotonic() + FIRST_S
        while True:
            self._topics.refresh()
            self._topics.drain()
            observed = [item.topic for item in self.contract.observed]
            silent = [
                topic
                for topic in observed
                if topic not in self._newest and self.count_publishers(topic)
            ]
            if (self._now_ns() and not silent) or time.monotonic() > deadline_s:
                return
            time.sleep(QUIET_S)

    def _check_start(self, request: Any) -> None:
        problems = []
        if self._running is not None:
            running = self._running.start.episode_id
            problems.append(f'episode {running} is still being recorded; end it first')
        if request.source not in SOURCES:
            problems.append(f"source '{request.source}'; allowed: {', '.join(SOURCES)}")
        if self._now_ns() == 0:
            problems.append('use_sim_time is set but /clock says nothing; start the simulator')
        free_mb = shutil.disk_usage(self.out).free // 10**6
        if free_mb < self._min_free_mb:
            problems.append(
                f'{self.out} has {free_mb} MB free; needed: min_free_mb = {self._min_free_mb}; '
                'make room or record elsewhere'
            )
        if problems:
            raise BagError(problems)

    def _on_end(self, request: Any, response: Any) -> Any:
        if self._running is None:
            response.message = 'no episode is being recorded; start one first'
        elif request.outcome not in OUTCOMES:
            response.message = (
                f"outcome '{request.outcome}'; allowed: {', '.join(OUTCOMES)}; the episode goes on"
            )
        else:
            uri, report, error = self._finish(request.outcome, request.note)
            response.success = not error
            response.message = error
            response.uri = str(uri)
            response.report = json.dumps(report)
        return response

    def _finish(self, outcome: str, note: str) -> tuple[Path, dict[str, Any], str]:
        """Mark the STOP and close the bag; return its path, the report and what went wrong."""
        running = self._running
        assert running is not None  # callers have looked
        error = running.bag.error
        start, bag = running.start, running.bag
        stop = EpisodeEvent(
            kind=EpisodeEvent.STOP,
            episode_id=start.episode_id,
            instruction=start.instruction,
            outcome='aborted' if error else outcome,
            source=start.source,
            policy_id=start.policy_id,
            note=note,
        )
        stop.header.stamp = to_stamp(self._now_ns())
        self._mark(stop)
        for _ in range(QUIET_TRIES):
            if error or not self._topics.drain():
                break
            time.sleep(QUIET_S)
        self._running = None
        uri = bag.uri
        try:
            uri = bag.close(self._custom_data(stop))
        except BagError as problem:
            error = str(problem)
            self.get_logger().error(f'episode {start.episode_id} was aborted: {error}')
        report = self._report(running, stop)
        announce(
            'recorded',
            episode_id=start.episode_id,
            outcome='aborted' if error else outcome,
            uri=str(uri),
            error=error,
            **report,
        )
        return uri, report, error

    def _mark(self, event: EpisodeEvent) -> None:
        """Publish an event and write it into the bag."""
        assert self._running is not None
        data = serialize_message(event)
        self._own_events.append(event)
        self._running.bag.put_at(self._events_topic, data, to_ns(event.header.stamp))
        self._events.publish(event)

    def _custom_data(self, stop: EpisodeEvent) -> dict[str, str]:
        return {
            'contract': self.contract.to_yaml(),
            'contract_hash': self.contract.hash,
            'episode_id': stop.episode_id,
            'instruction': stop.instruction,
            'source': stop.source,
            'policy_id': stop.policy_id,
            'outcome': stop.outcome,
            'note': stop.note,
        }

    def _report(self, running: Running, stop: EpisodeEvent) -> dict[str, Any]:
        """Return what is in the bag, and which topics delivered nothing during the episode."""
        start = running.start
        seconds = (to_ns(stop.header.stamp) - to_ns(start.header.stamp)) / 1e9
        topics = {}
        silent = []
        for topic, count in running.bag.counts.items():
            during = count.messages - count.early
            topics[topic] = {
                'messages': count.messages,
                'rate_hz': round(during / seconds, 2) if seconds > 0 else 0.0,
                'bytes': count.bytes,
                'before_start': count.early,
            }
            expected = topic != self._steps or start.source != 'teleop'
            if expected and not during:
                silent.append(topic)
        if silent:
            self.get_logger().warning(f'nothing came on {", ".join(silent)}')
        return {
            'duration_s': seconds,
            'messages': sum(count.messages for count in running.bag.counts.values()),
            'topics': topics,
            'silent': silent,
        }

    def stop(self, reason: str) -> None:
        """End a running episode as aborted."""
        if self._running is not None:
            self._finish('aborted', reason)


def _extra_topics(entries: list[str]) -> dict[str, str]:
    """Return {topic: type} of entries 'TOPIC TYPE'; empty ones say nothing."""
    found = {}
    problems = []
    for entry in entries:
        parts = entry.split()
        if len(parts) == 2 and parts[0].startswith('/') and parts[1].count('/') == 2:
            found[parts[0]] = parts[1]
        elif parts:
            problems.append(
                f"extra_topics: '{entry}'; needed: TOPIC TYPE, such as "
                "'/tf tf2_msgs/msg/TFMessage'"
            )
    if problems:
        raise QtRosError(problems)
    return found


def _folder_name(episode_id: str) -> str:
    """Return a name for the folder of an episode's bag."""
    return re.sub(r'[^\w.-]+', '_', episode_id).strip('.') or 'episode'


def _locked(out: Path) -> Any:
    """Make the folder and claim it for this process; raises BagError when another one has it."""
    try:
        (out / PARTIAL).mkdir(parents=True, exist_ok=True)
        lock = (out / PARTIAL / 'lock').open('w')
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BagError(
            f'another recorder writes into {out}; give this one another folder'
        ) from None
    except OSError as error:
        raise BagError(
            f'cannot record into {out}: {error}; give a folder that can be written to'
        ) from error
    return lock


def main() -> int:
    """Run the recorder until Ctrl-C."""
    return run_node(Recorder)


if __name__ == '__main__':
    sys.exit(main())
