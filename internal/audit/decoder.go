// Package audit is the source that reads the Linux audit subsystem over netlink: it asks
// the kernel for records, puts those of one event together, and decodes them into the
// same events that the eBPF sensor makes. It knows events and nothing above them: not the
// process table, the store or a rule.
package audit

import (
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// decoderOptions say what a decoder makes of records. The zero value decodes everything.
type decoderOptions struct {
	BootID string     // given to events; empty leaves it to who completes them
	Kinds  []event.ID // nil: all
	// Self is this process, whose own changes to audit's configuration are no news.
	Self uint32
	// Offset returns unix time minus the boot clock in ns, at most once a second; nil
	// measures it.
	Offset func() int64
}

// decoder makes events of audit records. All but counts belong to one goroutine.
type decoder struct {
	opt decoderOptions
}

func newDecoder(o decoderOptions) *decoder { return &decoder{opt: o} }

// push takes one record: its type (AUDIT_*, linux/audit.h) and the text of its netlink
// message, "audit(1364481363.243:24287): arch=…", of which it keeps nothing.
func (d *decoder) push(typ uint16, data []byte, now time.Time) {}

// flush gives up waiting for records that will not come. To be called now and then while
// pending says so, about every 100 ms.
func (d *decoder) flush(now time.Time) {}

// pending reports whether records wait for others of their event.
func (d *decoder) pending() bool { return false }

// take returns the events completed since the last call. They and their slice are valid
// until the next push or flush; their strings stay.
func (d *decoder) take() []event.Event { return nil }

// counts says what became of records and events. It may be called from any goroutine.
func (d *decoder) counts() []event.Count { return nil }
