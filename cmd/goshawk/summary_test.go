package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/agent"
	"github.com/goshawk-project/goshawk/internal/event"
)

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		name string
		s    agent.Summary
		want string
	}{
		{"nothing", agent.Summary{Usage: agent.Usage{Since: 2 * time.Second}},
			"stopped: 0 events in 2.00 s\nlost: none\ncost: 0.00 s of CPU (0.0 % of a core)\n"},
		{"losses", agent.Summary{
			Events: []agent.KindCount{{Kind: event.KindExec, N: 10}, {Kind: event.KindExit, N: 9}},
			Losses: []event.Count{
				{Source: "ebpf", Kind: event.KindExit, What: event.Lost, Reason: "ring_full", N: 1},
				{Source: "ebpf", What: event.Lost, Reason: "malformed", N: 2},
			},
			Usage: agent.Usage{CPU: 123 * time.Millisecond, Since: 10 * time.Second, Peak: 41_200_000},
		}, "stopped: 19 events (exec 10, exit 9) in 10.00 s\n" +
			"lost: exit 1 (ebpf, ring_full), unknown 2 (ebpf, malformed)\n" +
			"cost: 0.12 s of CPU (1.2 % of a core), peak memory 41.2 MB\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			printSummary(&b, c.s)
			check(t, "summary", b.String(), c.want)
		})
	}
}

func TestReadyLine(t *testing.T) {
	h := &host{rootDir: "/r"}
	got := readyLine("ebpf", []event.Hook{{Name: "exec", Tier: "tp_btf"}, {Name: "dns"}, {Name: "datagram"}}, h)
	check(t, "ready", got, "ready: source=ebpf hooks=1 missing=dns,datagram store=/r/var/lib/goshawk socket=/r/run/goshawk/goshawk.sock")
	h = &host{rootDir: "/", storeDir: "/s", socket: "/t/x.sock"}
	check(t, "ready", readyLine("ebpf", nil, h), "ready: source=ebpf hooks=0 store=/s socket=/t/x.sock")
}

func TestUserNames(t *testing.T) {
	var u userNames
	check(t, "root", u.name(0), "root")
	check(t, "nobody has it", u.name(4_000_000_001), "")
	check(t, "again", u.name(0), "root")
}
