package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// systemd-nspawn and LXC, which `make test-containers` starts: installing the one may bring
// another systemd.

// ownRoot makes a root directory that one container may write to.
func (c *containerBench) ownRoot(t *testing.T, b *box) string {
	t.Helper()
	dir := c.path(b.name)
	command(t, nil, "cp", "-a", c.rootfs, dir)
	return dir
}

// terminate ends the first process of a box.
func (b *box) terminate(t *testing.T) {
	t.Helper()
	mustDo(t, syscall.Kill(b.pid, syscall.SIGTERM))
	within(t, b.name+" stops", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

// nspawn runs systemd-nspawn in a scope as systemd-machined would make it.
func (c *containerBench) nspawn() *engine {
	removeCgroups(c.t, "machine.slice")
	return &engine{
		name: "systemd-nspawn",
		run: func(t *testing.T, b *box) {
			b.id = b.name
			root := c.ownRoot(t, b)
			scope := "machine.slice/machine-" + strings.ReplaceAll(b.name, "-", `\x2d`) + ".scope"
			// All of them first: no program but systemd-nspawn is executed in the scope.
			script := `for h in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
				[ ! -e $h/cgroup.procs ] || mkdir -p "$h/$0" || exit 1
			done
			for h in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
				[ ! -e $h/cgroup.procs ] || echo $$ >"$h/$0/cgroup.procs" || exit 1
			done
			exec "$@"`
			background(c.t, c.path(b.name+".log"), "sh", "-c", script, scope, "systemd-nspawn", "--quiet", "--register=no", "--keep-unit",
				"--private-network", "-D", root, "-M", b.name, "--console=pipe", "/entry", b.token, strconv.Itoa(b.port))
			within(t, b.name+" runs", func() bool { return b.find() != 0 })
		},
		exec: func(t *testing.T, b *box, args ...string) { // machinectl would ask systemd-machined
			command(t, nil, "nsenter", append([]string{"-t", strconv.Itoa(b.find()), "-m", "-u", "-i", "-n", "-p"}, args...)...)
		},
		stop: func(t *testing.T, b *box) { b.terminate(t) },
		want: map[string]string{},
	}
}

func (c *containerBench) lxc() *engine {
	return &engine{
		name: "lxc",
		run: func(t *testing.T, b *box) {
			b.id = b.name
			root := c.ownRoot(t, b)
			mustDo(t, os.MkdirAll(c.path("lxc", b.name), 0o755))
			mustDo(t, os.WriteFile(c.path("lxc", b.name, "config"), []byte(fmt.Sprintf(`lxc.uts.name = shop
lxc.rootfs.path = dir:%s
lxc.net.0.type = empty
lxc.apparmor.profile = unconfined
lxc.mount.auto = proc
lxc.init.cmd = /entry %s %d
`, root, b.token, b.port)), 0o644))
			c.t.Cleanup(func() { tryCommand(t, nil, "lxc-stop", "-k", "-P", c.path("lxc"), "-n", b.name) })
			command(t, nil, "lxc-start", "-P", c.path("lxc"), "-n", b.name)
			within(t, b.name+" runs", func() bool { return b.find() != 0 })
		},
		exec: func(t *testing.T, b *box, args ...string) {
			command(t, nil, "lxc-attach", append([]string{"-P", c.path("lxc"), "-n", b.name, "--"}, args...)...)
		},
		stop: func(t *testing.T, b *box) { b.terminate(t) },
		want: map[string]string{},
	}
}
