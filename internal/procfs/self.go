package procfs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// SelfPeak returns the peak resident memory of this process in bytes, since its exec.
// getrusage(2) cannot tell: its ru_maxrss begins with what the process that executed us
// held at that moment (fs/exec.c, exec_mmap).
func (fs FS) SelfPeak() (uint64, error) { return fs.selfMemory("VmHWM") }

// SelfResident returns the resident memory of this process in bytes.
func (fs FS) SelfResident() (uint64, error) { return fs.selfMemory("VmRSS") }

// selfMemory returns a line of /proc/self/status that is in kB.
func (fs FS) selfMemory(name string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(fs.Proc, "self/status"))
	if err != nil {
		return 0, fmt.Errorf("read own memory: %w", err)
	}
	for len(b) > 0 {
		var line []byte
		line, b = nextLine(b)
		if value, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			word, _ := nextField(value)
			return uint64(parseInt(word)) * 1024, nil
		}
	}
	return 0, fmt.Errorf("read own memory: no %s in %q", name, filepath.Join(fs.Proc, "self/status"))
}

// SelfThreads lists the threads of this process.
func (fs FS) SelfThreads() ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(fs.Proc, "self/task"))
	if err != nil {
		return nil, fmt.Errorf("list own threads: %w", err)
	}
	var out []int
	for _, e := range entries {
		if n, ok := direntNumber([]byte(e.Name())); ok {
			out = append(out, n)
		}
	}
	return out, nil
}
