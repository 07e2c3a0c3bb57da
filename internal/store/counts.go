package store

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// counts is what the store did with events. The zero value is ready; its owner locks.
type counts struct {
	appended [256]uint64 // by kind: counted for each event
	rest     map[countKey]uint64
	bad      map[blockKey]bool // damaged blocks counted already
}

type countKey struct {
	kind         event.ID
	what, reason string
}

type blockKey struct {
	stream string
	eid    int64
}

// maxBad bounds what is remembered of damaged blocks; more of them count twice when they
// are read twice.
const maxBad = 10_000

func (c *counts) generated(kind event.ID) { c.appended[kind]++ }

func (c *counts) add(kind event.ID, what, reason string, n uint64) {
	if c.rest == nil {
		c.rest = make(map[countKey]uint64)
	}
	c.rest[countKey{kind, what, reason}] += n
}

func (c *counts) addAll(kinds kindCounts, what, reason string) {
	for _, k := range kinds {
		c.add(k.kind, what, reason, k.n)
	}
}

// damaged counts the rows of a block as lost; false when it did so before.
func (c *counts) damaged(d directory) bool {
	key := blockKey{d.stream, d.span.lastEID}
	if c.bad[key] {
		return false
	}
	if c.bad == nil {
		c.bad = make(map[blockKey]bool)
	}
	if len(c.bad) < maxBad {
		c.bad[key] = true
	}
	c.addAll(d.span.kinds, event.Lost, ReasonDamaged)
	return true
}

func (c *counts) list() []event.Count {
	var out []event.Count
	for kind, n := range c.appended {
		if n > 0 {
			out = append(out, event.Count{Source: "store", Kind: event.ID(kind), What: event.Generated, N: n})
		}
	}
	for k, n := range c.rest {
		out = append(out, event.Count{Source: "store", Kind: k.kind, What: k.what, Reason: k.reason, N: n})
	}
	slices.SortFunc(out, func(a, b event.Count) int {
		if a.Kind != b.Kind {
			return int(a.Kind) - int(b.Kind)
		}
		if a.What != b.What {
			return strings.Compare(a.What, b.What)
		}
		return strings.Compare(a.Reason, b.Reason)
	})
	return out
}

// kindCounts counts rows by the number of their kind.
type kindCounts []kindCount

type kindCount struct {
	kind event.ID
	n    uint64
}

func (c *kindCounts) add(kind event.ID, n uint64) {
	for i := range *c {
		if (*c)[i].kind == kind {
			(*c)[i].n += n
			return
		}
	}
	*c = append(*c, kindCount{kind, n})
}

// text is how counts are kept: pairs of uvarints.
func (c kindCounts) text() []byte {
	var b []byte
	for _, k := range c {
		b = binary.AppendUvarint(append(b, byte(k.kind)), k.n)
	}
	return b
}

// parseKinds reads what text made, as far as it makes sense.
func parseKinds(b []byte) kindCounts {
	var c kindCounts
	for len(b) > 1 {
		n, size := binary.Uvarint(b[1:])
		if size <= 0 || n > maxRows {
			break
		}
		c.add(event.ID(b[0]), n)
		b = b[1+size:]
	}
	return c
}
