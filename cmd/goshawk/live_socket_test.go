package main

import (
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// pair is a connection by its ports on loopback.
type pair struct{ client, server int }

// connections makes n connections over loopback from four workers, each to a server of
// its own, closes both ends, and returns how often each pair of ports was used.
func connections(t *testing.T, n int) map[pair]int {
	t.Helper()
	made := map[pair]int{}
	var mu sync.Mutex
	var workers sync.WaitGroup
	for w := range 4 {
		server, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		workers.Go(func() {
			defer server.Close()
			for i := w; i < n; i += 4 {
				client, err := net.Dial("tcp4", server.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				peer, err := server.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				p := pair{client.LocalAddr().(*net.TCPAddr).Port, server.Addr().(*net.TCPAddr).Port}
				client.Close()
				peer.Close()
				mu.Lock()
				made[p]++
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return made
}

// TestLiveEveryConnection makes 20,000 connections: connect, accept and both closes of
// each are there once, or counted lost.
func TestLiveEveryConnection(t *testing.T) {
	n := processes()
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "connect,accept,close")
	made := connections(t, n)
	time.Sleep(100 * time.Millisecond)
	memory := peak(t, l.cmd.Process.Pid)
	if code, stderr := l.stop(os.Interrupt); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	seen := map[string]map[pair]int{"connect": {}, "accept": {}, "close": {}}
	total, lost := map[string]int{}, map[string]int{}
	for _, r := range l.rows() {
		if r.Kind == "loss" {
			lost[r.KindLost] += r.Count
			continue
		}
		p := pair{r.LocalPort, r.RemotePort}
		if made[p] == 0 {
			p = pair{r.RemotePort, r.LocalPort}
		}
		if r.PID != os.Getpid() || made[p] == 0 || seen[r.Kind] == nil {
			continue
		}
		seen[r.Kind][p]++
		total[r.Kind]++
		if r.Result != "" && r.Result != "ok" {
			t.Errorf("%s of %v: %s", r.Kind, p, r.Result)
		}
	}
	for kind, each := range map[string]int{"connect": 1, "accept": 1, "close": 2} {
		if total[kind]+lost[kind] < n*each || lost[kind] == 0 && total[kind] != n*each {
			t.Errorf("%d %s events of %d, %d counted lost", total[kind], kind, n*each, lost[kind])
		}
		for p, have := range seen[kind] {
			if have > made[p]*each {
				t.Errorf("%d %s events of %v, which was used %d times", have, kind, p, made[p])
			}
		}
	}
	t.Logf("lost %v, peak memory %d MB", lost, memory>>20)
	if memory > 64<<20 {
		t.Errorf("%d bytes of peak memory", memory)
	}
}
