package procfs

import (
	"os"
	"path/filepath"
	"strings"
)

// Profile is a profile of AppArmor that is loaded (security/apparmor/apparmorfs.c).
type Profile struct {
	Path         string // name, after those of the profiles that it is in with // between: as aa-status(8) has it
	Name         string
	Attach, Mode string // which executables; enforce, complain, kill, unconfined …
	SHA1, SHA256 string // of the compiled profile; kernels have one of them
}

const (
	maxProfiles     = 16_384
	maxProfileDepth = 8
)

// Profiles lists the profiles of AppArmor; none without it.
func (fs FS) Profiles() ([]Profile, error) {
	var out []Profile
	err := fs.profiles(filepath.Join(fs.Sys, "kernel/security/apparmor/policy/profiles"), "", maxProfileDepth, &out)
	return out, err
}

func (fs FS) profiles(dir, above string, depth int, out *[]Profile) error {
	names, err := directory(dir)
	if err != nil || depth == 0 {
		return err
	}
	for _, name := range names {
		at := filepath.Join(dir, name)
		p := Profile{Name: value(filepath.Join(at, "name")), Attach: value(filepath.Join(at, "attach")), Mode: value(filepath.Join(at, "mode")),
			SHA1: value(filepath.Join(at, "sha1")), SHA256: value(filepath.Join(at, "sha256"))}
		if p.Name == "" || len(*out) >= maxProfiles {
			continue // gone, or not for this user
		}
		p.Path = above + p.Name
		*out = append(*out, p)
		if err := fs.profiles(filepath.Join(at, "profiles"), p.Path+"//", depth-1, out); err != nil {
			return err
		}
	}
	return nil
}

// SELinuxSetting is a value of SELinux: a file below /sys/fs/selinux.
type SELinuxSetting struct{ Scope, Key, Value string }

// SELinux lists the settings of SELinux, its booleans and what its policy can do; none without it.
func (fs FS) SELinux() ([]SELinuxSetting, error) {
	root := filepath.Join(fs.Sys, "fs/selinux")
	if _, err := os.Stat(filepath.Join(root, "enforce")); os.IsNotExist(err) {
		return nil, nil
	}
	var out []SELinuxSetting
	for _, key := range []string{"checkreqprot", "deny_unknown", "enforce", "mls", "policyvers", "reject_unknown"} {
		if v := value(filepath.Join(root, key)); v != "" {
			out = append(out, SELinuxSetting{"", key, v})
		}
	}
	for _, scope := range []string{"booleans", "initial_contexts", "policy_capabilities"} {
		names, err := directory(filepath.Join(root, scope))
		if err != nil {
			return out, err
		}
		for _, key := range names {
			v := strings.TrimRight(value(filepath.Join(root, scope, key)), "\x00")
			if scope == "booleans" { // what is in force, and what is pending
				if now, _, ok := strings.Cut(v, " "); ok {
					v = map[string]string{"0": "off", "1": "on"}[now]
				}
			}
			out = append(out, SELinuxSetting{scope, key, v})
		}
	}
	return out, nil
}
