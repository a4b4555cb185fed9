"""From services and endpoint slices to backends, one for each service and address.

Pure and incremental: one changed endpoint costs the same in a service of any size. It does not
decide which backends a node uses: nodes do (nodeagent/services).
"""
