package table

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

func TestCrontab(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/crontab":                 "# comment\nSHELL=/bin/sh\nPATH = /bin\n17 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly\n\n@reboot root /x\n",
		"etc/cron.d/php":              "09,39 * * * * root [ -x /y ] && a=1 /y\n* * * *\n",
		"var/spool/cron/crontabs/ada": "@daily ~/backup  a\n*/5 0 1 jan mon echo \"x  y\"\n",
		"var/spool/cron/bob":          "A=b\n0 0 * * * id",
	})
	r := crontabTable(at(dir))
	want := [][]string{
		{"", "17", "*", "*", "*", "*", "root cd / && run-parts --report /etc/cron.hourly", "/etc/crontab"},
		{"@reboot", "", "", "", "", "", "root /x", "/etc/crontab"},
		{"", "09,39", "*", "*", "*", "*", "root [ -x /y ] && a=1 /y", "/etc/cron.d/php"},
		{"", "0", "0", "*", "*", "*", "id", "/var/spool/cron/bob"},
		{"@daily", "", "", "", "", "", "~/backup a", "/var/spool/cron/crontabs/ada"},
		{"", "*/5", "0", "1", "jan", "mon", `echo "x y"`, "/var/spool/cron/crontabs/ada"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "event", "minute", "hour", "day_of_month", "month", "day_of_week", "command", "path")); diff != "" {
		t.Error(diff)
	}
}

const (
	ed25519Public = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	passphrase    = "goshawk"
)

func TestAuthorizedKeys(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/passwd":                     passwd,
		"home/ada/.ssh/authorized_keys":  "# mine\nssh-ed25519 " + ed25519Public + " ada@laptop\nfrom=\"10.0.0.0/8\",command=\"/bin/x y\" ssh-ed25519 " + ed25519Public + "\n",
		"home/bob/.ssh/authorized_keys2": "cert-authority no key at all\n",
		"root/.ssh/authorized_keys":      "ssh-ed25519 " + ed25519Public + " me\n",
	})
	r := authorizedKeysTable(at(dir))
	columns := []string{"uid", "algorithm", "key", "options", "comment", "key_file"}
	want := [][]string{
		{"1000", "ssh-ed25519", ed25519Public, "", "ada@laptop", "/home/ada/.ssh/authorized_keys"},
		{"1000", "ssh-ed25519", ed25519Public, `from="10.0.0.0/8",command="/bin/x y"`, "", "/home/ada/.ssh/authorized_keys"},
		{"1001", "", "cert-authority no key at all", "", "", "/home/bob/.ssh/authorized_keys2"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, where(r, "uid", 1000, 1001)), columns...)); diff != "" {
		t.Error(diff)
	}
	// Not joined with users it is the current user's alone, and says so.
	var warned string
	rows, err := tryScan(r, &schema.Query{Warn: func(s string) { warned = s }})
	if err != nil || !strings.Contains(warned, "consider JOINing against the users table") {
		t.Errorf("%v, warning %q", err, warned)
	}
	if got := len(rows); os.Geteuid() == 0 && got != 1 {
		t.Errorf("%d rows of root", got)
	}
}

func TestSSHClient(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/passwd":                passwd,
		"home/ada/.ssh/known_hosts": "# mine\n|1|abc=|def= ssh-ed25519 " + ed25519Public + "\n\n  @cert-authority *.example.com ssh-ed25519 " + ed25519Public + " \n",
		"home/bob/.ssh/config":      "ForwardAgent yes\n\nHost *.example.com\n\tProxyCommand  curl http://x\n#no\nmatch\tuser root\n  IdentityFile ~/.ssh/x\n",
		"etc/ssh/ssh_config":        "Host=*\nSendEnv LANG\n", "etc/ssh/ssh_config.d/a.conf": "LogLevel QUIET\n", "etc/ssh/ssh_config.d/b": "No No\n",
	})
	r := knownHostsTable(at(dir))
	want := [][]string{
		{"1000", "|1|abc=|def= ssh-ed25519 " + ed25519Public, "/home/ada/.ssh/known_hosts"},
		{"1000", "@cert-authority *.example.com ssh-ed25519 " + ed25519Public, "/home/ada/.ssh/known_hosts"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, where(r, "uid", 1000, 1001)), "uid", "key", "key_file")); diff != "" {
		t.Error(diff)
	}
	r = sshConfigsTable(at(dir))
	want = [][]string{
		{"0", "Host=*", "SendEnv LANG", "/etc/ssh/ssh_config"},
		{"0", "", "LogLevel QUIET", "/etc/ssh/ssh_config.d/a.conf"},
		{"1001", "", "ForwardAgent yes", "/home/bob/.ssh/config"},
		{"1001", "Host *.example.com", "ProxyCommand  curl http://x", "/home/bob/.ssh/config"},
		{"1001", "match\tuser root", "IdentityFile ~/.ssh/x", "/home/bob/.ssh/config"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, where(r, "uid", 0, 1000, 1001)), "uid", "block", "option", "ssh_config_file")); diff != "" {
		t.Error(diff)
	}
}

