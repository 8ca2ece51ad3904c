"""The ten tasks of Meta-World's MT10 as a policy sees them: two cameras, the hand, a sentence.

Meta-World (Yu et al., 1910.10897) hands out where objects and goals are; here that stays hidden.
A policy gets the images of two cameras, where the hand is and how far the gripper is open. The
simulation runs at 80 Hz and a policy decides at 40: every action is held for `REPEAT` steps. An
episode ends with the first success, or unfinished after `MAX_STEPS` decisions (Meta-World allows
500 steps, which is 250 decisions; its experts need 20 to 70).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.learning.study import LearningError
from qt_ros.sim.render import Renderer
from training.tokens import ActionDim, ActionSpace

INSTRUCTIONS = {  # of each task of MT10; the goal marks are spheres that the cameras see
    'reach-v3': 'move the hand to the red mark',
    'push-v3': 'push the puck to the green mark',
    'pick-place-v3': 'pick up the puck and bring it to the blue mark',
    'door-open-v3': 'open the door',
    'drawer-open-v3': 'open the drawer',
    'drawer-close-v3': 'close the drawer',
    'button-press-topdown-v3': 'press the button from above',
    'peg-insert-side-v3': 'put the peg into the hole of the box',
    'window-open-v3': 'open the window',
    'window-close-v3': 'close the window',
}
CAMERAS = {'corner2': (64, 64), 'gripperPOV': (64, 64)}  # height, width [px]
STATE = ('hand.x', 'hand.y', 'hand.z', 'gripper')
ACTION = ActionSpace(
    [
        *(ActionDim(name, -1.0, 1.0, 65) for name in ('x', 'y', 'z')),  # 1 is 1 cm a step
        ActionDim('gripper', -1.0, 1.0, 21),  # effort: 1 closes
    ]
)
REPEAT = 2
MAX_STEPS = 100  # decisions
# From where published work on pixels looks, and a little closer: the puck is 2 px wide otherwise.
CORNER_POSITION = (0.75, 0.075, 0.7)  # [m]
CORNER_FOV_DEG = 45.0


@dataclass(frozen=True)
class Observation:
    """What a policy is shown: images {camera: (H, W, 3) uint8 RGB} and the state (4,) float32."""

    images: Mapping[str, np.ndarray]
    state: np.ndarray


class MetaWorld:
    """One task at a time, stepped decision by decision."""

    def __init__(self, cameras: bool = True) -> None:
        """cameras: whether observations have images, which is what takes the time."""
        self._cameras = cameras
        self._task = ''
        self._renderer: Renderer | None = None

    def reset(self, task: str, seed: int) -> Observation:
        """Start an episode; the seed says where objects and goals are."""
        if task != self._task:
            self._load(task)
        self._env.seed(seed)
        self._truth, _ = self._env.reset()
        self.success = False
        self.step_count = 0
        return self._observe()

    def step(self, action: np.ndarray) -> Observation:
        """Do a decision (4,), taken as its nearest bins, unless it succeeds earlier."""
        action = ACTION.to_values(ACTION.to_bins(action)).astype(np.float32)
        for _ in range(REPEAT):
            self._truth, _, _, _, info = self._env.step(action)
            if info['success']:
                self.success = True
                break
        self.step_count += 1
        return self._observe()

    @property
    def over(self) -> bool:
        """True once the episode succeeded or ran out of time."""
        return self.success or self.step_count >= MAX_STEPS

    def expert_action(self) -> np.ndarray:
        """Return what Meta-World's scripted policy, which sees the truth, would do (4,)."""
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # it says at every step that it overshoots
            action = self._expert.get_action(self._truth)
        return np.clip(action, -1.0, 1.0)

    def close(self) -> None:
        """Free the renderer, in the thread that rendered."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _load(self, task: str) -> None:
        if task not in INSTRUCTIONS:
            raise LearningError(f'unknown task {task!r}; known: {", ".join(INSTRUCTIONS)}')
        self.close()
        environments, experts = _metaworld()
        self._env = environments[task]()
        # What Meta-World's own benchmarks set: a start by the seed, a goal that experts see.
        self._env._partially_observable = False
        self._env._freeze_rand_vec = False
        self._env._set_task_called = True
        self._env.seeded_rand_vec = True
        vars(self._env).pop('sawyer_observation_space', None)  # computed with the goal hidden
        self._expert = experts[task]()
        self._task = task
        if self._cameras:
            model = self._env.model
            model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
            corner = model.camera('corner2')
            corner.pos[:], corner.fovy[:] = CORNER_POSITION, CORNER_FOV_DEG
            self._renderer = Renderer(model)

    def _observe(self) -> Observation:
        state = self._truth[: len(STATE)].astype(np.float32)
        images: dict[str, np.ndarray] = {}
        if self._renderer is not None:
            for name, size in CAMERAS.items():
                frame = self._renderer.render(self._env.data, name, size)
                # Meta-World's corner cameras hang upside down.
                images[name] = frame[::-1, ::-1].copy() if name == 'corner2' else frame
        return Observation(images, state)


def _metaworld() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return Meta-World's environments and experts by task; a report does without them."""
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        from metaworld.policies import ENV_POLICY_MAP
    except ImportError as error:
        raise LearningError(
            f"Meta-World is not installed ({error}); pip install 'q-transformer-ros[metaworld]'"
        ) from error
    return ALL_V3_ENVIRONMENTS, ENV_POLICY_MAP
