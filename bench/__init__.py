"""Measurements on a lab. Nothing is printed that has not been measured in the same run."""
