"""Measurements on a lab. Nothing is printed that has not been measured in the same run."""

import deltaplane  # noqa: F401 - before grpc, whichever module is loaded first
