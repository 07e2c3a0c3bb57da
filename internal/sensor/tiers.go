package sensor

import (
	"slices"

	"github.com/goshawk-project/goshawk/internal/event"
)

// CheckTiers reports a hook or a tier in Options.Tiers that there is not, before anything
// is loaded.
func CheckTiers(tiers map[string]string) error {
	err := (&loader{forced: tiers}).checkForced(hooks)
	if err != nil && (&loader{forced: tiers}).checkForced(legacyHooks) == nil {
		return nil // which object it is shows when it is loaded
	}
	return err
}

// HookNames lists the hooks.
func HookNames() []string {
	names := make([]string, len(hooks))
	for i := range hooks {
		names[i] = hooks[i].name
	}
	return names
}

// Ring is one buffer between the kernel and the agent.
type Ring struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
}

// Rings returns the rings and their sizes; of perf buffers that of all CPUs together.
func (s *Sensor) Rings() []Ring {
	size := func(b buffer, asked int) int {
		p, ok := b.(*perfBuffer)
		if !ok {
			return asked
		}
		n := 0
		for i := range p.rings {
			n += len(p.rings[i].data)
		}
		return n
	}
	return []Ring{{"critical", size(s.critical, s.options.CriticalBytes)}, {"bulk", size(s.bulk, s.options.BulkBytes)}}
}

// Kinds lists what the hooks observe.
func Kinds() []event.ID {
	var all []event.ID
	for i := range hooks {
		for _, k := range hooks[i].kinds {
			if !slices.Contains(all, k) {
				all = append(all, k)
			}
		}
	}
	return all
}
