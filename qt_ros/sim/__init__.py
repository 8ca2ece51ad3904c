"""The simulated robot: a MuJoCo block world, a scripted expert, and evaluation in process."""

from qt_ros.sim.opengl import prepare

prepare()  # before anything in here imports MuJoCo
