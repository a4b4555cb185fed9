"""The port to etcd and its two adapters: etcd itself and an in-memory twin that passes the same suite."""
