"""Links, addresses, routes and sysctls of this node and its pods.

The paths that run per pod and per block use a small encoder of their own (pyroute2 takes 14 ms for
what takes one here); pyroute2 is for the slow path.
"""
