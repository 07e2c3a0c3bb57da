package procfs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

const maxModules = 4 << 20 // about 60 bytes a module

// Module is one line of /proc/modules.
type Module struct {
	Name    string
	Size    int64  // bytes of memory
	UsedBy  string // modules that use it, comma-separated; "-" for none
	Status  string // Live, Loading or Unloading
	Address string // hexadecimal; all zero for readers without CAP_SYSLOG
}

// Modules lists the loaded kernel modules; a kernel built without modules has none.
func (fs FS) Modules() ([]Module, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "modules"), maxModules)
	if err != nil {
		return nil, err
	}
	return ParseModules(b), nil
}

// HasModules reports whether the kernel was built with modules.
func (fs FS) HasModules() bool {
	_, err := os.Stat(filepath.Join(fs.Proc, "modules"))
	return !errors.Is(err, os.ErrNotExist)
}

// ParseModules reads /proc/modules (kernel/module/procfs.c): name, size, references,
// users each followed by a comma, state, address, then perhaps taints. A line with fewer
// than six words, or a size that is no number, is left out.
func ParseModules(b []byte) []Module {
	var out []Module
	for line := range bytes.Lines(b) {
		words := bytes.Fields(line)
		if len(words) < 6 {
			continue
		}
		size, err := strconv.ParseInt(string(words[1]), 10, 64)
		if err != nil {
			continue
		}
		out = append(out, Module{
			Name: string(words[0]), Size: size,
			UsedBy: string(bytes.TrimRight(words[3], ",")),
			Status: string(words[4]), Address: string(words[5]),
		})
	}
	return out
}

// PacketTables returns the names of the tables of iptables that are there in this thread's
// network namespace: /proc/net/ip_tables_names.
func (fs FS) PacketTables() ([]string, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "thread-self/net/ip_tables_names"), maxSmallFile)
	var out []string
	for _, name := range bytes.Fields(b) {
		if len(name) < 32 { // XT_TABLE_MAXNAMELEN
			out = append(out, string(name))
		}
	}
	return out, err
}