// Keys that ssh-keygen and openssl make are described, and nothing of them is shown.
func TestUserSSHKeys(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("no ssh-keygen on this host")
	}
	dir := tree(t, map[string]string{"etc/passwd": passwd, "home/ada/.ssh/known_hosts": "x\n"})
	keygen := func(name string, args ...string) {
		t.Helper()
		args = append(args, "-q", "-f", filepath.Join(dir, "home/ada/.ssh", name))
		if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen %v: %v %s", args, err, out)
		}
	}
	keygen("a", "-t", "ed25519", "-N", "")
	keygen("b", "-t", "rsa", "-b", "2048", "-N", passphrase)
	keygen("c", "-t", "ecdsa", "-b", "384", "-N", "", "-m", "PEM")
	keygen("d", "-t", "rsa", "-b", "3072", "-N", passphrase, "-m", "PEM")
	r := userSSHKeysTable(at(dir))
	want := [][]string{
		{"1000", "/home/ada/.ssh/a", "0", "ed25519", "", "256", "128"},
		{"1000", "/home/ada/.ssh/b", "1", "rsa", "", "2048", "112"},
		{"1000", "/home/ada/.ssh/c", "0", "ec", "secp384r1", "384", "192"},
		{"1000", "/home/ada/.ssh/d", "1", "", "", "0", "0"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, where(r, "uid", 1000)), "uid", "path", "encrypted", "key_type", "key_group_name", "key_length", "key_security_bits")); diff != "" {
		t.Error(diff)
	}
}

func TestShellHistory(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/passwd":                              passwd,
		"home/ada/.bash_history":                  "ls\n#1700000000\ncurl http://x | sh\n#not a time\n\n",
		"home/ada/.zsh_history":                   ": 1700000001:0;cd /tmp\nplain\n: x:0;odd\n",
		"home/ada/.local/share/fish/fish_history": "- cmd: sudo -i\n  when: 1700000002\n  paths:\n    - /x\n- cmd: last one\n",
		"home/bob/.sh_history":                    "id",
	})
	r := shellHistoryTable(at(dir))
	want := [][]string{
		{"1000", "0", "ls", "/home/ada/.bash_history"},
		{"1000", "1700000000", "curl http://x | sh", "/home/ada/.bash_history"},
		{"1000", "0", "#not a time", "/home/ada/.bash_history"},
		{"1000", "1700000001", "cd /tmp", "/home/ada/.zsh_history"},
		{"1000", "0", "plain", "/home/ada/.zsh_history"},
		{"1000", "0", ": x:0;odd", "/home/ada/.zsh_history"},
		{"1000", "1700000002", "sudo -i", "/home/ada/.local/share/fish/fish_history"},
		{"1000", "0", "last one", "/home/ada/.local/share/fish/fish_history"},
		{"1001", "0", "id", "/home/bob/.sh_history"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, where(r, "uid", 1000, 1001)), "uid", "time", "command", "history_file")); diff != "" {
		t.Error(diff)
	}
}

