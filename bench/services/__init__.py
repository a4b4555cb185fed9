"""What a connection to a service costs: through our programs, and through kube-proxy's rules.

The rules are of kube-proxy's shape and are loaded by the tools that it uses; they run in the
namespace of the node that the client's packets come through. All variants have the same links and
the same routes.
"""
