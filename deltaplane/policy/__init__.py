"""Turns network policies and identities into what nodes enforce: peer sets and subject policies.

Pure. It owns what a policy means for identities; it knows neither addresses of pods nor nodes,
stores nothing, and leaves the shape of kernel maps to `nodeagent.policy`.
"""
