"""What the maps of services should hold on one node, and the way there. Pure.

choosing   which backends of a service apply on this node
frontends  where clients connect to
lists      backends in places that stay
maglev     tables that all nodes agree on
holdings   one service: groups of backends and their lists
balancer   all services: changes in, drafts out
adopting   what the kernel held before this process
steps      drafts as steps in a safe order
"""
