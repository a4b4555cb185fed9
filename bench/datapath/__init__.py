"""What a packet costs through our programs, and what it costs where the kernel just routes it.

Both in one run and in turn, on nodes and pods that are made in the same way; only the programs and
what they are told differ. It owns its namespaces, needs no agent, and says nothing about services.
"""
