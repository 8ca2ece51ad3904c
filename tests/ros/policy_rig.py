"""What the tests of the policy node share: a contract, an untrained checkpoint, processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COMMANDS = ('/arm/joint_trajectory', '/gripper/commands')

CONTRACT = """
name: two_joints
rate_hz: 10.0
clock: header
cameras:
  eye:
    {topic: /eye/compressed, type: sensor_msgs/msg/CompressedImage, size: [24, 32],
     max_age_s: 0.3}
state:
  - {topic: /joint_states, type: sensor_msgs/msg/JointState, max_age_s: 0.3,
     fields: [position.one, position.two, position.gripper]}
action:
  - topic: /arm/joint_trajectory
    type: trajectory_msgs/msg/JointTrajectory
    dims:
      - {name: one, field: one, mode: delta, low: -0.1, high: 0.1, bins: 21, unit: rad}
      - {name: two, field: two, mode: absolute, low: -1.0, high: 1.0, bins: 16, unit: rad}
  - topic: /gripper/commands
    type: std_msgs/msg/Float64MultiArray
    dims: [{name: gripper, field: "0", mode: absolute, low: 0.0, high: 1.0, bins: 2}]
episodes: {events: /episode/events}
safety:
  limits: {one: {position: [-0.05, 0.05]}, two: {position: [-0.8, 0.8], step: 0.3, velocity: 2.0}}
  watchdog_s: 0.3
  fallback: hold
"""

MODEL = [
    'model.window=2',
    'model.channels=[4, 4, 8]',
    'model.maps=4',
    'model.image_tokens=2',
    'model.width=32',
    'model.layers=1',
    'model.heads=2',
]


def make_checkpoint(folder: Path, text: str = CONTRACT, seed: int = 0) -> Path:
    """Write the checkpoint of an untrained network for a contract; return its run folder."""
    import torch

    from bench.untrained import make_run
    from training.config import load_config

    torch.set_num_threads(1)
    return make_run(folder, text, load_config(None, MODEL), seed, gain=3.0)


class Process:
    """A program under test: its `QT` lines as they come, its whole output, and a sure end."""

    def __init__(self, module: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self._events: list[dict[str, Any]] = []
        command = [sys.executable, '-u']
        command += [module] if module.endswith('.py') else ['-m', module]
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, 'OMP_NUM_THREADS': '1', **(env or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def event(self, name: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Return the first `QT` line of that name that was not returned yet.

        AssertionError with the output if none comes.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            for index, found in enumerate(self._events):
                if found['event'] == name:
                    return self._events.pop(index)
            ended = self._process.poll() is not None and not self._reader.is_alive()
            if ended or time.monotonic() > deadline_s:
                raise AssertionError(f'no {name} event; output:\n{self.output}')
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float = 20.0) -> int:
        status = self._process.wait(timeout_s)
        self._reader.join(2.0)
        return status

    def stop(self) -> int:
        """End the process as Ctrl-C would, and by force if that does not help."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self.wait()

    @property
    def output(self) -> str:
        return ''.join(self.lines)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            if line.startswith('QT '):
                self._events.append(json.loads(line[3:]))


def robot(*arguments: str) -> Process:
    """Start the fake robot in a process of its own."""
    return Process(str(HERE / 'fake_robot.py'), *arguments)


def policy(run: Path, **parameters: Any) -> Process:
    """Start the policy node in a process of its own, active."""
    given = {'checkpoint': str(run), 'autostart': True, 'start_timeout_s': 15.0, **parameters}
    return node('qt_ros.nodes.policy', given)


def node(module: str, parameters: dict[str, Any]) -> Process:
    """Start a node in a process of its own."""
    arguments = [part for k, v in parameters.items() for part in ('-p', f'{k}:={json.dumps(v)}')]
    return Process(module, '--ros-args', *arguments)


def collector(**parameters: Any) -> Process:
    """Start the collector in a process of its own."""
    return node('qt_ros.nodes.collector', parameters)


