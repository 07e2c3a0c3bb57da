package event

// Hook is one logical place where a source observes kinds, and how it is attached now.
type Hook struct {
	Source  string // "ebpf" or "audit"
	Name    string // "exec", "socket_accept" …
	Kinds   []ID
	Tier    string // tier in use, empty when none works
	Best    bool   // no better tier was refused
	Refused string // why better tiers (or all) were refused: "tier: reason; tier: reason"
	Seen    uint64 // records since start
	Silent  bool   // what the agent did last to try it was not told
}

// What a Count counts. For each source and kind, generated = delivered + filtered + lost.
const (
	Generated = "generated" // records that the kernel side set out to make
	Delivered = "delivered" // events handed to the agent
	Filtered  = "filtered"  // records left out on purpose, by Reason
	Lost      = "lost"      // records that should have arrived and did not, by Reason
	Late      = "late"      // of those delivered: told after others that happened later, while several sources run
	Expired   = "expired"   // events delivered to the store that have left it since, by Reason
	Evicted   = "evicted"   // state (not events) given up to stay within a bound, by Reason
	Failed    = "failed"    // questions put to others (not events) that brought no answer, by Reason
)

// Count is a monotonic counter of a source, the store or a sink.
type Count struct {
	Source string // "ebpf", "audit", "store", "sink" …
	Kind   ID     // 0 when it cannot be told
	What   string
	Reason string // "ring_full", "malformed", "queue_full" …; empty for generated and delivered
	N      uint64
}
