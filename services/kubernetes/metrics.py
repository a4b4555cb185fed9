"""What the bridge counts."""

from deltaplane.runtime import metrics

ACTIVE = metrics.gauge("bridge_active", "1 while this replica writes, 0 on standby")
OBJECTS = metrics.gauge("bridge_objects", "Objects that the cluster has, by kind", ("kind",))
STORED = metrics.gauge("bridge_records", "Records that the registry has, by kind", ("kind",))
PENDING = metrics.gauge("bridge_pending", "Changes that wait to be written, by kind", ("kind",))
HELD = metrics.gauge(
    "bridge_held", "Records that the brake keeps from being removed, by kind", ("kind",)
)
REFUSED = metrics.gauge("bridge_refused", "Objects that the registry does not take", ("kind",))
UNPROGRAMMED = metrics.gauge(
    "bridge_unprogrammed", "Objects that cannot be programmed as they are, by kind", ("kind",)
)
WRITTEN = metrics.counter(
    "bridge_written", "Records written or removed, by kind and change", ("kind", "change")
)
CALLS = metrics.counter("bridge_calls", "Calls of the registry, by outcome", ("kind", "outcome"))
ROUND_SECONDS = metrics.histogram("bridge_round_seconds", "Time that a round of calls took")
EVENTS = metrics.counter("bridge_events", "Events about objects, by outcome", ("outcome",))
CERTIFICATES = metrics.counter(
    "bridge_certificates", "Requests of nodes for a certificate, by outcome", ("outcome",)
)
NODE_CA_EXPIRES = metrics.gauge(
    "bridge_node_ca_expiry_timestamp_seconds", "When the CA for nodes runs out, Unix time"
)
PATCHES = metrics.counter(
    "bridge_patches", "Conditions written, by kind and outcome", ("kind", "outcome")
)
