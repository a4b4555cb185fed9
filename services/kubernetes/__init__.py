"""The bridge: objects of a Kubernetes API server in, registry records out.

It decides nothing about the network and owns nothing: what it writes follows from what the API
server says now. It writes to the API server only the conditions of nodes and gated pods, Events,
and its Lease.
"""
