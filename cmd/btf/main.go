// Command btf packs the types of many kernels for goshawk: for those that carry none
// themselves (before 5.2, or built without). It is `make btf`.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"

	"github.com/goshawk-project/goshawk/internal/sensor"
)

const usage = `usage: btf [-out FILE] [-machine MACHINE] [-match GLOB] DIRECTORY

Reads what is below DIRECTORY of BTF files, RELEASE.btf or, as in BTFHub's archive
(DISTRIBUTION/VERSION/MACHINE/), RELEASE.btf.tar.xz; keeps of each the types that goshawk's
BPF programs need, some 10 KB of 5 MB; and packs them as MACHINE/RELEASE.btf into FILE, for
--btf FILE, or to be put at /etc/goshawk/btf.tar.gz. Files that cannot be read are named, and
left out.

`

// machines are what goshawk runs on, as uname(2) calls them, and as others do.
var machines = map[string]string{"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

func main() {
	out := flag.String("out", "btf.tar.gz", "file to write")
	match := flag.String("match", "*", "pack only releases that this glob matches, as '3.10.0-*'")
	only := flag.String("machine", "", "pack only this machine's: x86_64 or aarch64")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 || *only != "" && machines[*only] == "" {
		flag.Usage()
		os.Exit(2)
	}
	if _, err := filepath.Match(*match, ""); err != nil {
		fmt.Fprintf(os.Stderr, "btf: -match %q: %v\n", *match, err)
		os.Exit(2)
	}
	p := packer{match: *match, machine: machines[*only], files: map[string]packed{}, log: os.Stderr}
	if err := p.run(flag.Arg(0), *out); err != nil {
		fmt.Fprintln(os.Stderr, "btf:", err)
		os.Exit(1)
	}
}

type packer struct {
	match, machine string
	files          map[string]packed // by MACHINE/RELEASE.btf
	bytes          int64             // that were read
	bad            int
	log            io.Writer
}

type packed struct {
	from  string
	types []byte
}

func (p *packer) run(dir, out string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			p.take(dir, path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(p.files) == 0 {
		return fmt.Errorf("no types of a kernel below %q (files are called RELEASE.btf or RELEASE.btf.tar.xz)", dir)
	}
	size, err := p.write(out)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.log, "btf: %d kernels from %d KiB in %s, %d KiB; %d files were left out\n", len(p.files), p.bytes>>10, out, size>>10, p.bad)
	return nil
}

// take reads one file, if it is one of ours.
func (p *packer) take(dir, path string) {
	name := strings.TrimSuffix(filepath.Base(path), ".tar.xz")
	release, ok := strings.CutSuffix(name, sensor.TypesSuffix)
	if !ok {
		return
	}
	if fits, _ := filepath.Match(p.match, release); !fits {
		return
	}
	machine := machineOf(dir, path, release)
	if machine == "" || p.machine != "" && machine != p.machine {
		return
	}
	types, err := p.reduce(path)
	to := machine + "/" + name
	if have, ok := p.files[to]; err == nil && ok && !bytes.Equal(have.types, types) {
		err = fmt.Errorf("%s differs, and is called the same", have.from)
	}
	if err != nil {
		p.bad++
		fmt.Fprintf(p.log, "btf: left out %s: %v\n", path, err)
		return
	}
	p.files[to] = packed{path, types}
}

// machineOf finds the machine among the directories that a file is in, or at the end of its
// release; without either it is x86_64. It is "" for one that goshawk does not run on.
func machineOf(dir, path, release string) string {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return ""
	}
	parts := strings.Split(filepath.ToSlash(filepath.Dir(rel)), "/")
	parts = append(parts, filepath.Base(dir))
	for _, part := range parts {
		if m := machines[part]; m != "" {
			return m
		}
		if slices.Contains([]string{"ppc64le", "s390x", "i386", "i686", "armhf", "riscv64"}, part) {
			return ""
		}
	}
	for name, m := range machines {
		if strings.HasSuffix(release, "."+name) || strings.HasSuffix(release, "-"+name) {
			return m
		}
	}
	return "x86_64"
}

// reduce reads a file, BTF or an archive that has one such file in it.
func (p *packer) reduce(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".tar.xz") {
		z, err := xz.NewReader(f)
		if err != nil {
			return nil, err
		}
		t := tar.NewReader(z)
		for {
			h, err := t.Next()
			if errors.Is(err, io.EOF) {
				return nil, errors.New("it has no .btf in it")
			}
			if err != nil {
				return nil, err
			}
			if h.Typeflag == tar.TypeReg && strings.HasSuffix(h.Name, sensor.TypesSuffix) {
				break
			}
		}
		r = t
	}
	b, err := io.ReadAll(io.LimitReader(r, sensor.MaxTypes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > sensor.MaxTypes {
		return nil, fmt.Errorf("it is larger than %d bytes", sensor.MaxTypes)
	}
	p.bytes += int64(len(b))
	return sensor.ReduceTypes(bytes.NewReader(b))
}

// write makes the archive: the same bytes for the same types.
func (p *packer) write(name string) (int64, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return 0, err
	}
	w := tar.NewWriter(z)
	for _, to := range slices.Sorted(maps.Keys(p.files)) {
		types := p.files[to].types
		if err := w.WriteHeader(&tar.Header{Name: to, Mode: 0o644, Size: int64(len(types)), Format: tar.FormatPAX}); err != nil {
			return 0, err
		}
		if _, err := w.Write(types); err != nil {
			return 0, err
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return 0, err
	}
	n := int64(b.Len())
	return n, os.WriteFile(name, b.Bytes(), 0o644)
}
