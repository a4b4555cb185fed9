"""Pools and the blocks that nodes own; see README.md."""
