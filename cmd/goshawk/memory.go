package main

import (
	"os"
	"runtime/debug"
	"sync"
)

// The agent is to stay below 64 MB of resident memory under load. The rings, which are
// mapped twice, and the binary's own pages take about 30 of them; agentMemory is for Go,
// whose live heap is about 8 MB then and at most about 28. The limit is soft: past it the
// collector works harder.
const (
	gcPercent   = 50
	agentMemory = 30 << 20
	queryMemory = 80 << 20 // what one query may hold, and a little
)

// memory tells the collector how much this process may hold now. It does nothing when the
// environment has a say (GOGC, GOMEMLIMIT).
type memory struct {
	mu      sync.Mutex
	queries int64
	fixed   bool
}

func newMemory() *memory {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	m := &memory{fixed: os.Getenv("GOMEMLIMIT") != ""}
	m.add(0)
	return m
}

// add counts queries that run. Without room of its own a large one would make the
// collector run all the time.
func (m *memory) add(queries int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queries += queries
	if !m.fixed {
		debug.SetMemoryLimit(agentMemory + m.queries*queryMemory)
	}
}
