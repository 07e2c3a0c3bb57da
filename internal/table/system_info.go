package table

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// systemInfo is this machine.
type systemInfo struct {
	host, fqdn, uuid, machine string
	cpu                       procfs.CPU
	memory                    int64
	hw                        procfs.Hardware
}

// hostname is the host's name: of its /etc/hostname when the host's root is somewhere
// else, for the agent then has a name of its own.
func (env *Env) hostname(r root) string {
	if r.fd != ownRoot {
		if b, err := r.readFile("/etc/hostname", maxRelease); err == nil {
			for line := range strings.Lines(string(b)) {
				if name := strings.TrimSpace(line); name != "" && name[0] != '#' {
					return name
				}
			}
		}
	}
	name, _ := os.Hostname()
	return name
}

// qualify returns the first name with a dot that /etc/hosts gives for a line naming host,
// else host. DNS is not asked: an answer that may take seconds, or differ from one minute
// to the next, is no identity.
func qualify(host string, entries []*hostEntry) string {
	if strings.Contains(host, ".") {
		return host
	}
	for _, e := range entries {
		names := strings.Fields(e.names)
		for _, n := range names {
			if strings.EqualFold(n, host) {
				if strings.Contains(names[0], ".") && !strings.HasPrefix(names[0], "localhost") {
					return names[0]
				}
				break
			}
		}
	}
	return host
}

// placeholders are UUIDs that firmware ships when the vendor never set one.
var placeholders = []string{
	"00000000-0000-0000-0000-000000000000",
	"ffffffff-ffff-ffff-ffff-ffffffffffff",
	"03000200-0400-0500-0006-000700080009",
	"03020100-0504-0706-0809-0a0b0c0d0e0f",
	"10000000-0000-8000-0040-000000000000",
	"12345678-1234-5678-90ab-cddeefaabbcc",
}

// hostUUID identifies the machine: what the agent was told, the firmware's UUID, or one
// derived from machine-id(5), which must not be shown itself. "" when there is none.
func (env *Env) hostUUID(r root, firmware string) string {
	if env.HostUUID != "" {
		return env.HostUUID
	}
	known := len(firmware) == 36
	for _, p := range placeholders {
		known = known && !strings.EqualFold(firmware, p)
	}
	if known {
		return firmware
	}
	b, err := r.readFile("/etc/machine-id", maxRelease)
	if err != nil {
		return ""
	}
	return machineUUID(strings.TrimSpace(string(b)))
}

// machineUUID derives a version 8 UUID (RFC 9562) from a machine ID, "" from what is none.
func machineUUID(id string) string {
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(id))
	mac.Write([]byte("goshawk host uuid"))
	u := mac.Sum(nil)[:16]
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// identity opens the host's root and names the host; system_info and osquery_info agree
// through it.
func (env *Env) identity(hw procfs.Hardware) (host, fqdn, uuid string, err error) {
	r, err := openRoot(env.HostRoot)
	if err != nil {
		return "", "", "", err
	}
	defer r.close()
	host = env.hostname(r)
	b, _ := r.readFile("/etc/hosts", maxHosts) // without it the short name will do
	return host, qualify(host, parseHosts(b)), env.hostUUID(r, hw.UUID), nil
}

// lenovo undoes the vendor's habit of putting the model into the version.
func lenovo(hw *procfs.Hardware) {
	if strings.EqualFold(hw.Vendor, "lenovo") {
		hw.Model, hw.Version = hw.Version, hw.Model
	}
}

func systemInfoTable(env *Env) schema.Relation {
	str := func(name string, at func(*systemInfo) *string, doc string) schema.Column[*systemInfo] {
		return schema.Str(name, at, doc)
	}
	count := func(name string, at func(*systemInfo) *int, doc string) schema.Column[*systemInfo] {
		return schema.Int(name, at, doc, schema.OmitZero).As(schema.Integer)
	}
	t := &schema.Table[*systemInfo]{
		Name: "system_info",
		Doc:  "This machine's names, processors, memory and firmware data, one row.",
		Columns: []schema.Column[*systemInfo]{
			str("hostname", func(s *systemInfo) *string { return &s.fqdn }, "Host name, with its domain where /etc/hosts tells it"),
			str("uuid", func(s *systemInfo) *string { return &s.uuid }, "UUID of the firmware, else derived from the machine ID").Collated("nocase"),
			str("cpu_type", func(s *systemInfo) *string { return &s.machine }, "Machine architecture"),
			str("cpu_subtype", func(s *systemInfo) *string { return &s.cpu.Model }, "Model number within the processor family"),
			str("cpu_brand", func(s *systemInfo) *string { return &s.cpu.Brand }, "Processor's name"),
			count("cpu_physical_cores", func(s *systemInfo) *int { return &s.cpu.Cores }, "Cores in all packages"),
			count("cpu_logical_cores", func(s *systemInfo) *int { return &s.cpu.Logical }, "Hardware threads online"),
			count("cpu_sockets", func(s *systemInfo) *int { return &s.cpu.Sockets }, "Packages; NULL where the architecture does not say"),
			str("cpu_microcode", func(s *systemInfo) *string { return &s.cpu.Microcode }, "Microcode revision"),
			schema.Int("physical_memory", func(s *systemInfo) *int64 { return &s.memory }, "Usable physical memory in bytes", schema.OmitZero),
			str("hardware_vendor", func(s *systemInfo) *string { return &s.hw.Vendor }, "Maker of the machine"),
			str("hardware_model", func(s *systemInfo) *string { return &s.hw.Model }, "Model of the machine"),
			str("hardware_version", func(s *systemInfo) *string { return &s.hw.Version }, "Version of the machine"),
			str("hardware_serial", func(s *systemInfo) *string { return &s.hw.Serial }, "Serial number of the machine"),
			str("board_vendor", func(s *systemInfo) *string { return &s.hw.BoardVendor }, "Maker of the main board"),
			str("board_model", func(s *systemInfo) *string { return &s.hw.BoardModel }, "Model of the main board"),
			str("board_version", func(s *systemInfo) *string { return &s.hw.BoardVersion }, "Version of the main board"),
			str("board_serial", func(s *systemInfo) *string { return &s.hw.BoardSerial }, "Serial number of the main board"),
			str("computer_name", func(s *systemInfo) *string { return &s.host }, "Host name as set, without a domain added"),
			str("local_hostname", func(s *systemInfo) *string { return &s.fqdn }, "Same as hostname"),
			schema.Absent[*systemInfo]("emulated_cpu_type", schema.Text, "Emulated processor on Windows", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*systemInfo, error) {
		s := &systemInfo{machine: machine(), hw: env.FS.Hardware()}
		var err error
		if s.host, s.fqdn, s.uuid, err = env.identity(s.hw); err != nil {
			return nil, err
		}
		lenovo(&s.hw)
		if s.cpu, err = env.FS.CPU(); err != nil {
			q.Warning(err.Error())
		}
		if s.cpu.Cores == 0 { // no topology told: every thread counts as a core, as in osquery
			s.cpu.Cores = s.cpu.Logical
		}
		if s.cpu.Model == "" {
			s.cpu.Model = "0"
		}
		if s.memory, err = env.FS.MemoryTotal(); err != nil {
			q.Warning(err.Error())
		}
		return []*systemInfo{s}, nil
	}
	return t.Bind()
}
