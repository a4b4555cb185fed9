"""The bridge between a Kubernetes API server and our registry."""
