"""The simulated robot: a MuJoCo block world, a scripted expert, and evaluation in process."""
