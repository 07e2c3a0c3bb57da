package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// TestLiveContainerRush makes and removes 200 containers as fast as runc can, each with one
// short process and an image of its own: no event may be another's, and what runc has
// written down of a container comes with an event or in an amendment.
func TestLiveContainerRush(t *testing.T) {
	n := 200
	if testing.Short() {
		n = 12
	}
	c := newBench(t)
	c.oci("runc", "runc") // tidies up
	keepDelegation(t)
	root := t.TempDir()
	l := startRun(t, root, "--format", "json", "--kinds", "exec,exit,container")
	name := func(i int) string { return "goshawk-rush-" + strconv.Itoa(i) }
	image := func(i int) string { return "docker.io/acme/rush:" + strconv.Itoa(i) }
	var workers sync.WaitGroup
	failed := make([]string, n)
	for w := range 4 {
		workers.Go(func() {
			for i := w; i < n; i += 4 {
				bundle := c.path(name(i))
				spec := ociSpec(c.rootfs, map[string]string{"org.opencontainers.image.ref.name": image(i)}, "/"+name(i), "/bin/true", name(i))
				if err := os.Mkdir(bundle, 0o755); err != nil {
					failed[i] = err.Error()
					return
				}
				if err := os.WriteFile(filepath.Join(bundle, "config.json"), spec, 0o644); err != nil {
					failed[i] = err.Error()
					return
				}
				if out, err := tryCommand(t, nil, "runc", "run", "--bundle", bundle, name(i)); err != nil {
					failed[i] = fmt.Sprint(err, out)
				}
			}
		})
	}
	workers.Wait()
	for i, f := range failed {
		if f != "" {
			t.Fatalf("container %d: %s", i, f)
		}
	}
	s := openStream(t, l.out)
	// what is told of a container: its exec, its exit, create, start and stop.
	type told struct {
		exec, exit, create, start, stop int
		image                           bool
	}
	seen := make([]told, n)
	read := func(report bool) {
		clear(seen)
		of := map[string]int{} // process → container
		for _, r := range s.read() {
			own := -1
			if rest, ok := strings.CutPrefix(r.text("container_id"), "goshawk-rush-"); ok {
				own, _ = strconv.Atoi(rest)
			}
			if report && own >= 0 {
				if r.text("container_name") != name(own) || r.text("image") != "" && r.text("image") != image(own) {
					t.Errorf("wrong name or image: %v", r)
				}
			}
			if own >= 0 && r.text("image") == image(own) {
				seen[own].image = true
			}
			args := r.args()
			switch r.text("kind") {
			case "exec":
				if len(args) != 2 || args[0] != "/bin/true" || !strings.HasPrefix(args[1], "goshawk-rush-") {
					continue
				}
				i, _ := strconv.Atoi(strings.TrimPrefix(args[1], "goshawk-rush-"))
				of[r.text("process_id")] = i
				seen[i].exec++
				if report && own != i {
					t.Errorf("the program of container %d is told of container %q", i, r.text("container_id"))
				}
			case "exit":
				i, ok := of[r.text("process_id")]
				if !ok {
					continue
				}
				seen[i].exit++
				if report && own != i {
					t.Errorf("the end of container %d is told of container %q", i, r.text("container_id"))
				}
			case "container":
				if own < 0 {
					continue
				}
				switch r.text("operation") {
				case "create":
					seen[own].create++
				case "start":
					seen[own].start++
				case "stop":
					seen[own].stop++
				}
			}
		}
	}
	whole := told{exec: 1, exit: 1, create: 1, start: 1, stop: 1}
	missing := ""
	within(t, "all is told of all containers, once", func() bool {
		read(false)
		missing = ""
		for i, x := range seen {
			if x.image = false; x != whole {
				missing += fmt.Sprintf("container %d: %+v\n", i, x)
			}
		}
		return missing == ""
	}, func() string { return missing })
	memory := peak(t, l.cmd.Process.Pid)
	if code, stderr := l.stop(os.Interrupt); code != 0 || !strings.Contains(stderr, "\nlost: none\n") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	read(true)
	known := 0
	for _, x := range seen {
		if x.image {
			known++
		}
	}
	t.Logf("%d containers, of which %d with their image; peak memory %d MB", n, known, memory>>20)
	// A container is there for 50 ms or so; now and then it is gone before anybody could read.
	if known < n/2 {
		t.Errorf("of %d containers only %d have an image", n, known)
	}
	if memory > 64<<20 {
		t.Errorf("%d bytes of peak memory", memory)
	}
}
