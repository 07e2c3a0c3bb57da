package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/audit"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/sensor"
)

// TestAuditKinds: each kind comes from one source, and with auto audit joins only for what
// it should.
func TestAuditKinds(t *testing.T) {
	hook := func(tier string, kinds ...event.ID) event.Hook {
		return event.Hook{Source: "ebpf", Name: "x", Kinds: kinds, Tier: tier}
	}
	works := []event.Hook{hook("tp_btf", event.KindExec), hook("tp_btf", event.KindFork), hook("tp_btf", event.KindExit),
		hook("fexit", event.KindConnect, event.KindBind, event.KindListen, event.KindAccept)}
	lame := append([]event.Hook{hook("", event.KindBind), hook("", event.KindConnect)}, works[:3]...)
	lame = append(lame, hook("cgroup", event.KindConnect)) // in part, by another hook
	free := &audit.State{Case: audit.CaseOwn}
	beside := &audit.State{Case: audit.CaseBeside, Enabled: true}
	off := &audit.State{Case: audit.CaseBeside}
	ids := func(ids ...event.ID) []event.ID { return ids }
	for _, c := range []struct {
		name   string
		source string
		asked  []event.ID
		ebpf   []event.Hook
		state  *audit.State
		want   []event.ID
	}{
		{"eBPF does", "auto", nil, works, free, nil},
		{"logins come without rules", "auto", nil, works, beside, ids(event.KindUser, event.KindPolicy)},
		{"but not while audit is off", "auto", nil, works, off, nil},
		{"asked by name", "auto", ids(event.KindExec, event.KindUser), works, free, ids(event.KindUser)},
		{"asked by name, and eBPF does", "auto", ids(event.KindExec), works, beside, nil},
		{"a hook that does not work", "auto", nil, lame, free, ids(event.KindBind)},
		{"without eBPF", "auto", nil, nil, free, audit.Kinds()},
		{"without eBPF, asked by name", "auto", ids(event.KindExec, event.KindDNS), nil, free, ids(event.KindExec)},
		{"audit alone", "audit", nil, nil, free, audit.Kinds()},
		{"both, asked by name", "both", ids(event.KindFork, event.KindMount), works, free, ids(event.KindMount)},
		{"both, nothing left", "both", ids(event.KindFork), works, free, nil},
	} {
		check(t, c.name, auditKinds(c.source, c.asked, c.ebpf, c.state), c.want)
	}
	all := auditKinds("both", nil, works, free)
	for _, h := range works {
		for _, k := range h.Kinds {
			for _, a := range all {
				if a == k {
					t.Errorf("both tell of %s", k)
				}
			}
		}
	}
}

func TestSourceErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{&sensor.Unsupported{}, exitUnsupported},
		{fmt.Errorf("open: %w", &audit.Unsupported{Why: "no audit", Err: unix.EPROTONOSUPPORT}), exitUnsupported},
		{&audit.ErrBusy{PID: 7}, exitBusy},
		{fmt.Errorf("open: %w", unix.EPERM), exitPrivilege},
	} {
		var exit *exitError
		if err := sourceError(c.err); !errors.As(err, &exit) || exit.code != c.code {
			t.Errorf("%v becomes %v", c.err, err)
		}
	}
	plain := errors.New("x")
	if err := sourceError(plain); err != plain {
		t.Errorf("%v becomes %v", plain, err)
	}
}

func TestReadyLineOfTwoSources(t *testing.T) {
	h := &host{rootDir: "/r"}
	got := readyLine("ebpf,audit", []event.Hook{
		{Source: "ebpf", Name: "exec", Tier: "tp_btf", Kinds: []event.ID{event.KindExec}},
		{Source: "ebpf", Name: "bind", Kinds: []event.ID{event.KindBind}},
		{Source: "ebpf", Name: "dns", Kinds: []event.ID{event.KindDNS}},
		{Source: "audit", Name: "bind", Tier: "audit", Kinds: []event.ID{event.KindBind}},
	}, h)
	check(t, "line", got, "ready: source=ebpf,audit hooks=2 missing=dns store=/r/var/lib/goshawk socket=/r/run/goshawk/goshawk.sock")
}

func TestTypes(t *testing.T) {
	host, root := t.TempDir(), t.TempDir()
	fs := procfs.At(host)
	write := func(name string) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("3.10.0-1160\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	write(filepath.Join(fs.Proc, "sys/kernel/osrelease"))
	find := func(btf string) string {
		t.Helper()
		file, err := (&sensing{btf: btf}).types(fs, root)
		if err != nil {
			t.Error(err)
		}
		return file
	}
	check(t, "nowhere", find(""), "")
	given := write(filepath.Join(t.TempDir(), "any.name"))
	check(t, "a file", find(given), given)
	dir := t.TempDir()
	if _, err := (&sensing{btf: dir}).types(fs, root); err == nil {
		t.Error("a directory without this kernel's file does")
	}
	named := write(filepath.Join(dir, "3.10.0-1160.btf"))
	check(t, "a directory", find(dir), named)
	check(t, "an archive", find(filepath.Join(dir, "any.tar.gz")), filepath.Join(dir, "any.tar.gz"))
	write(filepath.Join(root, "etc/goshawk/btf.tar.gz")) // not an archive
	check(t, "no archive", find(""), "")
	kept := write(filepath.Join(root, "etc/goshawk/btf/3.10.0-1160.btf"))
	check(t, "the usual directory", find(""), kept)
	write(filepath.Join(fs.Sys, "kernel/btf/vmlinux"))
	check(t, "the kernel's own first", find(""), "")
	check(t, "unless it is told", find(dir), named)
}
