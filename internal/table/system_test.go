package table

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/schema"
)

func TestUptime(t *testing.T) {
	dir := tree(t, map[string]string{"proc/uptime": "183845.97 1.00\n"})
	r := uptimeTable(at(dir))
	got := cells(r, scan(t, r, whereAll()), "days", "hours", "minutes", "seconds", "total_seconds")
	if diff := cmp.Diff([][]string{{"2", "3", "4", "5", "183845"}}, got); diff != "" {
		t.Error(diff)
	}
	if rows, err := tryScan(uptimeTable(at(t.TempDir())), whereAll()); err == nil {
		t.Errorf("%d rows without /proc, want an error", len(rows))
	}
}

// date(1) agrees about the present time in every notation.
func TestTimeHere(t *testing.T) {
	r := timeTable(here())
	columns := []string{
		"weekday", "year", "month", "day", "hour", "minutes", "seconds", "timezone", "unix_time",
		"timestamp", "datetime", "iso_8601", "win_timestamp",
	}
	for attempt := 1; ; attempt++ {
		cmd := exec.Command("date", "-u", "+%A|%-Y|%-m|%-d|%-H|%-M|%-S|UTC|%s|%a %b %e %H:%M:%S %Y UTC|%Y-%m-%dT%H:%M:%SZ|%Y-%m-%dT%H:%M:%SZ|NULL")
		cmd.Env = []string{"LC_ALL=C"}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got := cells(r, scan(t, r, whereAll()), columns...)
		diff := cmp.Diff([][]string{strings.Split(strings.TrimSpace(string(out)), "|")}, got)
		if diff == "" {
			break
		}
		if attempt == 5 { // the second may change in between, not five times
			t.Fatalf("(-date +ours) %s", diff)
		}
		time.Sleep(50 * time.Millisecond)
	}
	// C pads the day of the month with a blank.
	m := moment{time.Date(2011, 9, 1, 10, 27, 52, 0, time.UTC), time.UTC}
	column := r.(*schema.Table[moment]).Columns[r.Def().Column("timestamp")]
	if got, want := column.Value(m).Text(), "Thu Sep  1 10:27:52 2011 UTC"; got != want {
		t.Errorf("timestamp %q, want %q", got, want)
	}
}

func TestLocalZone(t *testing.T) {
	zone, err := os.ReadFile("/usr/share/zoneinfo/Asia/Tokyo")
	if err != nil {
		t.Skip("needs the time zone database")
	}
	dir := tree(t, map[string]string{
		"usr/share/zoneinfo/Asia/Tokyo": string(zone), "etc/localtime": "-> /usr/share/zoneinfo/Asia/Tokyo",
	})
	for root, want := range map[string]string{dir: "JST", t.TempDir(): "UTC"} {
		r := timeTable(at(root))
		if diff := cmp.Diff([][]string{{"UTC", want}}, cells(r, scan(t, r, whereAll()), "timezone", "local_timezone")); diff != "" {
			t.Error(diff)
		}
	}
}

func TestKernelInfo(t *testing.T) {
	dir := tree(t, map[string]string{
		"proc/sys/kernel/osrelease": "5.14.0-362.el9.x86_64\n",
		"proc/cmdline":              "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-5.14 root=UUID=0a1b ro quiet  crashkernel=1G-4G:192M,4G-:256M\n",
	})
	r := kernelInfoTable(at(dir))
	want := [][]string{{"5.14.0-362.el9.x86_64", "ro quiet crashkernel=1G-4G:192M,4G-:256M", "(hd0,gpt2)/vmlinuz-5.14", "UUID=0a1b"}}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "version", "arguments", "path", "device")); diff != "" {
		t.Error(diff)
	}
}

func TestKernelModules(t *testing.T) {
	dir := tree(t, map[string]string{"proc/modules": "nf_nat 61440 2 nft_chain_nat,xt_MASQUERADE, Live 0xffffffffc0a3e000\nloop 40960 0 - Live 0x0 (O)\n"})
	r := kernelModulesTable(at(dir))
	want := [][]string{
		{"nf_nat", "61440", "nft_chain_nat,xt_MASQUERADE", "Live", "0xffffffffc0a3e000"},
		{"loop", "40960", "-", "Live", "0x0"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "name", "size", "used_by", "status", "address")); diff != "" {
		t.Error(diff)
	}
	if rows := scan(t, kernelModulesTable(at(t.TempDir())), whereAll()); len(rows) != 0 {
		t.Errorf("%d modules of a kernel without modules", len(rows))
	}
}

