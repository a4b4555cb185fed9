"""The lab's name server: the names that Kubernetes gives services and their pods.

It answers for cluster.local and for addresses; it forwards nothing and caches nothing. What it
answers follows from services and endpoint slices (`records`), how from RFC 1035 (`message`).
"""
