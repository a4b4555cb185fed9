"""The `deltaplane` command: what a person asks the services, and the lab.

It decides nothing and stores nothing: every answer comes from a service or an agent over gRPC.
"""
