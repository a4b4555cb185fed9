"""The delta stream beside one object per endpoint and whole slices, with many simulated agents.

It measures; it does not test kernels. An agent here is a real stream: a connection of its own,
every message decoded and applied to memory, acknowledgements sent. See docs/howto/bench-scale.md.
"""