def recorder(folder: Path, text: str = CONTRACT, **parameters: Any) -> Process:
    """Start the recorder in a process of its own; bags go into `folder`/bags."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'contract.yaml'
    path.write_text(text, encoding='utf-8')
    given = {'contract': str(path), 'out': str(folder / 'bags'), **parameters}
    return node('qt_ros.nodes.recorder', given)


@contextmanager
def in_process(
    make: Callable[..., Any], run: Path, remap: Mapping[str, str] | None = None, **parameters: Any
) -> Iterator[Any]:
    """Run a policy node in a thread of this process; it is active once the body runs.

    `remap` {topic: the one that it listens to instead}.
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.lifecycle import TransitionCallbackReturn
    from rclpy.parameter import Parameter

    given = {'checkpoint': str(run), 'start_timeout_s': 10.0, **parameters}
    context = rclpy.Context()
    rclpy.init(context=context)
    rules = [part for old, new in (remap or {}).items() for part in ('-r', f'{old}:={new}')]
    node = make(
        context=context,
        cli_args=['--ros-args', *rules] if rules else None,
        parameter_overrides=[Parameter(name, value=value) for name, value in given.items()],
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    try:
        for transition in (node.trigger_configure, node.trigger_activate):
            assert transition() == TransitionCallbackReturn.SUCCESS
        thread.start()
        yield node
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


class Client:
    """A ROS client in the test's process: asks, waits, and keeps what comes on topics."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node('test_client', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.feedback: list[Any] = []
        self._actions: dict[str, Any] = {}
        self._services: dict[str, Any] = {}

    def until(self, condition: Any, timeout_s: float = 15.0, what: str = 'the condition') -> None:
        """Spin until `condition()` holds; AssertionError if it never does."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f'{what} did not come true in {timeout_s:g} s'
            self._executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds: float) -> None:
        """Spin for a while."""
        end_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end_s, seconds + 5.0)

    def wait(self, future: Any, timeout_s: float = 20.0) -> Any:
        self.until(future.done, timeout_s, 'an answer')
        return future.result()

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service once it is there."""
        client = self._services.get(name)
        if client is None:
            client = self._services[name] = self.node.create_client(kind, name)
        self.until(client.service_is_ready, what=f'service {name}')
        return self.wait(client.call_async(request))

    def keep(self, kind: Any, topic: str) -> list[Any]:
        """Subscribe and return the list that messages are put into."""
        found: list[Any] = []
        self.node.create_subscription(kind, topic, found.append, 100)
        return found

    def change_state(self, transition: int) -> None:
        """Take the policy through a lifecycle transition, as `ros2 lifecycle set` does."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request(transition=Transition(id=transition))
        assert self.call(ChangeState, '/policy/change_state', request).success

    def connect(self, publisher: Any) -> None:
        """Wait until somebody listens to a publisher."""
        self.until(lambda: publisher.get_subscription_count() > 0, what='a subscriber')

    def send_goal(self, **goal: Any) -> Any:
        """Ask the policy to run; return the goal's handle."""
        from q_transformer_ros.action import RunEpisode
        from rclpy.action import ActionClient

        client = self._actions.get('run')
        if client is None:
            client = ActionClient(self.node, RunEpisode, '/policy/run_episode')
            self._actions['run'] = client
        self.until(client.server_is_ready, what='the action server')
        return self.wait(
            client.send_goal_async(RunEpisode.Goal(**goal), feedback_callback=self.feedback.append)
        )

    def result(self, handle: Any, timeout_s: float = 30.0) -> Any:
        """Wait for the result of a goal."""
        return self.wait(handle.get_result_async(), timeout_s).result

    def record(self, commands: tuple[str, ...] = COMMANDS, **goal: Any) -> tuple[Any, str]:
        """Record one episode of the policy; return the result and the bag's path."""
        from q_transformer_ros.srv import EndEpisode, StartEpisode

        # A recorder that has only just found a topic may miss its first message.
        for topic in (*commands, '/policy/step'):
            self.until(
                lambda topic=topic: any(
                    info.node_name == 'recorder'
                    for info in self.node.get_subscriptions_info_by_topic(topic)
                ),
                what=f'the recorder on {topic}',
            )
        self.spin(0.5)
        start = StartEpisode.Request(instruction=goal['instruction'], source='policy')
        started = self.call(StartEpisode, '/recorder/start_episode', start)
        assert started.success, started.message
        result = self.result(self.send_goal(episode_id=started.episode_id, **goal))
        end = EndEpisode.Request(outcome=result.outcome)
        ended = self.call(EndEpisode, '/recorder/end_episode', end)
        assert ended.success, ended.message
        return result, ended.uri

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        import rclpy

        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


@contextmanager
def running(*processes: Process, ready_s: float = 30.0) -> Iterator[tuple[Any, ...]]:
    """Wait until every process is ready; yield a client and then they. All are ended after it."""
    with ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
        for process in processes:
            process.event('ready', ready_s)
        yield stack.enter_context(Client()), *processes


def told(diagnostics: list[Any]) -> str:
    """Return what /diagnostics said last of the control loop."""
    found = [s for d in diagnostics for s in d.status if 'control loop' in s.name]
    return found[-1].message


def block_arm(folder: Path, text: str = '') -> tuple[Path, Callable[[], Process]]:
    """Return an untrained checkpoint for the simulated arm, and a way to start that.

    text: its contract, '' for the one that comes along.
    """
    from qt_ros.resources import resource

    text = text or resource('config/robots/block_arm.yaml').read_text(encoding='utf-8')
    given = {'image_height': 64, 'image_width': 64}
    return make_checkpoint(folder, text), lambda: node('qt_ros.nodes.sim_robot', given)


def converted(bag: str, text: str = CONTRACT) -> Any:
    """Return the one episode of a bag as the converter builds it, and its images by camera."""
    from qt_ros.bags.episodes import BagConversion
    from qt_ros.bags.reader import BagReader
    from qt_ros.contract import Contract

    with BagReader(Path(bag)) as reader:
        conversion = BagConversion(Contract.parse(text), reader)
        images: dict[str, list[Any]] = {}

        def keep(episode: Any) -> None:
            images.update({name: list(frames()) for name, frames in episode.images.items()})

        (segment,) = conversion.segments
        (built,) = conversion.convert(segment, keep).built
        return built, images


def heard_by_the_recorder(bag: str, text: str = CONTRACT) -> Any:
    """Return {stream: stamps, rising} that the recorder heard, and {stream: how disordered}."""
    from qt_ros.bags.reader import BagReader
    from qt_ros.bags.sources import BagSources
    from qt_ros.contract import Contract

    with BagReader(Path(bag)) as reader:
        sources = BagSources(Contract.parse(text), reader)
        times = {stream: stamps for stream, (stamps, _) in sources.stream_times().items()}
        return times, sources.disorder()
