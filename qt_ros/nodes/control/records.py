"""What the parts of the control loop hand each other. All stamps are ROS time in ns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qt_ros.observation import Observation
from qt_ros.streams import Sample

# What an episode's end says of its outcome; success and failure are for a judge to say.
OUTCOMES = {
    'time_limit': 'timeout',
    'terminate_action': 'unknown',
    'canceled': 'unknown',
    'fault': 'aborted',
}


@dataclass(frozen=True)
class Goal:
    """One attempt: an instruction, and how many ticks it may take."""

    instruction: str
    max_steps: int
    dry_run: bool = False  # decide and report, publish no commands
    episode_id: str = ''


@dataclass(frozen=True)
class Tick:
    """Tick k: the time up to which observations count, and the sample of each stream."""

    goal: Goal
    step: int  # k
    t_ns: int  # t_k
    samples: Mapping[str, Sample]  # stream -> newest sample at t_k


@dataclass(frozen=True)
class Decided:
    """What the inference thread made of a tick: a decision, or why there is none."""

    tick: Tick
    inference_s: float  # decoding, encoding and deciding [s]; the next three add up to it
    decode_s: float = 0.0  # images and states out of their messages
    encode_s: float = 0.0  # the new frame
    infer_s: float = 0.0  # from the encoded frame to the action
    error: str = ''  # deciding failed: the episode cannot go on
    unusable: str = ''  # this observation cannot be decided on: a number in it is not finite
    observation: Observation | None = None
    action: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # (A,)
    bins: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # (A,)
    q: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))  # (A,)
    q_values: tuple[NDArray[np.float32], ...] = ()  # A arrays of (bins_i,)


@dataclass(frozen=True)
class StepRecord:
    """What became of a tick: the contents of a `PolicyStep` message."""

    tick: Tick
    decided: Decided | None  # None: no decision was made (a stale stream, or still thinking)
    sent: NDArray[np.float64] | None = None  # (A,) as actions; None: nothing was sent
    reasons: tuple[str, ...] = ()  # A entries, '' where no limit touched the dimension
    command_ns: int = 0  # stamp of the commands; 0: nothing was sent
    age_ns: int = 0  # when its first command (or this record) was made minus the newest image
    period_ns: int = 0  # since the previous step's commands in this episode; 0 for the first
    late: bool = False
    fate: str = ''  # one of `timing.FATES`
    wait_s: float = 0.0  # from the tick to its first command, less the work in between
    limit_s: float = 0.0  # on the first command
    publish_s: float = 0.0
    stamps_ns: tuple[int, ...] = ()  # when every command since the last record was published


@dataclass(frozen=True)
class EpisodeEnd:
    """How an episode ended, in the words of the `RunEpisode` result."""

    goal: Goal
    outcome: str  # timeout | aborted | unknown
    termination: str  # time_limit | terminate_action | canceled | fault
    message: str
    steps: int  # ticks whose command was sent (in a dry run: decided)
    late: int
    limited: int
    timing: Mapping[str, Any] = field(default_factory=dict)
