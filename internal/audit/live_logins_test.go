package audit

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// TestLiveLogins has people come and go, and accounts made and removed, by Debian's own
// programs: each is told with its account, terminal, address, result and whole message.
func TestLiveLogins(t *testing.T) {
	needAudit(t)
	for _, name := range []string{"useradd", "su", "sudo", "login", "/usr/sbin/sshd", "ssh", "script"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s (Debian's packages login, passwd, sudo, openssh-server, openssh-client)", name)
		}
	}
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	l := watch(t, Options{Kinds: []event.ID{event.KindUser}})
	// Where the users that the script makes may read their keys.
	dir, err := os.MkdirTemp("", "goshawk-logins-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	script := exec.Command("unshare", "-m", "--propagation", "private", "sh", "testdata/logins.sh", dir, strconv.Itoa(port))
	script.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM, Setsid: true}
	if out, err := script.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	eventually(t, "the last thing done", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.ContainsFunc(l.events, func(e event.Event) bool { return e.Head().Path == "/usr/sbin/groupdel" })
	})
	l.stop()
	// login had a terminal, whose number is not known before.
	if !slices.ContainsFunc(l.events, func(e event.Event) bool {
		u := e.(*event.User)
		return u.Type == "USER_LOGIN" && u.Path == "/usr/bin/login" && strings.HasPrefix(u.Terminal, "/dev/pts/")
	}) {
		t.Error("login has no terminal")
	}
	for _, want := range loginsWanted {
		if !slices.ContainsFunc(l.events, func(e event.Event) bool {
			return e.(*event.User).Message != "" && len(columnErrors(t, e, want)) == 0
		}) {
			t.Errorf("nothing like %s", want)
		}
	}
	if t.Failed() {
		for _, e := range l.events {
			t.Logf("%.700s", event.AppendJSON(nil, e))
		}
	}
}

var loginsWanted = []string{
	`user type=ADD_USER operation=adding\u0020user account_uid=64111 result=success path=/usr/sbin/useradd`,
	`user type=USER_CHAUTHTOK operation=PAM:chauthtok account=gosh-user result=success path=/usr/sbin/chpasswd`,
	`user type=ADD_GROUP operation=adding\u0020group\u0020to\u0020/etc/group account_uid=64112 result=success path=/usr/sbin/groupadd`,
	`user type=USER_CHAUTHTOK operation=adding\u0020user\u0020to\u0020group account=gosh-user result=success path=/usr/sbin/usermod`,
	`user type=USER_AUTH operation=PAM:authentication account=gosh-user result=success path=/usr/bin/su uid=0 fidelity=user`,
	`user type=USER_START operation=PAM:session_open account=gosh-user result=success path=/usr/bin/su`,
	`user type=USER_END operation=PAM:session_close account=gosh-user result=success path=/usr/bin/su`,
	`user type=USER_AUTH operation=PAM:authentication account=gosh-user result=failed path=/usr/bin/su uid=65534`,
	`user type=USER_CMD operation=command command=/bin/true\u0020two\u0020words result=success path=/usr/bin/sudo`,
	`user type=USER_START operation=PAM:session_open account=gosh-user result=success path=/usr/bin/sudo`,
	`user type=LOGIN operation=login account_uid=64111 auid=64111 result=success fidelity=kernel`,
	`user type=USER_LOGIN operation=login account=gosh-user auid=64111 result=success path=/usr/bin/login`,
	`user type=USER_START operation=PAM:session_open account=gosh-user auid=64111 address=127.0.0.1 hostname=127.0.0.1 terminal=ssh result=success path=/usr/sbin/sshd`,
	`user type=USER_END operation=PAM:session_close account=gosh-user address=127.0.0.1 terminal=ssh result=success path=/usr/sbin/sshd`,
	`user type=USER_LOGIN operation=login account=(invalid\u0020user) address=127.0.0.1 terminal=sshd result=failed path=/usr/sbin/sshd`,
	`user type=DEL_USER operation=deleting\u0020user\u0020entries account_uid=64111 result=success path=/usr/sbin/userdel`,
	`user type=DEL_GROUP operation=removing\u0020group\u0020from\u0020/etc/group account_uid=64112 result=success path=/usr/sbin/groupdel`,
}

// TestLiveServices has a service start and stop as systemd tells it: by messages of libaudit's form
// (audit_log_user_comm_message(3)), sent to this kernel.
func TestLiveServices(t *testing.T) {
	needAudit(t)
	l := watch(t, Options{Kinds: []event.ID{event.KindUser}})
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	const said = `unit=%s comm="systemd" exe="/usr/lib/systemd/systemd" hostname=? addr=? terminal=? res=%s`
	for _, m := range []struct {
		typ          uint16
		unit, result string
	}{{typeServiceStart, "cron", "success"}, {typeServiceStop, "cron", "success"}, {typeServiceStart, `broken@two\x20words`, "failed"}} {
		if err := c.do(m.typ, append(fmt.Appendf(nil, said, m.unit, m.result), 0), nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "three messages", func() bool { return l.seen("user") >= 3 })
	l.stop()
	for _, want := range []string{
		"user type=SERVICE_START operation=start object=cron result=success path=/usr/lib/systemd/systemd comm=systemd fidelity=user uid=0",
		"user type=SERVICE_STOP operation=stop object=cron result=success",
		`user type=SERVICE_START operation=start object=broken@two\x20words result=failed`,
	} {
		if !slices.ContainsFunc(l.events, func(e event.Event) bool {
			return e.Head().PID == uint32(os.Getpid()) && e.(*event.User).Message != "" && len(columnErrors(t, e, want)) == 0
		}) {
			t.Errorf("nothing like %s", want)
		}
	}
	if t.Failed() {
		for _, e := range l.events {
			t.Logf("%.500s", event.AppendJSON(nil, e))
		}
	}
}
