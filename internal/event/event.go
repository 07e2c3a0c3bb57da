// Package event is what can happen on a host: one struct a kind, with the native table
// that its columns make. An event is the decoded record of one occurrence, completed with
// what user space knows. The package knows schema and nothing else: not where events come
// from (sensor, audit), not where they are kept (store), and it owns no state.
package event

import (
	"context"
	"strconv"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// ID numbers a kind; the numbers are those of enum kind in bpf/wire.h and are written to
// the store, so they are never reused. Those left out are kept for kinds to come.
type ID uint8

const (
	KindExec       ID = 1
	KindFork       ID = 2
	KindExit       ID = 3
	KindConnect    ID = 4
	KindAccept     ID = 5
	KindBind       ID = 6
	KindListen     ID = 7
	KindClose      ID = 8
	KindDNS        ID = 9
	KindLoss       ID = 10
	KindFile       ID = 11
	KindCredential ID = 12
	KindPtrace     ID = 13
	KindSignal     ID = 14
	KindModule     ID = 15
	KindBPF        ID = 16
	KindMount      ID = 17
	KindNamespace  ID = 18
	KindMemory     ID = 19
	KindUser       ID = 20
	KindContainer  ID = 21
	KindPolicy     ID = 23
	KindAlert      ID = 24
	KindSyscall    ID = 25

	// MaxKind is the bound of lists that are indexed by kind.
	MaxKind ID = 31
)

var names = [MaxKind + 1]string{
	KindExec: "exec", KindFork: "fork", KindExit: "exit", KindConnect: "connect", KindAccept: "accept",
	KindBind: "bind", KindListen: "listen", KindClose: "close", KindDNS: "dns", KindLoss: "loss",
	KindFile: "file", KindCredential: "credential", KindPtrace: "ptrace", KindSignal: "signal",
	KindModule: "module", KindMount: "mount", KindUser: "user", KindContainer: "container", KindPolicy: "policy", KindAlert: "alert",
	KindBPF: "bpf", KindNamespace: "namespace", KindMemory: "memory", KindSyscall: "syscall",
}

// String is the kind's name, or its number when there is no such kind.
func (id ID) String() string {
	if id <= MaxKind && names[id] != "" {
		return names[id]
	}
	return "kind" + strconv.Itoa(int(id))
}

// Event is one occurrence: a pointer to the struct of its kind.
type Event interface {
	// Head is the part that all kinds share.
	Head() *Header
}

// Column is a native column, readable and (when stored) writable on its kind's events.
type Column = schema.Column[Event]

// Kind is a sort of thing that happens.
type Kind struct {
	ID   ID
	Name string
	// Table is the native table the kind's rows are in; several kinds may share one.
	Table string
	Doc   string
	// Critical kinds have a ring of their own, so that no flood of others pushes them out.
	Critical bool
	// Lasting kinds are kept longer than others.
	Lasting bool
	// New makes an empty event of this kind.
	New func() Event
	// Is reports whether an event is of this kind's type.
	Is func(Event) bool
	// Copy makes to what from is; false when either is not of this kind's type.
	Copy func(to, from Event) bool
	// Columns are the native columns: those of all kinds, then its own.
	Columns []Column
}

// Kinds is every kind, in the order of their numbers.
var Kinds = []*Kind{
	execKind, forkKind, exitKind, connectKind, acceptKind, bindKind, listenKind, closeKind, dnsKind, lossKind,
	fileKind, credentialKind, ptraceKind, signalKind, moduleKind, bpfKind, mountKind, namespaceKind, memoryKind, userKind, containerKind, policyKind, alertKind, syscallKind,
}

var byID = index(Kinds)

func index(kinds []*Kind) (at [MaxKind + 1]*Kind) {
	for _, k := range kinds {
		at[k.ID] = k
	}
	return at
}

// kindOf completes a kind whose events are *T.
func kindOf[T any, P interface {
	*T
	Event
}](k Kind) *Kind {
	k.Name = names[k.ID]
	k.New = func() Event { return P(new(T)) }
	k.Is = func(e Event) bool {
		_, ok := e.(P)
		return ok
	}
	k.Copy = func(to, from Event) bool {
		t, ok := to.(P)
		f, same := from.(P)
		if ok && same {
			*t = *f
		}
		return ok && same
	}
	return &k
}

// ByID returns the kind numbered id, or nil.
func ByID(id ID) *Kind {
	if id > MaxKind {
		return nil
	}
	return byID[id]
}

// ByName returns the kind called name, or nil.
func ByName(name string) *Kind {
	for _, k := range Kinds {
		if k.Name == name {
			return k
		}
	}
	return nil
}

// Column returns the native column called name, or nil.
func (k *Kind) Column(name string) *Column {
	for i := range k.Columns {
		if k.Columns[i].Name == name {
			return &k.Columns[i]
		}
	}
	return nil
}

// AppendJSON appends e as one flat JSON object: the native columns that are known.
func AppendJSON(dst []byte, e Event) []byte {
	k := ByID(e.Head().Kind)
	dst = append(dst, '{')
	for i := range k.Columns {
		c := &k.Columns[i]
		if c.Flags&schema.Internal != 0 {
			continue
		}
		if last := dst[len(dst)-1]; last != '{' && last != ',' {
			dst = append(dst, ',')
		}
		dst = c.AppendJSON(dst, e)
	}
	if dst[len(dst)-1] == ',' {
		dst = dst[:len(dst)-1]
	}
	return append(dst, '}')
}

// Selection is what a reader wants of the log. The zero Selection is everything.
type Selection struct {
	// Kinds to return; nil means all.
	Kinds []ID
	// From and To bound Header.Time (unix ns), both inclusive; To 0 means no bound.
	From, To int64
	// AfterEID leaves out events numbered up to and including it; MaxEID 0 means no bound.
	AfterEID, MaxEID int64
	// Columns are the names of the stored columns to fill in; the others are left zero.
	// kind, eid and time are always filled. Nil means all.
	Columns []string
	// Equal leaves out events whose stored integer column is none of the values.
	Equal []Equal
}

// Equal is a condition on a stored integer column.
type Equal struct {
	Column string
	Values []int64
}

// Log is where past events are read from, oldest first; the store implements it.
type Log interface {
	Scan(ctx context.Context, s Selection) (Cursor, error)
}

// Cursor walks past events in the order of their eid. It belongs to one goroutine.
type Cursor interface {
	// Next returns the next event, valid until the call after; nil at the end.
	Next() (Event, error)
	Close() error
}
