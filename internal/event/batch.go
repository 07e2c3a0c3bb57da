package event

import "sync"

// BatchSize is how many events a batch holds at most.
const BatchSize = 256

// Batch is events on their way from a source to the agent, in the order of their NTime.
// The events live in the batch: whoever receives it owns them until Release.
type Batch struct {
	Events []Event

	exec       slab[Exec]
	fork       slab[Fork]
	exit       slab[Exit]
	socket     slab[Socket]
	dns        slab[DNS]
	loss       slab[Loss]
	file       slab[File]
	credential slab[Credential]
	ptrace     slab[Ptrace]
	signal     slab[Signal]
	module     slab[Module]
	mount      slab[Mount]
	user       slab[User]
	policy     slab[Policy]
	container  slab[Container]
	alert      slab[Alert]
	bpf        slab[BPF]
	namespace  slab[Namespace]
	memory     slab[Memory]
	syscall    slab[Syscall]
}

// slab hands out the elements of chunks that never move.
type slab[T any] struct {
	chunks [][]T
	used   int
}

const slabChunk = 32

func (s *slab[T]) next() *T {
	c, i := s.used/slabChunk, s.used%slabChunk
	if c == len(s.chunks) {
		s.chunks = append(s.chunks, make([]T, slabChunk))
	}
	s.used++
	p := &s.chunks[c][i]
	var zero T
	*p = zero
	return p
}

var batches = sync.Pool{New: func() any { return new(Batch) }}

// NewBatch returns an empty batch.
func NewBatch() *Batch { return batches.Get().(*Batch) }

// Release gives the batch and all its events back; none may be used afterwards.
func (b *Batch) Release() {
	clear(b.Events)
	b.Events = b.Events[:0]
	b.exec.used, b.fork.used, b.exit.used, b.socket.used, b.dns.used, b.loss.used = 0, 0, 0, 0, 0, 0
	b.file.used, b.credential.used, b.ptrace.used, b.signal.used = 0, 0, 0, 0
	b.module.used, b.mount.used, b.user.used, b.policy.used = 0, 0, 0, 0
	b.container.used, b.alert.used = 0, 0
	b.bpf.used, b.namespace.used, b.memory.used, b.syscall.used = 0, 0, 0, 0
	batches.Put(b)
}

// Full reports whether the batch holds BatchSize events.
func (b *Batch) Full() bool { return len(b.Events) >= BatchSize }

// Add appends an empty event of kind id with Header.Kind set, and returns it; nil when
// there is no such kind.
func (b *Batch) Add(id ID) Event {
	var e Event
	switch id {
	case KindExec:
		e = b.exec.next()
	case KindFork:
		e = b.fork.next()
	case KindExit:
		e = b.exit.next()
	case KindConnect, KindAccept, KindBind, KindListen, KindClose:
		e = b.socket.next()
	case KindDNS:
		e = b.dns.next()
	case KindLoss:
		e = b.loss.next()
	case KindFile:
		e = b.file.next()
	case KindCredential:
		e = b.credential.next()
	case KindPtrace:
		e = b.ptrace.next()
	case KindSignal:
		e = b.signal.next()
	case KindModule:
		e = b.module.next()
	case KindMount:
		e = b.mount.next()
	case KindUser:
		e = b.user.next()
	case KindPolicy:
		e = b.policy.next()
	case KindContainer:
		e = b.container.next()
	case KindAlert:
		e = b.alert.next()
	case KindBPF:
		e = b.bpf.next()
	case KindNamespace:
		e = b.namespace.next()
	case KindMemory:
		e = b.memory.next()
	case KindSyscall:
		e = b.syscall.next()
	default:
		return nil
	}
	e.Head().Kind = id
	b.Events = append(b.Events, e)
	return e
}

// Drop takes back the event that Add returned last.
func (b *Batch) Drop() { b.Events = b.Events[:len(b.Events)-1] }
