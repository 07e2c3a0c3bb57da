// Package kernel finds out what the running kernel can do for an agent, and what its
// administrator allows. It feeds `goshawk check`. It must never know events or hooks (a
// hook is proved by attaching it), and owns no state.
package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// State says how a fact bears on an agent.
type State string

const (
	OK      State = "ok"
	Missing State = "missing" // Advice says what it would take
	Unknown State = "unknown" // it could not be found out, and may not matter
)

// Fact is one thing about the kernel.
type Fact struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	State  State  `json:"state"`
	Advice string `json:"advice,omitempty"`
}

// Probe looks at the running kernel and what surrounds it. It changes nothing. Types is the
// file that BTF is to be read from, "" for the kernel's own; root is the root directory of
// the host.
func Probe(f procfs.FS, root, types string) []Fact {
	return []Fact{release(f), distribution(root), architecture(), typeInformation(f, types), ringBuffer(),
		capabilities(f), lockdown(f), modules(f), cgroups(f)}
}

func release(f procfs.FS) Fact {
	r, err := f.Release()
	if err != nil {
		return unknown("release", err)
	}
	return Fact{Name: "release", Value: r, State: OK}
}

func unknown(name string, err error) Fact {
	return Fact{Name: name, Value: err.Error(), State: Unknown}
}

func typeInformation(f procfs.FS, given string) Fact {
	if given != "" {
		st, err := os.Stat(given)
		if err != nil {
			return Fact{Name: "btf", Value: err.Error(), State: Missing, Advice: "give --btf a file that can be read"}
		}
		return Fact{Name: "btf", Value: given + ", " + strconv.FormatInt(st.Size()>>10, 10) + " KiB, as told", State: OK}
	}
	path, size, err := f.BTF()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Fact{Name: "btf", Value: "none", State: Missing,
			Advice: "give --btf this kernel's BTF file, or use a kernel built with CONFIG_DEBUG_INFO_BTF (most distributions' from 5.4 on are)"}
	case err != nil:
		return unknown("btf", err)
	}
	return Fact{Name: "btf", Value: path + ", " + strconv.FormatInt(size>>10, 10) + " KiB", State: OK}
}

func ringBuffer() Fact {
	switch err := features.HaveMapType(ebpf.RingBuf); {
	case err == nil:
		return Fact{Name: "ring_buffer", Value: "yes", State: OK}
	case errors.Is(err, ebpf.ErrNotSupported):
		return Fact{Name: "ring_buffer", Value: "no (before Linux 5.8): perf buffers stand in", State: OK}
	default:
		return unknown("ring_buffer", fmt.Errorf("try bpf(2): %w", err))
	}
}

// wanted are the capabilities(7) that the agent works with, by their numbers in
// include/uapi/linux/capability.h. The first four are needed.
var wanted = []struct {
	name   string
	bit    uint
	needed bool
}{
	{"CAP_SYS_ADMIN", 21, true},
	{"CAP_BPF", 39, true},
	{"CAP_PERFMON", 38, true},
	{"CAP_NET_ADMIN", 12, true},
	{"CAP_SYS_PTRACE", 19, false},
	{"CAP_DAC_READ_SEARCH", 2, false},
}

func capabilities(f procfs.FS) Fact {
	have, err := f.OwnCapabilities()
	if err != nil {
		return unknown("capabilities", err)
	}
	var held, lacking, needed []string
	for _, c := range wanted {
		switch {
		case have>>c.bit&1 == 1:
			held = append(held, c.name)
		case c.needed && (c.bit < 38 || have>>21&1 == 0): // before 5.8 CAP_SYS_ADMIN was all of them
			needed = append(needed, c.name)
			fallthrough
		default:
			lacking = append(lacking, c.name)
		}
	}
	fact := Fact{Name: "capabilities", Value: "none of those used", State: OK}
	if len(held) > 0 {
		fact.Value = strings.Join(held, " ")
	}
	if len(lacking) > 0 {
		fact.Value += ", not " + strings.Join(lacking, " ")
	}
	if len(needed) > 0 {
		fact.State, fact.Advice = Missing, "run as root, or grant "+strings.Join(needed, " ")
	}
	return fact
}

func lockdown(f procfs.FS) Fact {
	mode, err := f.Lockdown()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := f.SecurityModules(); err == nil {
			return Fact{Name: "lockdown", Value: "not in this kernel, or not in force", State: OK}
		}
		return Fact{Name: "lockdown", Value: "cannot be seen: securityfs is not mounted, or the kernel has no lockdown", State: Unknown}
	case err != nil:
		return unknown("lockdown", err)
	case mode == "confidentiality":
		return Fact{Name: "lockdown", Value: mode, State: Missing, Advice: "boot with lockdown=integrity: this mode forbids BPF to read the kernel"}
	}
	return Fact{Name: "lockdown", Value: mode, State: OK}
}

func modules(f procfs.FS) Fact {
	names, err := f.SecurityModules()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Fact{Name: "lsm", Value: "cannot be seen: securityfs is not mounted", State: Unknown}
	case err != nil:
		return unknown("lsm", err)
	}
	fact := Fact{Name: "lsm", Value: strings.Join(names, " "), State: OK}
	if !slices.Contains(names, "bpf") {
		fact.Advice = "LSM tiers need bpf in this list; boot with lsm=" + strings.Join(append(names, "bpf"), ",")
	}
	return fact
}
