"""The block world: resets, the arm's controller, rendering."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qt_ros.errors import SimError
from qt_ros.sim import opengl
from qt_ros.sim.camera import encode_jpeg
from qt_ros.sim.opengl import backend
from qt_ros.sim.render import Renderer
from qt_ros.sim.scene import BLOCK_HALF, HOME, JOINT_RANGES, STEP_NS
from qt_ros.sim.tasks import INSTRUCTIONS
from qt_ros.sim.world import BlockWorld

PUSH = 'push the red block to the left'


@pytest.fixture(scope='module')
def world():
    world = BlockWorld()
    yield world
    world.close()


def test_the_same_seed_starts_the_same_scene(world):
    assert world.reset(PUSH, 5) == 5
    first, arm, image = world.truth(), world.joint_positions, world.render('front', (64, 64))
    world.advance(50)
    world.reset(PUSH, 6)
    assert not np.array_equal(world.truth(), first)
    world.reset(PUSH, 5)
    np.testing.assert_array_equal(world.truth(), first)
    np.testing.assert_array_equal(world.joint_positions, arm)
    np.testing.assert_array_equal(world.render('front', (64, 64)), image)


@pytest.mark.parametrize('seed', [None, -1])
def test_a_drawn_seed_is_reported_and_reproduces(world, seed):
    used = world.reset(PUSH, seed)
    truth = world.truth()
    world.reset(PUSH, used)
    np.testing.assert_array_equal(world.truth(), truth)


def test_a_refused_reset_leaves_the_scene_alone(world):
    world.reset(PUSH, 1)
    truth = world.truth()
    with pytest.raises(SimError, match='unknown instruction'):
        world.reset('dance', 2)
    np.testing.assert_array_equal(world.truth(), truth)
    assert world.task.instruction == PUSH


def test_time_goes_on_over_a_reset(world):
    world.reset(PUSH, 0)
    before = world.time_ns
    world.advance(7)
    world.reset(PUSH, 0)
    world.advance(3)
    assert world.time_ns == before + 10 * STEP_NS


@pytest.mark.parametrize('instruction', INSTRUCTIONS)
def test_doing_nothing_never_succeeds_and_keeps_the_blocks_in_place(world, instruction):
    world.reset(instruction, 3)
    start = world.truth()
    world.advance(400)
    assert not world.success()
    assert not world.lost()
    np.testing.assert_allclose(world.truth()[:, :3], start[:, :3], atol=1e-3)
    np.testing.assert_allclose(world.joint_positions, world.arm_reference, atol=1e-3)


def test_truth_has_the_quaternion_as_ros_orders_it(world):
    world.reset(PUSH, 2)
    poses = world.truth()
    np.testing.assert_allclose(poses[:, 2], BLOCK_HALF)
    np.testing.assert_allclose(poses[:, 3:5], 0)  # turned about z only
    np.testing.assert_allclose(np.linalg.norm(poses[:, 3:], axis=1), 1)


def test_the_reference_moves_in_a_straight_line_and_then_holds(world):
    world.reset(PUSH, 0)
    start = world.arm_reference
    target = start + 0.1
    world.set_arm_target(target, 0.1)
    np.testing.assert_array_equal(world.arm_reference, start)
    for step in range(1, 21):
        world.advance()
        np.testing.assert_allclose(world.arm_reference, start + 0.1 * step / 20)
    world.advance(100)
    np.testing.assert_array_equal(world.arm_reference, target)
    np.testing.assert_allclose(world.joint_positions, target, atol=0.01)


def test_a_new_target_on_the_way_starts_from_where_the_reference_is(world):
    world.reset(PUSH, 0)
    start = world.arm_reference
    world.set_arm_target(start + 0.2, 0.1)
    world.advance(10)
    world.set_arm_target(start, 0.1)
    np.testing.assert_allclose(world.arm_reference, start + 0.1)
    world.advance(10)
    np.testing.assert_allclose(world.arm_reference, start + 0.05)


def test_steps_in_one_go_equal_single_steps():
    together, singly = BlockWorld(), BlockWorld()
    for world in (together, singly):
        world.reset(PUSH, 4)
        world.set_arm_target(HOME + 0.2, 0.037)
        world.set_gripper(0.0)
    together.advance(40)
    for _ in range(40):
        singly.advance()
    np.testing.assert_array_equal(together.joint_positions, singly.joint_positions)
    assert together.gripper == singly.gripper
    assert together.time_ns == singly.time_ns


def test_an_instant_target_reaches_the_motors(world):
    world.reset(PUSH, 0)
    target = world.arm_reference + 0.05
    world.set_arm_target(target, 0.0)
    world.advance(100)
    np.testing.assert_allclose(world.joint_positions, target, atol=0.01)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=6), st.floats(0, 1))
def test_targets_never_leave_the_ranges_of_the_joints(world, target, duration_s):
    world.set_arm_target(target, duration_s)
    low, high = np.array([*JOINT_RANGES.values()]).T
    assert ((world.arm_target >= low) & (world.arm_target <= high)).all()


@pytest.mark.parametrize(
    ('target', 'duration_s'),
    [
        ([0.0] * 5, 0.1),
        ([0.0] * 7, 0.1),
        ([np.nan] + [0.0] * 5, 0.1),
        ([np.inf] + [0.0] * 5, 0.1),
        ([0.0] * 6, -0.1),
        ([0.0] * 6, float('nan')),
    ],
)
def test_impossible_targets_are_refused(world, target, duration_s):
    with pytest.raises(SimError, match='6 finite joint positions'):
        world.set_arm_target(target, duration_s)


@pytest.mark.parametrize(('asked', 'reached'), [(0.0, 0.0), (1.0, 1.0), (-3.0, 0.0), (9.0, 1.0)])
def test_the_gripper_follows_its_opening(world, asked, reached):
    world.reset(PUSH, 0)
    world.set_gripper(asked)
    world.advance(200)
    assert world.gripper == pytest.approx(reached, abs=0.03)


def red_pixels(frame):
    red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
    return int(((red > 90) & (red > 2 * green) & (red > 2 * blue)).sum())


def test_the_red_block_is_in_sight_at_64_pixels(world):
    for seed in range(20):
        world.reset('pick up the red block', seed)
        assert red_pixels(world.render('front', (64, 64))) >= 15


def test_frames_have_the_size_asked_for(world):
    for size in ((64, 64), (48, 96), (480, 640), (1, 1)):
        frame = world.render('wrist', size)
        assert frame.shape == (*size, 3)
        assert frame.dtype == np.uint8


@pytest.mark.parametrize('size', [(0, 64), (64, -1), (481, 64), (64, 641)])
def test_impossible_sizes_are_refused(world, size):
    with pytest.raises(SimError, match='allowed: up to 480x640'):
        world.render('front', size)


def test_unknown_cameras_are_refused(world):
    with pytest.raises(SimError, match='allowed: front, wrist'):
        world.render('side', (64, 64))


def test_another_thread_may_not_render_but_learns_why(world):
    world.render('front', (64, 64))
    found = []

    def use():
        try:
            world.render('front', (64, 64))
        except SimError as error:
            found.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(found) == 1
    assert 'another thread' in found[0]


def test_a_world_can_render_in_a_thread_of_its_own():
    frames = []

    def use():
        world = BlockWorld()
        frames.append(world.render('front', (64, 64)))
        world.close()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert frames[0].std() > 10


def test_a_renderer_closes_twice_and_a_world_renders_again_after_closing():
    world = BlockWorld()
    before = world.render('front', (32, 32))
    world.close()
    world.close()
    np.testing.assert_array_equal(world.render('front', (32, 32)), before)
    renderer = Renderer(world.model)
    renderer.close()
    renderer.close()
    world.close()


def test_no_opengl_says_what_to_install(monkeypatch):
    monkeypatch.setattr(opengl, 'LIBRARIES', {'egl': ('libNone.so',), 'osmesa': ('libNo.so',)})
    monkeypatch.delenv('MUJOCO_GL', raising=False)
    with pytest.raises(SimError, match='sudo apt install libegl1'):
        backend()
    monkeypatch.setenv('MUJOCO_GL', 'OSMesa')
    with pytest.raises(SimError, match=r'libNo.so is not installed.*apt install libosmesa6'):
        backend()


def test_a_wrong_choice_of_opengl_is_refused_before_mujoco_is_imported():
    environment = {**os.environ, 'MUJOCO_GL': 'vulkan'}
    done = subprocess.run(
        [sys.executable, '-c', 'import qt_ros.sim.world'],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "MUJOCO_GL is 'vulkan'; allowed: egl, osmesa, glfw" in done.stderr


def test_jpeg_keeps_colours_in_order(world):
    import cv2

    world.reset('pick up the red block', 0)
    frame = world.render('front', (64, 64))
    data = np.frombuffer(encode_jpeg(frame), np.uint8)
    decoded = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(decoded.astype(int) - frame).mean() < 5
    assert red_pixels(decoded) >= 10
