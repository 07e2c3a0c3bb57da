package table

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// manager answers in systemd's place (org.freedesktop.systemd1(5)): systemd itself cannot be
// started in a test without its cleaning up after the whole machine.
type manager struct{ units []systemd.UnitStatus }

func (m *manager) ListUnits() ([]systemd.UnitStatus, *dbus.Error) { return m.units, nil }

// busConfig is of a bus of one's own (dbus-daemon(1)).
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>`

// startBus starts a dbus-daemon below root.
func startBus(t *testing.T, root string) *dbus.Conn {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("no dbus-daemon on this host: apt-get install dbus-daemon")
	}
	socket := filepath.Join(root, busSocket)
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(root, "bus.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, socket), 0o644); err != nil {
		t.Fatal(err)
	}
	bus := exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--config-file="+config)
	if err := bus.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bus.Process.Kill(); bus.Wait() })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := dbus.Connect("unix:path=" + socket)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestSystemdUnits(t *testing.T) {
	root, err := os.MkdirTemp("", "goshawk-bus-") // short, for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	conn := startBus(t, root)
	unit := func(name string) dbus.ObjectPath {
		return dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + systemd.PathBusEscape(name))
	}
	m := &manager{[]systemd.UnitStatus{
		{Name: "ssh.service", Description: "OpenBSD Secure Shell server", LoadState: "loaded", ActiveState: "active", SubState: "running", Path: unit("ssh.service"), JobPath: "/"},
		{Name: "x.mount", Description: "/x", LoadState: "not-found", ActiveState: "inactive", SubState: "dead", Followed: "y.mount", Path: unit("x.mount"), JobId: 7, JobType: "start", JobPath: "/org/freedesktop/systemd1/job/7"},
	}}
	if err := conn.Export(m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	text := func(s string) *prop.Prop { return &prop.Prop{Value: s, Emit: prop.EmitFalse} }
	for name, properties := range map[string]prop.Map{
		"ssh.service": {"org.freedesktop.systemd1.Unit": {"UnitFileState": text("enabled"), "FragmentPath": text("/lib/systemd/system/ssh.service"), "SourcePath": text("")},
			"org.freedesktop.systemd1.Service": {"User": text("sshd")}},
		"x.mount": {"org.freedesktop.systemd1.Unit": {"UnitFileState": text("generated"), "FragmentPath": text(""), "SourcePath": text("/etc/fstab")}},
	} {
		if _, err := prop.Export(conn, unit(name), properties); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := conn.RequestName("org.freedesktop.systemd1", 0); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	env := at(root)
	r := systemdUnitsTable(env)
	var warned []string
	rows, err := tryScan(r, &schema.Query{Warn: func(s string) { warned = append(warned, s) }})
	if err != nil || warned != nil {
		t.Fatalf("%v, %q", err, warned)
	}
	want := [][]string{
		{"ssh.service", "OpenBSD Secure Shell server", "loaded", "active", "running", "enabled", "", "/org/freedesktop/systemd1/unit/ssh_2eservice", "0", "", "/", "/lib/systemd/system/ssh.service", "sshd", ""},
		{"x.mount", "/x", "not-found", "inactive", "dead", "generated", "y.mount", "/org/freedesktop/systemd1/unit/x_2emount", "7", "start", "/org/freedesktop/systemd1/job/7", "", "", "/etc/fstab"},
	}
	var columns []string
	for _, c := range r.Def().Columns {
		columns = append(columns, c.Name)
	}
	if diff := cmp.Diff(want, cells(r, rows, columns...)); diff != "" {
		t.Error(diff)
	}
	s := startupItemsTable(env)
	got := cells(s, scan(t, s, whereAll()), "name", "type", "path", "source", "status", "username")
	if diff := cmp.Diff([][]string{
		{"ssh.service", "systemd unit", "/lib/systemd/system/ssh.service", "", "active", "sshd"},
		{"x.mount", "systemd unit", "", "/etc/fstab", "inactive", ""},
	}, got); diff != "" {
		t.Error(diff)
	}
}

// Somebody who listens where systemd should, and never answers, costs time and a warning.
func TestSystemdSilent(t *testing.T) {
	root, err := os.MkdirTemp("", "goshawk-bus-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for _, socket := range []string{systemdSocket, busSocket} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, socket)), 0o755); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", filepath.Join(root, socket))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	var warned string
	done := make(chan error, 1)
	go func() {
		_, err := systemdUnitsTable(at(root)).Open(ctx, &schema.Query{Warn: func(s string) { warned = s }})
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(warned, "ask systemd") {
			t.Errorf("%v, warning %q", err, warned)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the table waits for ever")
	}
}
