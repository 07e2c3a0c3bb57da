package sink

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
)

func head(kind event.ID) event.Header {
	return event.Header{
		Kind: kind, Time: time.Date(2026, 3, 4, 12, 34, 56, 789_999_999, time.UTC).UnixNano(),
		PID: 1234, PPID: 10, UID: 1000, Path: "/usr/bin/curl", Comm: "curl",
	}
}

func text() *Text {
	return &Text{
		User: func(uid uint32) string {
			return map[uint32]string{0: "root", 1000: "ana"}[uid]
		},
		Lineage: func(dst []string, h *event.Header, max int) []string {
			return append(dst, []string{"bash", "sshd"}[:min(2, max)]...)
		},
	}
}

const prefix = "12:34:56.789 "

func TestText(t *testing.T) {
	const who = " ana      -            sshd>bash>curl[1234]         "
	root := head(event.KindExec)
	root.UID = 0
	stranger := head(event.KindExec)
	stranger.UID, stranger.Path, stranger.ContainerID = 4242, "/x/a\x1b[2Jb", "0123456789abcdef"
	named := head(event.KindFork)
	named.ContainerID, named.ContainerName = "0123456789abcdef", "web"
	named21 := head(event.KindContainer)
	named21.ContainerID, named21.ContainerName = "0123456789abcdef", "web"
	unknown := head(event.KindListen)
	unknown.Path, unknown.Comm = "", ""
	for _, c := range []struct {
		name string
		e    event.Event
		want string
	}{
		{"exec", &event.Exec{Header: head(event.KindExec), Args: "curl\x00-H\x00a: b\x00http://x/?a=1&b\x00"},
			"exec   " + who + "curl -H 'a: b' 'http://x/?a=1&b'"},
		{"exec as root", &event.Exec{Header: root, Args: "id\x00"},
			"exec    root     -            sshd>bash>curl[1234]         id"},
		{"exec with hostile bytes", &event.Exec{Header: stranger, Args: "a\x00\x1b]0;x\x07\x00it's\x00\x00\xff\x00é\u202e\x00"},
			`exec    4242     0123456789ab sshd>bash>a\x1b[2Jb[1234]    a $'\x1b]0;x\x07' 'it'\''s' '' $'\xff' $'é\u202e'`},
		{"not in the image", &event.Exec{Header: head(event.KindExec), Args: "x\x00", NotInImage: true}, "exec   " + who + "x  (not in the image)"},
		{"container made", &event.Container{Header: named21, Operation: "create", Runtime: "docker"},
			"container ana      web          sshd>bash>curl[1234]         create 0123456789ab name=web runtime=docker"},
		{"container stopped", &event.Container{Header: named21, Operation: "stop", Ended: 3<<8 + 1, DurationNs: 2_000_000_000},
			"container ana      web          sshd>bash>curl[1234]         stop 0123456789ab name=web code 3, 2.0 s"},
		{"container entered", &event.Container{Header: named21, Operation: "exec", Args: "sh\x00-c\x00a b\x00"},
			"container ana      web          sshd>bash>curl[1234]         exec 0123456789ab name=web: sh -c 'a b'"},
		{"script", &event.Exec{Header: head(event.KindExec), Args: "sh\x00./x\x00", Script: "./my script", Interpreter: "/bin/sh"},
			"exec   " + who + "sh ./x  (script './my script')"},
		{"memfd", &event.Exec{Header: head(event.KindExec), Memfd: true, Deleted: true},
			"exec   " + who + "/usr/bin/curl  (from memory)"},
		{"deleted", &event.Exec{Header: head(event.KindExec), Args: "x\x00", Deleted: true}, "exec   " + who + "x  (deleted)"},
		{"cut arguments", &event.Exec{Header: head(event.KindExec), Args: "x\x00y", ArgsTruncated: true, ArgsLength: 1_048_576},
			"exec   " + who + "x y ... (1.0 MB)"},
		{"long argument", &event.Exec{Header: head(event.KindExec), Args: strings.Repeat("é", 3000) + "\x00", ArgsLength: 6001},
			"exec   " + who + strings.Repeat("é", 1024) + " ... (6.0 KB)"},
		{"many arguments", &event.Exec{Header: head(event.KindExec), Args: strings.Repeat("abcdefg\x00", 1000), ArgsLength: 8000},
			"exec   " + who + strings.TrimSpace(strings.Repeat("abcdefg ", 257)[:2055]) + " ... (8.0 KB)"},
		{"fork", &event.Fork{Header: named, ChildPID: 77, ChildPPID: 1234},
			"fork    ana      web          sshd>bash>curl[1234]         child 77"},
		{"fork with CLONE_PARENT", &event.Fork{Header: head(event.KindFork), ChildPID: 77, ChildPPID: 10},
			"fork   " + who + "child 77 of parent 10"},
		{"exit", &event.Exit{Header: head(event.KindExit), ExitCode: 3, DurationNs: 1_234_567_890}, "exit   " + who + "code 3, 1.2 s"},
		{"killed", &event.Exit{Header: head(event.KindExit), Signal: 11, CoreDumped: true, DurationNs: 2_300_000},
			"exit   " + who + "signal 11 SEGV with core, 2.3 ms"},
		{"real-time signal", &event.Exit{Header: head(event.KindExit), Signal: 40, DurationNs: 61_000_000_000},
			"exit   " + who + "signal 40, 1 min 1 s"},
		{"connect", &event.Socket{Header: head(event.KindConnect), Family: "inet", Protocol: "tcp", LocalAddress: "127.0.0.1",
			LocalPort: 123, RemoteAddress: "1.2.3.4", RemotePort: 443, Result: "ok"},
			"connect" + who + "tcp 127.0.0.1:123 -> 1.2.3.4:443 ok"},
		{"connect refused", &event.Socket{Header: head(event.KindConnect), Family: "inet6", Protocol: "tcp",
			RemoteAddress: "2001:db8::1", RemotePort: 80, Result: "ECONNREFUSED"},
			"connect" + who + "tcp -> [2001:db8::1]:80 ECONNREFUSED"},
		{"accept", &event.Socket{Header: head(event.KindAccept), Family: "inet6", Protocol: "tcp", LocalAddress: "::1",
			LocalPort: 80, RemoteAddress: "::1", RemotePort: 5555, Result: "ok"},
			"accept " + who + "tcp [::1]:80 <- [::1]:5555 ok"},
		{"listen", &event.Socket{Header: unknown, Family: "inet", Protocol: "tcp", LocalAddress: "0.0.0.0", LocalPort: 80, Result: "ok"},
			"listen  ana      -            sshd>bash>?[1234]            tcp 0.0.0.0:80 ok"},
		{"bind to any port", &event.Socket{Header: head(event.KindBind), Family: "inet", Protocol: "udp", LocalAddress: "", Result: "ok"},
			"bind   " + who + "udp *:* ok"},
		{"unix", &event.Socket{Header: head(event.KindConnect), Family: "unix", Protocol: "stream", SocketPath: "@\x01x", Result: "ok"},
			"connect" + who + `unix stream @\x01x ok`},
		{"close", &event.Socket{Header: head(event.KindClose), Family: "inet", Protocol: "tcp", LocalAddress: "127.0.0.1",
			LocalPort: 123, RemoteAddress: "1.2.3.4", RemotePort: 443, BytesSent: 999, BytesReceived: 1_234_567, DurationNs: 7_384_000_000_000},
			"close  " + who + "tcp 127.0.0.1:123 -> 1.2.3.4:443 999 B out, 1.2 MB in, 2 h 3 min"},
		{"dns", &event.DNS{Header: head(event.KindDNS), QueryType: "A", Question: "example.com", Answers: "1.2.3.4\x005.6.7.8\x00",
			ResponseCode: "NOERROR"}, "dns    " + who + "A example.com -> 1.2.3.4, 5.6.7.8"},
		{"dns without the name", &event.DNS{Header: head(event.KindDNS), QueryType: "AAAA", Question: "nope.example", ResponseCode: "NXDOMAIN"},
			"dns    " + who + "AAAA nope.example -> NXDOMAIN"},
		{"dns unanswered", &event.DNS{Header: head(event.KindDNS), QueryType: "TXT", Question: `a\010b`},
			"dns    " + who + `TXT a\010b -> no answer`},
		{"rename", &event.File{Header: head(event.KindFile), Operation: "rename", TargetPath: "/tmp/a b", DestinationPath: "/etc/passwd", Result: "ok"},
			"file   " + who + "rename '/tmp/a b' -> /etc/passwd ok"},
		{"open of an unknown file", &event.File{Header: head(event.KindFile), Operation: "open", Argument: "O_WRONLY|O_TRUNC", Result: "EACCES"},
			"file   " + who + "open ? (O_WRONLY|O_TRUNC) EACCES"},
		{"setuid", &event.Credential{Header: head(event.KindCredential), Operation: "setuid", Argument: "1000", OldUID: 0, NewUID: 1000,
			OldEUID: event.Unset, NewEUID: 1000, Result: "ok"}, "credential" + who + "setuid(1000) uid 0 -> 1000 euid 1000 ok"},
		{"capabilities", &event.Credential{Header: head(event.KindCredential), Operation: "exec", OldPermitted: "0", NewPermitted: "3000", Result: "ok"},
			"credential" + who + "exec +cap_net_admin,cap_net_raw ok"},
		{"ptrace", &event.Ptrace{Header: head(event.KindPtrace), Request: "attach", TargetPID: 7, TargetComm: "agent", Result: "EPERM"},
			"ptrace " + who + "attach of agent[7] EPERM"},
		{"signal", &event.Signal{Header: head(event.KindSignal), Signal: 9, TargetPID: 7, TargetPath: "/usr/sbin/auditd", TargetComm: "x", Result: "ok"},
			"signal " + who + "9 KILL to auditd[7] ok"},
		{"module", &event.Module{Header: head(event.KindModule), Operation: "load", Name: "dummy", Parameters: "n=2", Result: "ok"},
			"module " + who + "load dummy n=2 ok"},
		{"mount", &event.Mount{Header: head(event.KindMount), Operation: "mount", FilesystemType: "tmpfs", Target: "/mnt", Result: "ok"},
			"mount  " + who + "mount tmpfs /mnt ok"},
		{"login", &event.User{Header: head(event.KindUser), Type: "USER_LOGIN", Operation: "login", Account: "eve\n", Terminal: "ssh",
			Address: "10.0.0.1", Result: "failed"}, "user   " + who + `USER_LOGIN login account eve\n on ssh from 10.0.0.1 failed`},
		{"bpf", &event.BPF{Header: head(event.KindBPF), Operation: "prog_load", ProgramType: "xdp", ProgramName: "a b", Result: "ok"},
			"bpf    " + who + "prog_load xdp 'a b' ok"},
		{"unshare", &event.Namespace{Header: head(event.KindNamespace), Operation: "unshare", Namespaces: "mnt,pid", Result: "EPERM"},
			"namespace" + who + "unshare mnt,pid EPERM"},
		{"setns", &event.Namespace{Header: head(event.KindNamespace), Operation: "setns", Inode: 4026531838, Result: "ok"},
			"namespace" + who + "setns [4026531838] ok"},
		{"memfd", &event.Memory{Header: head(event.KindMemory), Operation: "memfd_create", Name: "x", Flags: "MFD_CLOEXEC", Result: "ok"},
			"memory " + who + "memfd_create x MFD_CLOEXEC ok"},
		{"mmap", &event.Memory{Header: head(event.KindMemory), Operation: "mmap", Length: 4096, Protection: "PROT_WRITE|PROT_EXEC", Result: "ok"},
			"memory " + who + "mmap 'PROT_WRITE|PROT_EXEC' 4.1 KB ok"},
		{"socket", &event.Syscall{Header: head(event.KindSyscall), Syscall: "socket", Operation: "packet", Object: "packet", Value: 3, Result: "EPERM"},
			"syscall" + who + "socket packet packet 3 EPERM"},
		{"alert", &event.Alert{Header: head(event.KindAlert), Level: "high", RuleName: "Shell from a server", Summary: "sh -c 'a\x1b'",
			Tags: "attack.execution\x00attack.t1059.004\x00", Suppressed: 3},
			"alert  " + who + `high: Shell from a server: sh -c 'a\x1b' T1059.004 (and 3 kept back before)`},
		{"policy", &event.Policy{Header: head(event.KindPolicy), Module: "selinux", Operation: "read", ObjectClass: "file", TargetPath: "shadow",
			Subject: "httpd_t", Object: "shadow_t", Result: "denied"}, "policy " + who + "selinux read file shadow by httpd_t on shadow_t denied"},
		{"loss", &event.Loss{Header: head(event.KindLoss), KindLost: "exec", Reason: "ring_full", Count: 12},
			"loss    lost 12 exec events: ring_full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := string(text().Append(nil, c.e))
			if d := cmp.Diff(prefix+c.want+"\n", got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestTextInColour(t *testing.T) {
	w := text()
	w.Color = true
	w.Zone = time.FixedZone("", 3600)
	got := string(w.Append(nil, &event.Socket{Header: head(event.KindConnect), Family: "inet", Protocol: "tcp",
		RemoteAddress: "1.2.3.4", RemotePort: 443, Result: "EPERM"}))
	want := "\x1b[2m13:34:56.789\x1b[0m \x1b[36mconnect\x1b[0m ana      -            " +
		"\x1b[2msshd>bash>\x1b[0m\x1b[1mcurl[1234]\x1b[0m         tcp -> 1.2.3.4:443 \x1b[31mEPERM\x1b[0m\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestQuotedWordsAreRead lets bash read back what is meant for it.
func TestQuotedWordsAreRead(t *testing.T) {
	words := []string{
		"plain", "", "two words", "it's", `back\slash`, "$HOME", "`id`", "*", "a\nb", "\x1b[31m", "é", "\xff\xfe", "~",
		"a'\n'b", "\u202e", "\U000e0001", "-n", "!x", "{a,b}", "#x", "a=b", `\n`,
	}
	var script []byte
	for _, w := range words {
		script = append(script, "printf '%s\\0' "...)
		script = append(appendQuoted(script, w), '\n')
	}
	cmd := exec.Command("bash", "-c", string(script))
	cmd.Env = []string{"LC_ALL=C.UTF-8"}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Join(words, "\x00")+"\x00", string(out)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestTextAllocations(t *testing.T) {
	w, buf := text(), make([]byte, 0, 4096)
	w.User = func(uint32) string { return "ana" }
	w.Lineage = func(dst []string, _ *event.Header, _ int) []string { return append(dst, "bash") }
	e := &event.Exec{Header: head(event.KindExec), Args: "curl\x00-s\x00"}
	if n := testing.AllocsPerRun(100, func() { w.Append(buf, e) }); n != 0 {
		t.Errorf("%v allocations a line", n)
	}
}