func TestSystemInfo(t *testing.T) {
	lenovo := map[string]string{
		"proc/cpuinfo":                    "processor\t: 0\nmodel\t\t: 142\nmodel name\t: Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz\nmicrocode\t: 0xf0\nphysical id\t: 0\ncore id\t\t: 0\n\nprocessor\t: 1\nphysical id\t: 0\ncore id\t\t: 0\n\n",
		"proc/meminfo":                    "MemTotal:       16265216 kB\n",
		"sys/class/dmi/id/sys_vendor":     "LENOVO\n",
		"sys/class/dmi/id/product_name":   "20L5CTO1WW\n",
		"sys/class/dmi/id/product_uuid":   "4c4c4544-0042-3510-8052-b4c04f563332\n",
		"sys/class/dmi/id/product_serial": "PF1\n",
		"sys/class/dmi/id/board_name":     "20L5\n",
		"etc/hostname":                    "# set by hand\nt480\n",
	}
	lenovo["sys/class/dmi/id/product_version"] = "ThinkPad T480\n"
	placeholder := map[string]string{
		"proc/meminfo":                  "MemTotal: 1024 kB\n",
		"proc/cpuinfo":                  "processor\t: 0\nBogoMIPS\t: 1\n\nprocessor\t: 1\nBogoMIPS\t: 1\n\n",
		"sys/class/dmi/id/product_uuid": "03000200-0400-0500-0006-000700080009\n",
		"etc/hostname":                  "tesla\n",
		"etc/hosts":                     "127.0.0.1 localhost.localdomain tesla\n127.0.1.1 tesla.example.org TESLA\n",
		"etc/machine-id":                "4c4c45440042351080520123456789ab\n",
	}
	columns := []string{
		"hostname", "computer_name", "local_hostname", "uuid", "cpu_subtype", "cpu_brand", "cpu_physical_cores", "cpu_logical_cores",
		"cpu_sockets", "cpu_microcode", "physical_memory", "hardware_vendor", "hardware_model", "hardware_version", "hardware_serial", "board_model",
	}
	for name, tt := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"ThinkPad": {lenovo, []string{
			"t480", "t480", "t480", "4c4c4544-0042-3510-8052-b4c04f563332", "142", "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz", "1", "2",
			"1", "0xf0", "16655581184", "LENOVO", "ThinkPad T480", "20L5CTO1WW", "PF1", "20L5",
		}},
		// openssl dgst -sha256 -hmac of the machine ID gives the digits of the UUID.
		"no usable UUID": {placeholder, []string{
			"tesla.example.org", "tesla", "tesla.example.org", "478083ac-a3b1-8e20-811d-fe4d0bae90f9", "0", "", "2", "2",
			"NULL", "", "1048576", "", "", "", "", "",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := systemInfoTable(at(tree(t, tt.files)))
			if diff := cmp.Diff([][]string{tt.want}, cells(r, scan(t, r, whereAll()), columns...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSystemInfoHere(t *testing.T) {
	r := systemInfoTable(here())
	row := cells(r, scan(t, r, whereAll()), "computer_name", "cpu_type", "cpu_logical_cores", "uuid")[0]
	for i, args := range [][]string{{"uname", "-n"}, {"uname", "-m"}, {"nproc", "--all"}} {
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSpace(string(out)); row[i] != want {
			t.Errorf("%s: %q, want %q", args, row[i], want)
		}
	}
	if again := cells(r, scan(t, r, whereAll()), "uuid")[0][0]; again != row[3] {
		t.Errorf("the UUID changed from %q to %q", row[3], again)
	}
}

func TestMachineUUID(t *testing.T) {
	for id, want := range map[string]string{
		"4c4c45440042351080520123456789ab":  "478083ac-a3b1-8e20-811d-fe4d0bae90f9",
		"":                                  "",
		"uninitialized":                     "",
		"4C4C45440042351080520123456789AB":  "",
		"4c4c45440042351080520123456789abc": "",
	} {
		if got := machineUUID(id); got != want {
			t.Errorf("machineUUID(%q) = %q, want %q", id, got, want)
		}
	}
}

func TestOsqueryInfo(t *testing.T) {
	columns := []string{
		"pid", "uuid", "instance_id", "version", "config_hash", "config_valid", "extensions",
		"build_platform", "build_distro", "start_time", "watcher", "platform_mask",
	}
	pid := strconv.Itoa(os.Getpid())
	env := at(t.TempDir())
	env.HostUUID = "b5a1c0de-0000-4000-8000-000000000001"
	r := osqueryInfoTable(env)
	want := [][]string{{pid, env.HostUUID, "", "5.23.1", "", "0", "inactive", "linux", "centos7", "NULL", "-1", "9"}}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), columns...)); diff != "" {
		t.Errorf("without an agent: %s", diff)
	}
	env.InstanceID, env.Version, env.StartTime = "inst", "5.24.0", time.Unix(1700000000, 999)
	env.Config = func() (string, bool) { return "da39a3ee5e6b4b0d3255bfef95601890afd80709", true }
	want = [][]string{{pid, env.HostUUID, "inst", "5.24.0", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "1", "inactive", "linux", "centos7", "1700000000", "-1", "9"}}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), columns...)); diff != "" {
		t.Errorf("of an agent: %s", diff)
	}
	s := systemInfoTable(env)
	if diff := cmp.Diff([][]string{{env.HostUUID}}, cells(s, scan(t, s, whereAll()), "uuid")); diff != "" {
		t.Errorf("system_info disagrees: %s", diff)
	}
}

