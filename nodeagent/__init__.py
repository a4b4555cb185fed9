"""The node agent.

Makes this node's kernel agree with what the slicer streams, and serves the CNI plugin.
"""