func TestSUIDBin(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/passwd": passwd, "etc/group": "root:x:0:\nshadow:x:42:\n",
		"usr/bin/su": "", "usr/bin/chage": "", "usr/bin/both": "", "usr/bin/ls": "", "bin": "-> usr/bin",
		"usr/lib/deep/er/helper": "", "home/ada/own": "",
	})
	for name, mode := range map[string]uint32{"usr/bin/su": 0o4755, "usr/bin/chage": 0o2755, "usr/bin/both": 0o6755, "usr/lib/deep/er/helper": 0o4710, "home/ada/own": 0o4755} {
		if err := unix.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(dir, "usr/bin/chage"), 1000, 42); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(filepath.Join(dir, "usr/bin/chage"), 0o2755); err != nil { // chown takes the bit away
			t.Fatal(err)
		}
	}
	r := suidBinTable(at(dir))
	rows := cells(r, scan(t, r, whereAll()), "path", "permissions", "username", "groupname")
	slices.SortFunc(rows, func(x, y []string) int { return strings.Compare(x[0], y[0]) })
	want := [][]string{{"/bin/both", "SG"}, {"/bin/chage", "G"}, {"/bin/su", "S"}, {"/usr/lib/deep/er/helper", "S"}}
	var got [][]string
	for _, row := range rows {
		got = append(got, row[:2])
		if os.Geteuid() == 0 && row[0] == "/bin/chage" && (row[2] != "ada" || row[3] != "shadow") {
			t.Errorf("owned by %q", row[2:])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// find(1) finds the same programs on this host.
func TestSUIDBinHere(t *testing.T) {
	out, _ := exec.Command("find", "/usr/bin/", "/usr/sbin/", "-maxdepth", "1", "-type", "f", "-perm", "/6000").Output()
	want := strings.Fields(string(out))
	r := suidBinTable(here())
	var got []string
	for _, row := range cells(r, scan(t, r, whereAll()), "path") {
		got = append(got, row[0])
	}
	if len(want) == 0 || len(got) < len(want) {
		t.Errorf("find has %q, the table %q", want, got)
	}
	for _, path := range want {
		other := strings.TrimPrefix(path, "/usr")
		if !slices.Contains(got, path) && !slices.Contains(got, other) {
			t.Errorf("%s is missing in %q", path, got)
		}
	}
}

func TestShadow(t *testing.T) {
	dir := tree(t, map[string]string{"etc/shadow": "root:$y$j9T$abc$def:19000:0:99999:7:::\ndaemon:*:19001:0:99999:7:::\nada:!$6$salt$hash:19002::::10:20000:\nempty::19003::::::\nnew:!!:19004::::::\n+nis::::::::\nshort:x\n"})
	r := shadowTable(at(dir))
	want := [][]string{
		{"root", "active", "y", "19000", "0", "99999", "7", "-1", "-1", "-1"},
		{"daemon", "locked", "", "19001", "0", "99999", "7", "-1", "-1", "-1"},
		{"ada", "locked", "6", "19002", "-1", "-1", "-1", "10", "20000", "-1"},
		{"empty", "empty", "", "19003", "-1", "-1", "-1", "-1", "-1", "-1"},
		{"new", "not_set", "", "19004", "-1", "-1", "-1", "-1", "-1", "-1"},
		{"short", "locked", "", "-1", "-1", "-1", "-1", "-1", "-1", "-1"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "username", "password_status", "hash_alg", "last_change", "min", "max", "warning", "inactive", "expire", "flag")); diff != "" {
		t.Error(diff)
	}
}

func TestSudoers(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/sudoers":           "# comment\nDefaults\tenv_reset\nroot ALL=(ALL:ALL) ALL\nCmnd_Alias X = /a, \\\n  /b\n#1000 ALL=(ALL) ALL\n@includedir /etc/sudoers.d\n#include local\n#include\n",
		"etc/sudoers.d/ada":     "ada ALL=(ALL) NOPASSWD: ALL\n",
		"etc/sudoers.d/no.dots": "x\n",
		"etc/sudoers.d/backup~": "y\n",
		"etc/local":             "@include /etc/sudoers\nbob ALL=/bin/ls",
	})
	r := sudoersTable(at(dir))
	all := cells(r, scan(t, r, whereAll()), "source", "header", "rule_details")
	want := [][]string{
		{"/etc/sudoers", "Defaults", "env_reset"},
		{"/etc/sudoers", "root", "ALL=(ALL:ALL) ALL"},
		{"/etc/sudoers", "Cmnd_Alias", "X = /a, /b"},
		{"/etc/sudoers", "#1000", "ALL=(ALL) ALL"},
		{"/etc/sudoers", "includedir", "/etc/sudoers.d"},
		{"/etc/sudoers.d/ada", "ada", "ALL=(ALL) NOPASSWD: ALL"},
		{"/etc/sudoers", "include", "/etc/local"},
		{"/etc/local", "include", "/etc/sudoers"},
	}
	// The files include each other, which ends at a depth.
	if len(all) < len(want) {
		t.Fatalf("%q", all)
	}
	if diff := cmp.Diff(want, all[:len(want)]); diff != "" {
		t.Error(diff)
	}
	if last := all[len(all)-1]; last[1] != "bob" || len(all) > 10*maxSudoNest {
		t.Errorf("%d rows, the last %q", len(all), last)
	}
}