func TestOsqueryRegistry(t *testing.T) {
	env := here()
	all := All(env)
	r := all[slices.IndexFunc(all, func(r schema.Relation) bool { return r.Def().Name == "osquery_registry" })]
	got := cells(r, scan(t, r, whereAll()), "registry", "name", "owner_uuid", "internal", "active")
	if !slices.ContainsFunc(got, func(row []string) bool { return row[0] == "logger" && row[1] == "tls" }) {
		t.Error("no plugin that is no table")
	}
	got = slices.DeleteFunc(got, func(row []string) bool { return row[0] != "table" })
	if len(got) != len(all) {
		t.Fatalf("%d rows for %d tables", len(got), len(all))
	}
	for i, other := range all {
		if diff := cmp.Diff([]string{"table", other.Def().Name, "0", "0", "1"}, got[i]); diff != "" {
			t.Error(diff)
		}
	}
}

func TestOsqueryFlags(t *testing.T) {
	env := here()
	env.Flags = func() []Flag {
		return []Flag{
			{Name: "config_refresh", Type: "uint64", Default: "0", Value: "300", Description: "Seconds"},
			{Name: "planner", Type: "bool", Default: "false", Value: "false", Description: "Of the shell", ShellOnly: true},
		}
	}
	r := osqueryFlagsTable(env)
	got := map[string][]string{}
	for _, row := range cells(r, scan(t, r, whereAll()), "name", "type", "default_value", "value", "shell_only", "description") {
		if got[row[0]] != nil {
			t.Errorf("%s is there twice", row[0])
		}
		got[row[0]] = row[1:]
	}
	for name, want := range map[string][]string{
		"config_refresh": {"uint64", "0", "300", "0", "Seconds"},
		"planner":        {"bool", "false", "false", "1", "Of the shell"},
	} {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestHardware(t *testing.T) {
	dir := tree(t, map[string]string{
		"proc/stat": "cpu  10 20\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 11 12 13 14 15 16 17\nintr 1 2\n",
		"proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon X\ncpu MHz\t\t: 2500.123\nphysical id\t: 0\ncore id\t: 0\nflags\t\t: fpu lm\n\n" +
			"processor\t: 1\nphysical id\t: 0\ncore id\t: 0\n\nprocessor\t: 2\nphysical id\t: 1\ncore id\t: 0\nmodel name\t: Xeon Y\n",
		"sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3500000\n",
		"proc/meminfo":                            "MemTotal:       16 kB\nMemFree:        8 kB\nHugePages_Total: 3\nMemAvailable:   9 kB\nSwapTotal:      0 kB\n",
		"proc/loadavg":                            "0.05 1.20 3.00 1/234 567\n",
		"sys/bus/pci/devices/0000:00:02.0/class":  "0x020000\n",
		"sys/bus/pci/devices/0000:00:02.0/vendor": "0x1af4\n", "sys/bus/pci/devices/0000:00:02.0/device": "0x1041\n",
		"sys/bus/pci/devices/0000:00:02.0/driver": "-> ../../../bus/pci/drivers/virtio-pci",
		"run/udev/data/+pci:0000:00:02.0":         "I:1\nE:ID_VENDOR_FROM_DATABASE=Red Hat, Inc.\nE:ID_PCI_CLASS_FROM_DATABASE=Network controller\n",
		"sys/bus/usb/devices/1-1/idVendor":        "046d\n", "sys/bus/usb/devices/1-1/idProduct": "c077\n", "sys/bus/usb/devices/1-1/busnum": "1\n",
		"sys/bus/usb/devices/1-1/devnum": "4\n", "sys/bus/usb/devices/1-1/dev": "189:3\n", "sys/bus/usb/devices/1-1/product": "Mouse\n",
		"sys/bus/usb/devices/1-1/removable": "removable\n", "sys/bus/usb/devices/1-1:1.0/bInterfaceClass": "03\n",
		"run/udev/data/c189:3": "E:ID_VENDOR_FROM_DATABASE=Logitech, Inc.\n",
	})
	env := at(dir)
	for _, tt := range []struct {
		r       schema.Relation
		columns []string
		want    [][]string
	}{
		{cpuTimeTable(env), []string{"core", "user", "softirq", "guest_nice"}, [][]string{{"0", "1", "7", "10"}, {"1", "11", "17", "0"}}},
		{cpuInfoTable(env), []string{"device_id", "model", "manufacturer", "number_of_cores", "logical_processors", "address_width", "current_clock_speed", "max_clock_speed"},
			[][]string{{"0", "Xeon X", "GenuineIntel", "1", "2", "64", "2500", "3500"}, {"1", "Xeon Y", "", "1", "1", "32", "0", "3500"}}},
		{memoryInfoTable(env), []string{"memory_total", "memory_free", "memory_available", "swap_total", "buffers"}, [][]string{{"16384", "8192", "9216", "0", "0"}}},
		{loadAverageTable(env), []string{"period", "average"}, [][]string{{"1m", "0.05"}, {"5m", "1.20"}, {"15m", "3.00"}}},
		{pciDevicesTable(env), []string{"pci_slot", "pci_class", "pci_class_id", "pci_subclass_id", "driver", "vendor", "vendor_id", "model_id"},
			[][]string{{"0000:00:02.0", "Network controller", "0x02", "0x00", "virtio-pci", "Red Hat, Inc.", "0x1af4", "0x1041"}}},
		{usbDevicesTable(env), []string{"usb_address", "usb_port", "vendor", "vendor_id", "model", "model_id", "removable"},
			[][]string{{"4", "1", "Logitech, Inc.", "046d", "Mouse", "c077", "1"}}},
	} {
		if diff := cmp.Diff(tt.want, cells(tt.r, scan(t, tt.r, whereAll()), tt.columns...)); diff != "" {
			t.Errorf("%s: %s", tt.r.Def().Name, diff)
		}
	}
	// This machine has processors and memory.
	for _, r := range []schema.Relation{cpuTimeTable(here()), cpuInfoTable(here()), memoryInfoTable(here()), loadAverageTable(here())} {
		if rows := scan(t, r, whereAll()); len(rows) == 0 {
			t.Errorf("%s is empty here", r.Def().Name)
		}
	}
}

func TestSystemControls(t *testing.T) {
	dir := tree(t, map[string]string{
		"proc/sys/kernel/kptr_restrict": "1\n", "proc/sys/net/ipv4/conf/eth0.100/rp_filter": "2\n", "proc/sys/net/ipv4/conf/all/rp_filter": "0\n",
		"proc/sys/net/ipv6/conf/all/stable_secret": "secret\n", "proc/sys/fs/binfmt_misc/register": "x\n", "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
		"etc/sysctl.d/10-a.conf": "# x\n; y\n-kernel.kptr_restrict = 2\nnet.ipv4.conf.*.rp_filter=1\n", "usr/lib/sysctl.d/10-a.conf": "kernel.kptr_restrict=9\n",
		"usr/lib/sysctl.d/50-b.conf": "net/ipv4/conf/all/rp_filter = 7\n", "etc/sysctl.d/99-x": "kernel.kptr_restrict=8\n",
	})
	r := systemControlsTable(at(dir))
	want := [][]string{
		{"kernel.kptr_restrict", "kernel", "1", "2"},
		{"net.ipv4.conf.all.rp_filter", "net", "0", "7"},
		{"net.ipv4.conf.eth0/100.rp_filter", "net", "2", "1"},
		{"net.ipv4.tcp_rmem", "net", "4096\t131072\t6291456", ""},
	}
	columns := []string{"name", "subsystem", "current_value", "config_value"}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), columns...)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[2:3], cells(r, scan(t, r, where(r, "name", "net.ipv4.conf.eth0/100.rp_filter", "no.such", "net.ipv6.conf.all.stable_secret", "../../etc.passwd")), columns...)); diff != "" {
		t.Error(diff)
	}
	out, err := exec.Command("cat", "/proc/sys/kernel/osrelease").Output()
	if err != nil {
		t.Fatal(err)
	}
	r = systemControlsTable(here())
	if diff := cmp.Diff([][]string{{strings.TrimSpace(string(out))}}, cells(r, scan(t, r, where(r, "name", "kernel.osrelease")), "current_value")); diff != "" {
		t.Error(diff)
	}
	if n := len(scan(t, r, whereAll())); n < 200 {
		t.Errorf("only %d settings here", n)
	}
}

