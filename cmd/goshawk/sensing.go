package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/sensor"
)

// sensing is how programs are attached: the flags that run and check share.
type sensing struct {
	tiers  []string
	btf    string
	object string
}

// objectNames are the two compilations of the BPF programs.
var objectNames = []string{"modern", "legacy"}

func (s *sensing) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&s.tiers, "tier", nil, "attach a hook in this way only, as HOOK=TIER (repeat, or with commas); goshawk check lists both, tier none means not at all")
	f.StringVar(&s.btf, "btf", "", "file with the running kernel's types, or directory or .tar.gz (make btf) of RELEASE.btf files, for kernels that carry none (default <root-dir>/etc/goshawk/btf, and btf beside the program)")
	f.StringVar(&s.object, "object", "", "compilation of the BPF programs: modern, or legacy for kernels before 5.8 (default: what this kernel takes)")
	_ = f.MarkHidden("object") // there is one
}

// check finds wrong usage before anything is touched.
func (s *sensing) check() error {
	seen := make(map[string]bool)
	for _, word := range s.tiers {
		hook, tier, ok := strings.Cut(word, "=")
		if !ok || hook == "" || tier == "" {
			return failf(exitUsage, "--tier: %q is not HOOK=TIER; hooks are %s", word, strings.Join(sensor.HookNames(), ", "))
		}
		if seen[hook] {
			return failf(exitUsage, "--tier: hook %q is given twice", hook)
		}
		seen[hook] = true
	}
	if err := sensor.CheckTiers(s.forced()); err != nil {
		return failf(exitUsage, "--tier: %w", err)
	}
	if s.object != "" && !slices.Contains(objectNames, s.object) {
		return failf(exitUsage, "--object: no object is called %q; objects are %s", s.object, strings.Join(objectNames, ", "))
	}
	if s.btf != "" {
		if _, err := os.Stat(s.btf); err != nil {
			return failf(exitUsage, "--btf: %w", err)
		}
	}
	return nil
}

// forced is the only tier to try of each hook that --tier names.
func (s *sensing) forced() map[string]string {
	tiers := make(map[string]string)
	for _, word := range s.tiers {
		hook, tier, _ := strings.Cut(word, "=")
		tiers[hook] = tier
	}
	return tiers
}

// types finds the file with the kernel's types: the one that --btf names, an archive of them,
// or, of a directory, the one named after the kernel's release. "" is the kernel's own; one
// that has none is looked for below root and beside this program.
func (s *sensing) types(fs procfs.FS, root string) (string, error) {
	if st, err := os.Stat(s.btf); s.btf != "" && (err != nil || !st.IsDir()) {
		return s.btf, nil
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("ask uname(2): %w", err)
	}
	machine := unix.ByteSliceToString(u.Machine[:])
	release, err := fs.Release()
	if err != nil {
		return "", err
	}
	if s.btf != "" {
		if file := sensor.FindTypes(s.btf, machine, release); file != "" {
			return file, nil
		}
		return "", failf(exitUsage, "--btf: directory %q has no %s%s, nor one in %s", s.btf, release, sensor.TypesSuffix, machine)
	}
	if _, _, err := fs.BTF(); err == nil {
		return "", nil
	}
	places := []string{filepath.Join(root, "etc/goshawk/btf")}
	if program, err := os.Executable(); err == nil {
		places = append(places, filepath.Join(filepath.Dir(program), "btf"))
	}
	for _, dir := range places {
		if file := sensor.FindTypes(dir, machine, release); file != "" {
			return file, nil
		}
		if file := dir + ".tar.gz"; sensor.HasTypes(file, machine, release) {
			return file, nil
		}
	}
	return "", nil
}
