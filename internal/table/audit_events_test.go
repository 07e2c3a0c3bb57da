package table

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
)

func TestAuditField(t *testing.T) {
	const record = `apparmor="DENIED" operation="open" name=2F6120620A profile="x name=y" pid=5 error=-13 comm="a=b" label="" last=`
	for key, want := range map[string]string{
		"apparmor": "DENIED", "operation": "open", "name": "/a b\n", "profile": "x name=y", "pid": "5", "error": "-13", "comm": "a=b", "label": "", "last": "",
	} {
		if got, ok := auditField(record, key); got != want || !ok {
			t.Errorf("%s is %q, %v, want %q", key, got, ok, want)
		}
	}
	for _, c := range []string{record, "", "=", `"`, `a="`, "a", " = = ", `x"y="z"`} {
		if v, ok := auditField(c, "none"); ok {
			t.Errorf("%q has a field none: %q", c, v)
		}
	}
}

func FuzzAuditField(f *testing.F) {
	f.Add(`a=1 b="2 3" name=2F61`, "name")
	f.Add(`avc:  denied  { read } for  pid=1 comm="`, "comm")
	f.Fuzz(func(t *testing.T, record, key string) {
		if v, ok := auditField(record, key); ok && len(v) > len(record) || !ok && v != "" {
			t.Fatalf("%q, %v", v, ok)
		}
	})
}

// checkRows compares the rows of a table but for what all tables have of ours.
func checkRows(t *testing.T, log event.Log, o EventOptions, name string, want ...map[string]string) {
	t.Helper()
	rows := eventCells(t, eventTableNamed(t, log, o, name))
	for _, row := range rows {
		maps.DeleteFunc(row, func(column, _ string) bool {
			switch column {
			case "process_id", "parent_process_id", "container_id", "container_name", "image", "pod_name", "pod_namespace",
				"fidelity", "source", "ntime", "time", "uptime", "eid":
				return true
			}
			return false
		})
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("%s (-want +got): %s", name, diff)
	}
}

func TestRowsOfUsers(t *testing.T) {
	h := header(event.KindUser)
	h.UID = event.Unset
	checkRows(t, storeOf(t,
		&event.User{Header: header(event.KindUser), Type: "USER_LOGIN", TypeNumber: 1112, Operation: "login", Account: "eve", AccountUID: 1001,
			Address: "10.0.0.1", Hostname: "h", Terminal: "ssh", Result: "failed",
			Message: `pid=9 uid=0 auid=4294967295 ses=4294967295 msg='op=login acct="eve's" res=failed'`},
		&event.User{Header: h, Type: "ANOM_PROMISCUOUS", TypeNumber: 1700, AccountUID: event.Unset, Message: "dev=veth0 prom=256"},
	), EventOptions{}, "user_events",
		map[string]string{"uid": "1000", "auid": "4294967295", "pid": "4242", "message": `op=login acct="eve's" res=failed`, "type": "1112",
			"path": "/usr/bin/bash", "address": "10.0.0.1", "terminal": "ssh", "type_name": "USER_LOGIN", "operation": "login", "account": "eve",
			"account_uid": "1001", "result": "failed", "hostname": "h", "session_id": "9"},
		map[string]string{"uid": "NULL", "auid": "4294967295", "pid": "4242", "message": "dev=veth0 prom=256", "type": "1700",
			"path": "/usr/bin/bash", "type_name": "ANOM_PROMISCUOUS", "account_uid": "NULL", "session_id": "9"})
}

