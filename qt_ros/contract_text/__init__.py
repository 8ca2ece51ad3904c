"""A contract's YAML becomes `qt_ros.contract.Contract`, with every problem told at once.

`yaml_reader` and `yaml_limits` read strangers' YAML with lines and bounds; `values` single values
with ranges and near misses; `parse` the whole; `checks` what parts must agree on.
"""
