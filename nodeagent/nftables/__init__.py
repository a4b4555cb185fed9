"""The node's masquerading: one table of nftables, written through libnftables.

It owns table `inet deltaplane` of its network namespace and looks at no other.
"""