func TestRowsOfPolicies(t *testing.T) {
	log := storeOf(t,
		&event.Policy{Header: header(event.KindPolicy), Type: "AVC", TypeNumber: 1400, Module: "selinux", Operation: "read", Result: "denied",
			Subject: "a", Object: "b", ObjectClass: "file", Message: "avc:  denied  { read } for  pid=4242"},
		&event.Policy{Header: header(event.KindPolicy), Type: "AVC", TypeNumber: 1400, Module: "apparmor", Operation: "open", Result: "denied",
			Message: `apparmor="DENIED" operation="capable" parent=77 profile="/x" name="/etc/a b" pid=4242 comm="bash" capability=21 capname="sys_admin" requested_mask="r" denied_mask="w" fsuid=3 ouid=4 info="i" error=-13 namespace="n" label="l"`},
		&event.Policy{Header: header(event.KindPolicy), Type: "SECCOMP", TypeNumber: 1326, Module: "seccomp", Operation: "getpgid", Result: "kill_thread",
			Message: `auid=20003 uid=22 gid=22 ses=21 pid=4242 comm="sshd" exe="/usr/sbin/sshd" sig=31 arch=40000003 syscall=132 compat=1 ip=0xb7670aac code=0x0`},
	)
	checkRows(t, log, EventOptions{}, "selinux_events", map[string]string{"type": "AVC", "message": "avc:  denied  { read } for  pid=4242",
		"result": "denied", "permissions": "read", "subject": "a", "object": "b", "object_class": "file", "pid": "4242", "path": "/usr/bin/bash"})
	checkRows(t, log, EventOptions{}, "apparmor_events", map[string]string{"type": "AVC",
		"message":  `apparmor="DENIED" operation="capable" parent=77 profile="/x" name="/etc/a b" pid=4242 comm="bash" capability=21 capname="sys_admin" requested_mask="r" denied_mask="w" fsuid=3 ouid=4 info="i" error=-13 namespace="n" label="l"`,
		"apparmor": "DENIED", "operation": "capable", "parent": "77", "profile": "/x", "name": "/etc/a b", "pid": "4242", "comm": "bash",
		"denied_mask": "w", "capname": "sys_admin", "fsuid": "3", "ouid": "4", "capability": "21", "requested_mask": "r", "info": "i",
		"error": "-13", "namespace": "n", "label": "l", "path": "/usr/bin/bash"})
	checkRows(t, log, EventOptions{}, "seccomp_events", map[string]string{"auid": "4294967295", "uid": "1000", "gid": "1001", "ses": "9", "pid": "4242",
		"comm": "bash", "exe": "/usr/bin/bash", "sig": "31", "arch": "I386", "syscall": "getpgid", "compat": "1", "ip": "0xb7670aac", "code": "KILL_THREAD"})
}

func TestRowsOfFiles(t *testing.T) {
	file := func(operation, argument, result, syscall string) *event.File {
		return &event.File{Header: header(event.KindFile), Operation: operation, Argument: argument, Result: result, Syscall: syscall,
			TargetPath: "/a", Cwd: "/", Category: "c", FSUID: 5, FSGID: event.Unset, SUID: 7, SGID: 8}
	}
	log := storeOf(t, file("open", "O_RDONLY", "ok", "open"), file("open", "O_WRONLY|O_TRUNC", "ok", "open"), file("open", "O_RDWR", "EACCES", "open"),
		file("create", "O_WRONLY|O_CREAT", "ok", "openat"), file("create", "0755", "ok", "mkdir"), file("delete", "", "ok", "unlink"))
	row := func(operation, argument string) map[string]string {
		m := map[string]string{"operation": operation, "pid": "4242", "ppid": "77", "executable": "/usr/bin/bash", "partial": "false", "cwd": "/",
			"path": "/a", "uid": "1000", "gid": "1001", "auid": "4294967295", "euid": "0", "egid": "2", "fsuid": "5", "suid": "7", "sgid": "8",
			"category": "c"}
		if argument != "" {
			m["argument"] = argument
		}
		return m
	}
	writes := []map[string]string{row("open+truncate", "O_WRONLY|O_TRUNC"), row("open", "O_WRONLY|O_CREAT"), row("create", "0755"), row("unlink", "")}
	checkRows(t, log, EventOptions{}, "process_file_events", writes...)
	checkRows(t, log, EventOptions{ShowAccesses: true}, "process_file_events", append([]map[string]string{row("open", "O_RDONLY")}, writes...)...)
}
