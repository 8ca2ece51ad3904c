"""The live control loop, in parts: what happens at a tick, who thinks, what is published.

`records` what the parts hand each other; `loop` the ticks and the safety order as a state machine
without ROS; `inference` the one thread that thinks; `checks` what must fit before the robot moves;
`timing` counters and distributions; `messages` ROS messages out.
"""
