package procfs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const maxKeys = 16 << 20 // about 100 bytes a key or a segment

// Key is a key in the kernel's keyrings, as far as this process may see it (proc_keys(5)).
type Key struct {
	Serial, Flags     string
	Usage             int64
	Timeout           string // perm, expd, or what is left: 5d, 17h …
	Permissions       string // hexadecimal
	UID, GID          int64
	Type, Description string
}

// Keys reads /proc/keys; a kernel without keyrings has none.
func (fs FS) Keys() ([]Key, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "keys"), maxKeys)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return ParseKeys(b), err
}

// ParseKeys reads /proc/keys (security/keys/proc.c). What is no line of it is left out.
func ParseKeys(b []byte) []Key {
	var out []Key
	for line := range bytes.Lines(b) {
		words := strings.Fields(string(line))
		if len(words) < 8 {
			continue
		}
		usage, err1 := strconv.ParseInt(words[2], 10, 64)
		uid, err2 := strconv.ParseInt(words[5], 10, 64)
		gid, err3 := strconv.ParseInt(words[6], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			continue
		}
		out = append(out, Key{words[0], words[1], usage, words[3], words[4], uid, gid, words[7], strings.Join(words[8:], " ")})
	}
	return out
}

// Segment is a System V shared memory segment (proc_sysvipc(5)).
type Segment struct {
	ID, Mode                  int64 // Mode: permissions, 01000 to be destroyed, 02000 locked
	Size, CreatorPID, PID     int64
	Attached, UID, CreatorUID int64
	Attach, Detach, Change    int64 // unix seconds
}

// Segments reads /proc/sysvipc/shm of this process's IPC namespace.
func (fs FS) Segments() ([]Segment, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "sysvipc/shm"), maxKeys)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return ParseSegments(b), err
}

// ParseSegments reads /proc/sysvipc/shm (ipc/shm.c): key, shmid, perms in octal, size, cpid, lpid,
// nattch, uid, gid, cuid, cgid, atime, dtime, ctime, and more.
func ParseSegments(b []byte) []Segment {
	var out []Segment
	for line := range bytes.Lines(b) {
		words := strings.Fields(string(line))
		if len(words) < 14 {
			continue
		}
		mode, err := strconv.ParseUint(words[2], 8, 32)
		var n [14]int64
		for i := range n {
			if i != 2 && err == nil {
				n[i], err = strconv.ParseInt(words[i], 10, 64)
			}
		}
		if err != nil {
			continue // the heading
		}
		out = append(out, Segment{ID: n[1], Mode: int64(mode), Size: n[3], CreatorPID: n[4], PID: n[5], Attached: n[6],
			UID: n[7], CreatorUID: n[9], Attach: n[11], Detach: n[12], Change: n[13]})
	}
	return out
}

// SysctlChildren returns the names of the directories right below one of /proc/sys.
func (fs FS) SysctlChildren(dir string) []string {
	list, _ := os.ReadDir(filepath.Join(fs.Proc, "sys", dir)) // none is none
	var out []string
	for _, entry := range list {
		if entry.IsDir() {
			out = append(out, entry.Name())
		}
	}
	return out
}

// FirmwareFlag reads a global variable of UEFI that is one byte, below /sys/firmware/efi/efivars:
// four bytes of attributes, then the value. False when it is not there.
func (fs FS) FirmwareFlag(name string) (on, ok bool) {
	const global = "-8be4df61-93ca-11d2-aa0d-00e098032b8c" // EFI_GLOBAL_VARIABLE
	b, err := readAtMost(filepath.Join(fs.Sys, "firmware/efi/efivars", name+global), 64)
	if err != nil || len(b) != 5 {
		return false, false
	}
	return b[4] == 1, true
}
