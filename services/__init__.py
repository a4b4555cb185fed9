"""The control-plane services, one package per process."""
