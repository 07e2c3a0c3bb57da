package main

import (
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/sink"
	"github.com/goshawk-project/goshawk/internal/state"
)

// TestStatusLine is osquery's status line, whole.
func TestStatusLine(t *testing.T) {
	s := sink.Status{Time: time.Unix(1412098650, 0), Severity: 1, File: "scheduler.cpp", Line: 83, Message: `Error executing scheduled query "x"`}
	want := `{"hostIdentifier":"web-1","calendarTime":"Tue Sep 30 17:37:30 2014 UTC","unixTime":1412098650,"severity":1,"filename":"scheduler.cpp","line":83,"message":"Error executing scheduled query \"x\"","version":"5.23.1","decorations":{"host_uuid":"4C"}}` + "\n"
	if got := string(appendStatus(nil, &s, "web-1", []state.Pair{{Key: "host_uuid", Value: "4C"}})); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	want = `{"hostIdentifier":"web-1","calendarTime":"Tue Sep 30 17:37:30 2014 UTC","unixTime":1412098650,"severity":1,"filename":"scheduler.cpp","line":83,"message":"Error executing scheduled query \"x\"","version":"5.23.1"}` + "\n"
	if got := string(appendStatus(nil, &s, "web-1", nil)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
