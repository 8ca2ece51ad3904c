"""The one thread that thinks: it decodes images and runs the policy, off the executor.

The executor hands over one job at a time and is never blocked: while a job runs, the next is
turned down. torch releases the GIL, so timers and subscriptions go on meanwhile. Between jobs the
thread does what the next one needs anyway: it decodes and encodes images as they arrive, and lets
the policy look ahead.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qt_ros.contract import Camera, Contract
from qt_ros.decoding import DecodeError
from qt_ros.images.decoding import fit_picture, read_picture
from qt_ros.nodes.control.records import Decided, Goal, Tick
from qt_ros.observation import Observation, build_observation


class Decides(Protocol):
    """The part of `training.policy.Policy` that the live loop needs."""

    def warm_up(self) -> float:
        """Decide on nothing, so that the first real decision is not the slow one; return how long
        a decision then takes [s].
        """

    def reset(self, instruction: str) -> None:
        """Begin an episode."""

    def see(self, camera: str, image: NDArray[np.uint8]) -> None:
        """Encode an image that the next observation may hold."""

    def observe(self, observation: Observation) -> None:
        """Take in the newest observation."""

    def decide(self) -> Any:
        """Return `.action`, `.bins`, `.q` (A,) and `.q_values`, A arrays."""

    def look_ahead(self) -> None:
        """Do what the next decision needs and what is known already."""


KEPT = 4  # decoded images of each camera


class Pictures:
    """Decodes images, those that were offered ahead of time; used by one thread.

    A camera whose images change their size in the middle of an episode shows something else than
    it did: DecodeError.
    """

    def __init__(self) -> None:
        self._kept: dict[str, deque[tuple[Any, NDArray[np.uint8]]]] = {}
        self._sizes: dict[str, tuple[int, ...]] = {}  # as recorded, (height, width)

    def begin(self) -> None:
        """Let an episode begin: what cameras show now is what they are to show."""
        self._kept.clear()
        self._sizes.clear()

    def ahead(self, message: Any, camera: Camera) -> NDArray[np.uint8] | None:
        """Decode a message that may be asked for; what is wrong with it is told then."""
        try:
            image = self._decode(message, camera)
        except DecodeError:
            return None
        self._kept.setdefault(camera.name, deque(maxlen=KEPT)).append((message, image))
        return image

    def decoded(self, message: Any, camera: Camera) -> NDArray[np.uint8]:
        """Return the image (H, W, 3); raises DecodeError."""
        for known, image in self._kept.get(camera.name, ()):
            if known is message:
                return image
        return self._decode(message, camera)

    def _decode(self, message: Any, camera: Camera) -> NDArray[np.uint8]:
        picture = read_picture(message, camera)
        size = picture.pixels.shape[:2]
        known = self._sizes.setdefault(camera.name, size)
        if size != known:
            raise DecodeError(
                f'camera {camera.name}: an image of {size[0]}x{size[1]} (height x width); the '
                f'episode began with {known[0]}x{known[1]}'
            )
        return fit_picture(picture, camera)


class Inference:
    """Runs `prepare` and `think` jobs in a thread and reports each through a callback there."""

    def __init__(
        self,
        contract: Contract,
        policy: Decides,
        on_prepared: Callable[[Goal, str], None],
        on_decided: Callable[[Decided], None],
    ) -> None:
        self._contract = contract
        self._policy = policy
        self._on_prepared = on_prepared
        self._on_decided = on_decided
        self._wake = threading.Condition()
        self._job: Goal | Tick | None = None
        self._busy = False
        self._closing = False
        self._pictures = Pictures()
        self._arrived: dict[str, tuple[Any, Camera]] = {}  # camera -> its newest image
        self._ahead = False  # the policy may look ahead
        self._trouble = ''  # what went wrong between two decisions
        self._warm = threading.Event()
        self._warm_error: Exception | None = None
        self.thinking_s = 0.0  # how long a decision took once the policy was warm
        # A daemon: a policy that hangs must not keep the process, and the robot, from stopping.
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the policy is warm; raises what went wrong."""
        self._warm.wait()
        if self._warm_error is not None:
            raise self._warm_error

    def submit(self, job: Goal | Tick) -> bool:
        """Start on a goal's instruction or on a tick; False while the last job still runs."""
        with self._wake:
            if self._busy or self._closing:
                return False
            self._busy, self._job = True, job
            self._wake.notify()
            return True

    def offer(self, message: Any, camera: Camera) -> None:
        """Have an image decoded that a tick may ask for soon; one that is newer replaces it."""
        with self._wake:
            self._arrived[camera.name] = (message, camera)
            self._wake.notify()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Let the thread end; False if its job still ran after `timeout_s`."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:  # in this thread: some of what is slow at first belongs to the thread
            self.thinking_s = self._policy.warm_up()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._warm_error = error
        self._warm.set()
        while True:
            with self._wake:
                self._wake.wait_for(self._has_work)
                job, self._job = self._job, None
                if self._closing:
                    return
                if job is None:
                    arrived, self._arrived = self._arrived, {}
            if job is None:
                self._use_the_time(arrived)
                continue
            outcome = self._prepare(job) if isinstance(job, Goal) else self._decide(job)
            with self._wake:
                self._busy = False  # before the report: its receiver may submit the next job
            if isinstance(outcome, Decided):
                self._on_decided(outcome)
            else:
                self._on_prepared(*outcome)

    def _has_work(self) -> bool:
        return bool(self._job is not None or self._closing or self._arrived or self._ahead)

    def _use_the_time(self, arrived: dict[str, tuple[Any, Camera]]) -> None:
        """Do what can be done before the next job."""
        ahead, self._ahead = self._ahead, False
        try:
            if ahead:
                self._policy.look_ahead()
            for message, camera in arrived.values():
                image = self._pictures.ahead(message, camera)
                if image is not None:
                    self._policy.see(camera.name, image)
        except Exception as error:  # noqa: BLE001 - told with the next decision
            self._trouble = f'{type(error).__name__}: {error}'

    def _prepare(self, goal: Goal) -> tuple[Goal, str]:
        self._trouble = ''
        self._pictures.begin()
        try:
            self._policy.reset(goal.instruction)
        except Exception as error:  # noqa: BLE001 - the thread reports it and lives on
            return goal, f'the policy cannot take the instruction {goal.instruction!r}: {error}'
        return goal, ''

    def _decide(self, tick: Tick) -> Decided:
        times_s = [time.perf_counter()]
        observation = None
        try:
            if self._trouble:
                raise RuntimeError(self._trouble)
            observation = build_observation(
                self._contract, tick.t_ns, tick.samples, picture=self._pictures.decoded
            )
            times_s.append(time.perf_counter())
            words = _unusable(observation)
            if words:
                seconds = times_s[-1] - times_s[0]
                return Decided(tick, seconds, unusable=words, observation=observation)
            self._policy.observe(observation)
            times_s.append(time.perf_counter())
            decision = self._policy.decide()
        except Exception as error:  # noqa: BLE001 - the thread reports it and lives on
            words = f'deciding failed at tick {tick.step}: {type(error).__name__}: {error}'
            seconds = time.perf_counter() - times_s[0]
            return Decided(tick, seconds, error=words, observation=observation)
        times_s.append(time.perf_counter())
        self._ahead = True
        decode_s, encode_s, infer_s = np.diff(times_s).tolist()
        return Decided(
            tick=tick,
            inference_s=decode_s + encode_s + infer_s,
            decode_s=decode_s,
            encode_s=encode_s,
            infer_s=infer_s,
            observation=observation,
            action=np.asarray(decision.action, dtype=np.float64),
            bins=np.asarray(decision.bins),
            q=np.asarray(decision.q),
            q_values=tuple(np.asarray(values) for values in decision.q_values),
        )


def _unusable(observation: Observation) -> str:
    """Say why nothing can be decided on an observation, or ''."""
    invalid = [name for name, valid in observation.valid.items() if not valid]
    # No lens shows that: it is covered, or the camera failed.
    blank = [name for name, image in observation.images.items() if image.min() == image.max()]
    words = [f'{", ".join(invalid)}: a number that is not finite'] if invalid else []
    words += [f'{", ".join(blank)}: all pixels are the same'] if blank else []
    return '; '.join(words)
