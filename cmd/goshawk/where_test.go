package main

import (
	"strings"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
)

func TestConditionOverAllKinds(t *testing.T) {
	e := &event.Exec{Header: event.Header{Kind: event.KindExec, PID: 7, UID: 1000, Path: "/bin/ls", Comm: "ls"}, Args: "ls\x00-l\x00"}
	s := &event.Socket{Header: event.Header{Kind: event.KindConnect, PID: 8, Path: "/usr/bin/curl"}, RemoteAddress: "1.2.3.4", RemotePort: 443}
	for _, c := range []struct {
		expr         string
		exec, socket bool
	}{
		{"pid = 7", true, false},
		{"kind = 'connect'", false, true},
		{"remote_port = 443", false, true},
		{"remote_port IS NULL", true, false},
		{"path LIKE '/usr/%' OR args LIKE '%-l%'", true, true},
		{"uid", true, false},
		{"PATH GLOB '/bin/*'", true, false},
		{"exit_code = 0", false, false}, // neither has one
		{"json_extract(args, '$[1]') = '-l'", true, false},
	} {
		t.Run(c.expr, func(t *testing.T) {
			cond, err := newCondition(c.expr, func(s string) { t.Error(s) })
			if err != nil {
				t.Fatal(err)
			}
			defer cond.close()
			check(t, "exec", cond.match(e), c.exec)
			check(t, "connect", cond.match(s), c.socket)
		})
	}
}

func TestConditionThatFailsHidesNothing(t *testing.T) {
	var warned []string
	cond, err := newCondition("json_extract(path, '$.x') = 1", func(s string) { warned = append(warned, s) })
	if err != nil {
		t.Fatal(err)
	}
	defer cond.close()
	e := &event.Exec{Header: event.Header{Kind: event.KindExec, Path: "/no/json"}}
	check(t, "first", cond.match(e), true)
	check(t, "second", cond.match(e), true)
	if len(warned) != 1 || !strings.HasPrefix(warned[0], "--where: ") || !strings.HasSuffix(warned[0], "; events that it fails on are printed") {
		t.Errorf("warned %q", warned)
	}
}
