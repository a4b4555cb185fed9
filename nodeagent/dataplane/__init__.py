"""The port to this node's kernel, its kernel adapter, and a fake that passes the same suite."""
