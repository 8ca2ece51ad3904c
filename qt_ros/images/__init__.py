"""Image messages become pictures: `decoding` is the way in.

`raw`, `compressed`, `depth` and `rvl` read what cameras send; `area_resize` brings it to the size
that the contract asks for; `picture` is what all of them return.
"""
