"""The CNI plugin's side of the agent: framing, configuration, results, the shim's socket.

It knows the CNI specification and nothing of addresses, links or policies: those are the handler's.
"""