func TestServices(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/services":  "# x\nhttp\t\t80/tcp\t\twww # WorldWideWeb\nbad 99999/tcp\nnone\ndomain 53/udp\n",
		"etc/protocols": "ip\t0\tIP\t\t# internet protocol\ntcp 6 TCP\nx 80/tcp\n",
	})
	r := etcServicesTable(at(dir))
	want := [][]string{{"http", "80", "tcp", "www", "WorldWideWeb"}, {"domain", "53", "udp", "", ""}}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "name", "port", "protocol", "aliases", "comment")); diff != "" {
		t.Error(diff)
	}
	r = etcProtocolsTable(at(dir))
	want = [][]string{{"ip", "0", "IP", "internet protocol"}, {"tcp", "6", "TCP", ""}}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "name", "number", "alias", "comment")); diff != "" {
		t.Error(diff)
	}
}

func TestKernelState(t *testing.T) {
	dir := tree(t, map[string]string{
		"proc/keys": "0e9c4223 I------     1 perm 1f0b0000     0     0 keyring   .builtin_trusted_keys: empty\n2a289665 I--Q---   12  3d 0c030000  1000    -1 user      a b: 4\nshort\n",
		"proc/sysvipc/shm": "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n" +
			"1234567890          3  3600                 4096   100   101      2  1000  1000     0     0 1700000001 1700000002 1700000003                  4096                     0\n",
		"proc/sys/net/ipv6/conf/eth0/hop_limit": "64\n", "proc/sys/net/ipv6/conf/eth0/forwarding": "1\n", "proc/sys/net/ipv6/conf/eth0/accept_ra": "2\n",
		"sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": "\x06\x00\x00\x00\x01",
		"sys/firmware/efi/efivars/SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c":  "\x06\x00\x00\x00\x00",
	})
	env := at(dir)
	for _, tt := range []struct {
		r       schema.Relation
		columns []string
		want    [][]string
	}{
		{kernelKeysTable(env), []string{"serial_number", "flags", "usage", "timeout", "permissions", "uid", "gid", "type", "description"},
			[][]string{{"0e9c4223", "I------", "1", "perm", "1f0b0000", "0", "0", "keyring", ".builtin_trusted_keys: empty"}, {"2a289665", "I--Q---", "12", "3d", "0c030000", "1000", "-1", "user", "a b: 4"}}},
		{sharedMemoryTable(env), []string{"shmid", "owner_uid", "creator_uid", "pid", "creator_pid", "atime", "dtime", "ctime", "permissions", "size", "attached", "status", "locked"},
			[][]string{{"3", "1000", "0", "101", "100", "1700000001", "1700000002", "1700000003", "0600", "4096", "2", "dest", "1"}}},
		{interfaceIPv6Table(env), []string{"interface", "hop_limit", "forwarding_enabled", "redirect_accept", "rtadv_accept"}, [][]string{{"eth0", "64", "1", "0", "2"}}},
		{securebootTable(env), []string{"secure_boot", "setup_mode"}, [][]string{{"1", "0"}}},
		{securebootTable(at(t.TempDir())), []string{"secure_boot"}, nil},
	} {
		if diff := cmp.Diff(tt.want, cells(tt.r, scan(t, tt.r, whereAll()), tt.columns...)); diff != "" {
			t.Errorf("%s: %s", tt.r.Def().Name, diff)
		}
	}
	out, err := exec.Command("sh", "-c", "ulimit -n; ulimit -Hn").Output()
	if err != nil {
		t.Fatal(err)
	}
	r := ulimitInfoTable(env)
	got := cells(r, scan(t, r, whereAll()), "type", "soft_limit", "hard_limit")
	if want := append([]string{"nofile"}, strings.Fields(string(out))...); !slices.ContainsFunc(got, func(row []string) bool { return slices.Equal(row, want) }) {
		t.Errorf("%v, want among them %v", got, want)
	}
}

