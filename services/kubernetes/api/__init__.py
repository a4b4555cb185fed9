"""A small client of the Kubernetes API: what exists, what changes, who leads.

Owns the paths, the permissions, lists and watches (`reflector`), leader election (`lease`), and the
few writes of the bridge. Written to the published API concepts: resource versions are opaque,
bookmarks are optional, a history may be gone at any time.

It refuses to know what a pod is (the kinds and their fields are the bridge's), to keep objects (an
event is handed on and forgotten), and to talk to a server whose certificate it cannot verify.
"""