func TestLast(t *testing.T) {
	b, err := os.ReadFile("testdata/debian-12/run/utmp")
	if err != nil {
		t.Fatal(err)
	}
	r := lastTable(at(tree(t, map[string]string{"var/log/wtmp": string(b)})))
	rows := cells(r, scan(t, r, whereAll()), "type", "type_name", "username", "tty", "host")
	kinds := map[string]bool{}
	for _, row := range rows {
		kinds[row[0]+" "+row[1]] = true
	}
	if len(rows) == 0 || !kinds["7 user-process"] || !kinds["2 boot-time"] {
		t.Errorf("%q", rows)
	}
}

func TestStartupItems(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/passwd":                              passwd,
		"etc/init.d/cron":                         "#!/bin/sh\n",
		"etc/init.d/README":                       "",
		"etc/xdg/autostart/agent.desktop":         "[Desktop Entry]\nName=An Agent\nName[de]=Ein\nExec=/usr/bin/agent --start %u\n[Desktop Action x]\nExec=other\n",
		"home/ada/.config/autostart/evil.desktop": "[Desktop Entry]\nExec=/tmp/evil\nHidden=true\n",
		"home/bob/.config/autostart-scripts/a.sh": "",
	})
	r := startupItemsTable(at(dir))
	want := [][]string{
		{"evil.desktop", "/tmp/evil", "", "Startup Item", "/home/ada/.config/autostart", "disabled", "ada"},
		{"a.sh", "/home/bob/.config/autostart-scripts/a.sh", "", "Startup Item", "/home/bob/.config/autostart-scripts", "enabled", "bob"},
		{"cron", "/etc/init.d/cron", "", "Startup Item", "/etc/init.d", "enabled", ""},
		{"An Agent", "/usr/bin/agent", "--start %u", "Startup Item", "/etc/xdg/autostart", "enabled", ""},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "name", "path", "args", "type", "source", "status", "username")); diff != "" {
		t.Error(diff)
	}
}

func TestDNSResolvers(t *testing.T) {
	dir := tree(t, map[string]string{"etc/resolv.conf": "# x\nsearch old.example\nnameserver 10.0.0.2\nnameserver fd00::1\nsortlist 130.155.160.0/255.255.240.0\noptions ndots:5 rotate trust-ad\nsearch corp.example example.org\n"})
	r := dnsResolversTable(at(dir))
	want := [][]string{
		{"0", "nameserver", "10.0.0.2", "32", "67125953"},
		{"1", "nameserver", "fd00::1", "128", "67125953"},
		{"0", "sortlist", "130.155.160.0", "255.255.240.0", "67125953"},
		{"0", "search", "corp.example", "", "67125953"},
		{"1", "search", "example.org", "", "67125953"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "id", "type", "address", "netmask", "options")); diff != "" {
		t.Error(diff)
	}
}

func FuzzLines(f *testing.F) {
	for _, s := range []string{"* * * * * x\n@a b", "#1\n- cmd: x\n  when: 1\n: 1:1;x", "ssh-ed25519 " + ed25519Public, "a:$6$:1:2", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n", "nameserver 1\noptions a"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		parseCrontab(b, func(e *cronEntry) {
			if e.command == "" && e.event == "" {
				t.Errorf("an entry of nothing: %+v", e)
			}
		})
		_ = parseHistory(b, func(h *typed) error {
			if strings.Contains(h.command, "\n") {
				t.Errorf("two lines in one: %q", h.command)
			}
			return nil
		})
		parseAuthorizedKeys(b, func(*authorizedKey) {})
		parsePrivateKey(b)
		opensshKey(b)
		rsaBits(b)
		parseShadow(b, func(*shadowEntry) {})
		parseResolvConf(b)
		parseSSHConfig(b, func(_, option string) {
			if option == "" {
				t.Error("an empty option")
			}
		})
		parseServices(b, false, func(*service) {})
		parseServices(b, true, func(*service) {})
		parseSysctl(b, func(sysctlSetting) {})
		(&blockDevice{}).identify(bytes.Clone(b))
	})
}
