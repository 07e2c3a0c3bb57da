package main

import (
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// The agent is to stay below 64 MB of resident memory under load. The rings, which are mapped
// twice, and the binary's own pages take about 27 of them; agentMemory is for Go, whose live heap
// is about 10 MB then and at most about 34. The limit is soft: past it the collector works harder.
// While programs are loaded, 40 MB are needed one after the other and few of them for long: there the
// limit alone says when to collect, and is lower for that.
const (
	gcPercent     = 80
	agentMemory   = 36 << 20
	loadingMemory = 30 << 20
	queryMemory   = 80 << 20 // what one query may hold, and a little
)

// memory tells the collector how much this process may hold now. It does nothing when the
// environment has a say (GOGC, GOMEMLIMIT).
type memory struct {
	mu      sync.Mutex
	base    int64 // bytes without queries
	queries int64
	fixed   bool
}

// newMemory is for a process that loads programs, until it says that they are loaded.
func newMemory() *memory {
	m := &memory{base: loadingMemory, fixed: os.Getenv("GOMEMLIMIT") != ""}
	if os.Getenv("GOGC") == "" && !m.fixed {
		debug.SetGCPercent(-1)
	}
	m.add(0)
	return m
}

// loaded says that all programs are.
func (m *memory) loaded() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	m.mu.Lock()
	m.base = agentMemory
	m.mu.Unlock()
	m.add(0)
}

// add counts queries that run. Without room of its own a large one would make the
// collector run all the time.
func (m *memory) add(queries int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queries += queries
	if !m.fixed {
		debug.SetMemoryLimit(m.base + m.queries*queryMemory)
	}
}

// agentNice is the agent's priority (setpriority(2)). It needs little time, but soon: on a
// host whose processors are all taken, rings fill while a reader at nice 0 waits its turn.
// auditd raises its own in the same way (priority_boost).
const agentNice = -10

// hurry raises the priority of this process: of every thread, since each has its own and
// hands it on to those that it starts. Where that is not allowed all goes on as before.
func hurry(fs procfs.FS) {
	threads, err := fs.SelfThreads()
	if err != nil {
		return
	}
	for _, tid := range threads {
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, agentNice)
	}
}
