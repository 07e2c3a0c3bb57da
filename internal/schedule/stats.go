package schedule

import (
	"fmt"
	"time"
)

// Usage is what this process has cost so far.
type Usage struct {
	User, System time.Duration
	Resident     int64 // bytes now
}

// Stats are what the runs of a query cost, in osquery's terms.
type Stats struct {
	Executions     uint64
	LastExecuted   int64 // unix seconds
	OutputSize     int64 // bytes of all rows
	WallMS, LastMS int64
	UserMS, LastUserMS,
	SystemMS, LastSystemMS int64
	AverageMemory, LastMemory int64 // bytes by which the process grew
}

// stats are kept across restarts, as in osquery since 5.12.
const statsForm = "1 %d %d %d %d %d %d %d %d %d %d %d"

func (s *Stats) String() string {
	return fmt.Sprintf(statsForm, s.Executions, s.LastExecuted, s.OutputSize, s.WallMS, s.LastMS, s.UserMS, s.LastUserMS,
		s.SystemMS, s.LastSystemMS, s.AverageMemory, s.LastMemory)
}

// parseStats reads what String wrote; zero when it is something else.
func parseStats(text string) Stats {
	var s Stats
	if _, err := fmt.Sscanf(text, statsForm, &s.Executions, &s.LastExecuted, &s.OutputSize, &s.WallMS, &s.LastMS, &s.UserMS, &s.LastUserMS,
		&s.SystemMS, &s.LastSystemMS, &s.AverageMemory, &s.LastMemory); err != nil {
		return Stats{}
	}
	return s
}

// add counts a run between two readings.
func (s *Stats) add(now time.Time, wall time.Duration, size int64, before, after Usage) {
	if d := (after.User - before.User).Milliseconds(); d > 0 {
		s.UserMS += d
		s.LastUserMS = d
	}
	if d := (after.System - before.System).Milliseconds(); d > 0 {
		s.SystemMS += d
		s.LastSystemMS = d
	}
	if d := after.Resident - before.Resident; d > 0 {
		n := int64(s.Executions)
		s.AverageMemory = (s.AverageMemory*n + d) / (n + 1)
		s.LastMemory = d
	}
	s.LastMS = wall.Milliseconds()
	s.WallMS += s.LastMS
	s.OutputSize += size
	s.Executions++
	s.LastExecuted = now.Unix()
}