func TestConfinement(t *testing.T) {
	const apparmor = "sys/kernel/security/apparmor/policy/profiles/"
	dir := tree(t, map[string]string{
		apparmor + "sbin.dhclient.1/name": "/sbin/dhclient\n", apparmor + "sbin.dhclient.1/attach": "/{,usr/}sbin/dhclient\n", apparmor + "sbin.dhclient.1/mode": "enforce\n",
		apparmor + "sbin.dhclient.1/sha256": "ab12\n", apparmor + "sbin.dhclient.1/profiles/script.2/name": "script\n",
		apparmor + "sbin.dhclient.1/profiles/script.2/mode": "complain\n", apparmor + "gone.3/mode": "kill\n",
		"sys/fs/selinux/enforce": "1", "sys/fs/selinux/policyvers": "33", "sys/fs/selinux/booleans/httpd_can_network_connect": "1 0", "sys/fs/selinux/booleans/x": "0 0",
		"sys/fs/selinux/policy_capabilities/open_perms": "1", "sys/fs/selinux/initial_contexts/kernel": "system_u:system_r:kernel_t:s0\x00",
	})
	env := at(dir)
	r := apparmorProfilesTable(env)
	want := [][]string{
		{"/sbin/dhclient", "/sbin/dhclient", "/{,usr/}sbin/dhclient", "enforce", "", "ab12"}, {"/sbin/dhclient//script", "script", "", "complain", "", ""},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "path", "name", "attach", "mode", "sha1", "sha256")); diff != "" {
		t.Error(diff)
	}
	r = selinuxSettingsTable(env)
	want = [][]string{
		{"", "enforce", "1"}, {"", "policyvers", "33"}, {"booleans", "httpd_can_network_connect", "on"}, {"booleans", "x", "off"},
		{"initial_contexts", "kernel", "system_u:system_r:kernel_t:s0"}, {"policy_capabilities", "open_perms", "1"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "scope", "key", "value")); diff != "" {
		t.Error(diff)
	}
	for _, r := range []schema.Relation{apparmorProfilesTable(at(t.TempDir())), selinuxSettingsTable(at(t.TempDir()))} {
		if rows := scan(t, r, whereAll()); len(rows) > 0 {
			t.Errorf("%s has rows where there is none", r.Def().Name)
		}
	}
}
