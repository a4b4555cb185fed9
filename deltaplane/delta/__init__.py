"""The delta stream without sockets: what a slicer sends and what an agent makes of it.

Takes messages and `now`, returns messages and bytes. It is not a transport (services/slicer and
nodeagent/stream.py are), and it decides nothing about the content of objects. Only `wire` knows
protobuf.
"""
