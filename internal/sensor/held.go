package sensor

import (
	"errors"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

var errFamily = errors.New("address family is not one that is sensed")

const (
	holdConnect = 1e9 // ns that a connect under way waits for its outcome
	holdDNS     = 5e9 // ns that a question waits for its answer: glibc's own patience
	maxHeld     = 4096
)

// attempt names one connect: when it was asked for, and by which thread.
type attempt struct {
	since uint64
	tid   uint32
}

// question names one DNS question under way.
type question struct {
	cookie uint64
	id     uint16
	port   uint16 // our own
}

// held keeps records that a later one completes. Both lists are in the order of time, so
// the first to expire stands first; what is decided stays in the list as a blank.
type held struct {
	connects  []heldRecord
	byAttempt map[attempt]int // key → number of the record
	asked     []heldRecord
	byAsked   map[question]int
	// number of the first record of each list: records are numbered in order
	firstConnect, firstAsked int
}

type heldRecord struct {
	raw      []byte // nil once decided
	due      uint64
	attempt  attempt
	question question
}

func (h *held) init() {
	h.byAttempt, h.byAsked = map[attempt]int{}, map[question]int{}
}

// timeout is how long the reader may sleep, in ms; -1 for ever.
func (h *held) timeout(now uint64) int {
	due := uint64(0)
	for _, l := range [][]heldRecord{h.connects, h.asked} {
		if len(l) > 0 && (due == 0 || l[0].due < due) {
			due = l[0].due
		}
	}
	switch {
	case due == 0:
		return -1
	case due <= now:
		return 0
	}
	return int((due-now)/1e6) + 1
}

// connect holds a connect under way; when too many are held the oldest goes as it is.
func (h *held) connect(key attempt, raw []byte, d *drain) {
	if len(h.connects) >= maxHeld {
		h.popConnect(d)
	}
	h.byAttempt[key] = h.firstConnect + len(h.connects)
	h.connects = append(h.connects, heldRecord{raw: append([]byte(nil), raw...), due: recordTime(raw) + holdConnect, attempt: key})
}

// decided forgets a held connect whose outcome has come, and says whether there was one.
func (h *held) decided(key attempt) bool {
	n, ok := h.byAttempt[key]
	if !ok {
		return false
	}
	delete(h.byAttempt, key)
	h.connects[n-h.firstConnect].raw = nil
	return true
}

func (h *held) popConnect(d *drain) {
	r := h.connects[0]
	h.connects[0] = heldRecord{}
	h.connects = h.connects[1:]
	h.firstConnect++
	if r.raw == nil {
		return
	}
	delete(h.byAttempt, r.attempt)
	rec := as[bpf.GoshawkRecSocket](r.raw)
	path, err := span(r.raw, rec.Path)
	if err != nil {
		d.s.decode.malformed(r.raw, err)
		return
	}
	d.room()
	d.s.decode.socketEvent(rec, path, d.batch)
}

// ask holds a question for its answer.
func (h *held) ask(key question, raw []byte, d *drain) {
	if len(h.asked) >= maxHeld {
		h.popAsked(d)
	}
	if old, ok := h.byAsked[key]; ok { // asked again: the first goes unanswered
		h.release(old-h.firstAsked, d)
	}
	h.byAsked[key] = h.firstAsked + len(h.asked)
	h.asked = append(h.asked, heldRecord{raw: append([]byte(nil), raw...), due: recordTime(raw) + holdDNS, question: key})
}

// open returns the question with this key that waits for its answer, nil when there is none.
func (h *held) open(key question) []byte {
	n, ok := h.byAsked[key]
	if !ok {
		return nil
	}
	return h.asked[n-h.firstAsked].raw
}

// answered forgets a question that open returned.
func (h *held) answered(key question) {
	h.asked[h.byAsked[key]-h.firstAsked].raw = nil
	delete(h.byAsked, key)
}

// release sends the question at place i as unanswered.
func (h *held) release(i int, d *drain) {
	r := &h.asked[i]
	if r.raw == nil {
		return
	}
	delete(h.byAsked, r.question)
	d.room()
	if err := d.s.decode.dnsEvent(r.raw, nil, d.batch); err != nil {
		d.s.decode.malformed(r.raw, err)
	}
	r.raw = nil
}

func (h *held) popAsked(d *drain) {
	h.release(0, d)
	h.asked[0] = heldRecord{}
	h.asked = h.asked[1:]
	h.firstAsked++
}

// expire sends what has waited long enough.
func (h *held) expire(now uint64, d *drain) {
	for len(h.connects) > 0 && (h.connects[0].raw == nil || h.connects[0].due <= now) {
		h.popConnect(d)
	}
	for len(h.asked) > 0 && (h.asked[0].raw == nil || h.asked[0].due <= now) {
		h.popAsked(d)
	}
}

// flush sends everything held, at the end.
func (h *held) flush(d *drain) { h.expire(^uint64(0), d) }

// room makes sure that the batch takes one more event.
func (d *drain) room() {
	if d.batch != nil && d.batch.Full() {
		// An error here is the agent's end; the batch goes with it.
		_ = d.flush()
	}
	if d.batch == nil {
		d.batch = event.NewBatch()
	}
}
