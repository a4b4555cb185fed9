"""What the slicer counts."""

from deltaplane.runtime import metrics

TICKS = metrics.counter("slicer_ticks", "Ticks cut")
CHANGES = metrics.counter("slicer_changes", "Changes published, each once")
FRAME_BYTES = metrics.counter("slicer_frame_bytes", "Bytes of published frames, each once")
SENT_MESSAGES = metrics.counter("slicer_sent_messages", "Messages written to agents")
SENT_BYTES = metrics.counter("slicer_sent_bytes", "Bytes written to agents")
STREAMS = metrics.counter("slicer_streams", "Streams admitted, by mode", ("mode",))
REFUSED = metrics.counter("slicer_streams_refused", "Streams not admitted")
POSTPONED = metrics.counter(
    "slicer_streams_postponed", "Agents that need a snapshot or repair and were told to come back"
)
DELIVERIES = metrics.gauge(
    "slicer_deliveries", "Agents that have not acknowledged their snapshot or repair yet"
)
DELIVERY_BYTES = metrics.gauge(
    "slicer_delivery_bytes", "Upper bound of the memory that snapshots and repairs hold"
)
BROKEN = metrics.counter("slicer_streams_broken", "Streams ended because an agent broke the rules")
REPAIRED = metrics.counter("slicer_repaired_buckets", "Buckets that repairs replaced")
AGENTS = metrics.gauge("slicer_agents", "Connected agents")
LAGGING = metrics.gauge("slicer_lagging_agents", "Agents with a change unacknowledged for 2 s")
WORST_LAG = metrics.gauge(
    "slicer_worst_lag_seconds", "Age of the oldest change that a connected agent has not applied"
)
HEAD = metrics.gauge("slicer_head_revision", "Newest store revision scanned")
UNREADABLE = metrics.gauge("slicer_unreadable_records", "Stored records that cannot be read")
RELISTS = metrics.counter("slicer_relists", "Listings taken because history was compacted")
SEEN_TO_ACKED = metrics.histogram(
    "slicer_seen_to_acked_seconds",
    "From seeing a change in the store to an agent's acknowledgement that it is in force",
)
WATERMARK = metrics.gauge("slicer_watermark_revision", "Revision that every live node has passed")
STRICT_WATERMARK = metrics.gauge(
    "slicer_strict_watermark_revision", "Revision that every registered node has passed"
)
QUARANTINED = metrics.gauge("slicer_quarantined_addresses", "Released addresses that wait")
FENCES = metrics.gauge("slicer_fences", "Nodes that are fenced")
FENCED = metrics.counter("slicer_fenced", "Fences that this replica made")
UNFENCED = metrics.counter("slicer_unfenced", "Fences that this replica removed")
