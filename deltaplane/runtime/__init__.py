"""What every process is made of: config, logs, metrics, gRPC server and client, admin HTTP.

It knows nothing of what a process does. Wiring a store, a core and a servicer together is the job
of that process's `__main__`.
"""
