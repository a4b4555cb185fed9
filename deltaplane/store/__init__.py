"""The port to etcd and its two adapters.

Etcd itself and an in-memory twin that passes the same suite.
"""
