package table

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// Where rpm keeps its database, and how (lib/backend in rpm's sources), the newest first: a
// host that was converted still has its old one.
var (
	rpmDirectories = [...]string{"/usr/lib/sysimage/rpm", "/var/lib/rpm"}
	rpmFiles       = [...]string{"rpmdb.sqlite", "Packages.db", "Packages"}
)

// Tags of a header (include/rpm/rpmtag.h).
const (
	rpmSHA1Header                                       = 269
	rpmName, rpmVersion, rpmRelease, rpmEpoch           = 1000, 1001, 1002, 1003
	rpmInstallTime, rpmSize, rpmVendor, rpmGroup        = 1008, 1009, 1011, 1016
	rpmArch, rpmFileSizes, rpmFileModes, rpmFileDigests = 1022, 1028, 1030, 1035
	rpmFileUser, rpmFileGroup, rpmSource                = 1039, 1040, 1044
	rpmDirIndexes, rpmBaseNames, rpmDirNames            = 1116, 1117, 1118
	rpmLongFileSizes, rpmLongSize, rpmFileDigestAlgo    = 5008, 5009, 5011
)

// pgpSHA256 is what OpenPGP calls SHA-256 (RFC 9580, 9.5).
const pgpSHA256 = 8

// eachRPM calls add with the header of each package of a root directory. A root without
// a database has no packages.
func (env *Env) eachRPM(ctx context.Context, s *scope, q *schema.Query, add func(*rpmHeader) error) error {
	for _, dir := range rpmDirectories {
		for _, name := range rpmFiles {
			fd, err := s.open(path.Join(dir, name), true)
			if err != nil {
				continue
			}
			err = env.readRPMs(ctx, s, dir, name, fd, func(blob []byte) error {
				if err := ctx.Err(); err != nil {
					return err
				}
				h, err := parseRPMHeader(blob)
				if err != nil {
					return err
				}
				return add(h)
			})
			unix.Close(fd)
			if err != nil && ctx.Err() == nil && !errors.Is(err, errEnough) {
				q.Warning(fmt.Sprintf("read rpm database %q: %v", path.Join(dir, name), err))
				return nil
			}
			return err
		}
	}
	return nil
}

// readRPMs calls add with each blob of the database behind an O_PATH descriptor.
func (env *Env) readRPMs(ctx context.Context, s *scope, dir, name string, fd int, add func([]byte) error) error {
	file, err := openRegular(fd)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(file), name)
	defer f.Close()
	switch name {
	case "Packages":
		return readBerkeley(f, add)
	case "Packages.db":
		return readNDB(f, add)
	}
	if env.SQLite == nil {
		return errors.New("SQLite is not at hand")
	}
	// By the directory's descriptor, so that it is this root's, and SQLite finds what
	// belongs to the file beside it.
	up, err := s.open(dir, true)
	if err != nil {
		return err
	}
	defer unix.Close(up)
	return readCells(ctx, env.SQLite("SELECT blob FROM Packages", []string{"blob"}, path.Join(procfs.DescriptorPath(up), name)), func(cell string) error {
		blob, err := hex.DecodeString(cell)
		if err != nil {
			return errRPMDamaged
		}
		return add(blob)
	})
}

// readCells calls f with the first cell of each row.
func readCells(ctx context.Context, r schema.Relation, f func(string) error) (err error) {
	var warning error
	c, err := r.Open(ctx, &schema.Query{Warn: func(s string) { warning = errors.New(s) }})
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		more, err := c.Next()
		if err != nil {
			return err
		}
		if !more {
			return warning
		}
		if err := f(c.Value(0).Text()); err != nil {
			return err
		}
	}
}

// rpmPackage is a row of rpm_packages.
type rpmPackage struct {
	place
	name, version, release, source, sha1, arch, vendor, group string
	size, installTime                                         int64
	epoch                                                     int64 // -1: none
}

func newRPMPackage(h *rpmHeader) *rpmPackage {
	p := &rpmPackage{
		name: h.text(rpmName), version: h.text(rpmVersion), release: h.text(rpmRelease), source: h.text(rpmSource),
		sha1: h.text(rpmSHA1Header), arch: h.text(rpmArch), vendor: h.text(rpmVendor), group: h.text(rpmGroup), epoch: -1,
	}
	if n, ok := h.number(rpmEpoch); ok {
		p.epoch = n
	}
	p.installTime, _ = h.number(rpmInstallTime)
	var ok bool
	if p.size, ok = h.number(rpmSize); !ok {
		p.size, _ = h.number(rpmLongSize)
	}
	return p
}

func rpmPackagesTable(env *Env) schema.Relation {
	type row = *rpmPackage
	t := newStreamed("rpm_packages", "Packages in rpm's database.", []schema.Column[row]{
		schema.Str("name", func(p row) *string { return &p.name }, "Package", schema.Index, schema.Optimized),
		schema.Str("version", func(p row) *string { return &p.version }, "Version, as rpm compares it", schema.Index).Collated("version_rhel"),
		schema.Str("release", func(p row) *string { return &p.release }, "Release", schema.Index),
		schema.Str("source", func(p row) *string { return &p.source }, "Source package it was built from"),
		schema.Int("size", func(p row) *int64 { return &p.size }, "Installed size in bytes"),
		schema.Str("sha1", func(p row) *string { return &p.sha1 }, "SHA-1 of the package's header; empty for packages with newer digests only").Collated("nocase"),
		schema.Str("arch", func(p row) *string { return &p.arch }, "Architecture", schema.Index),
		schema.Calc("epoch", schema.Integer, func(p row) schema.Value {
			if p.epoch < 0 {
				return schema.Null
			}
			return schema.IntValue(p.epoch)
		}, "Epoch of the version, if it has one", schema.Index),
		schema.Int("install_time", func(p row) *int64 { return &p.installTime }, "When it was installed, unix seconds").As(schema.Integer),
		schema.Str("vendor", func(p row) *string { return &p.vendor }, "Who built it"),
		schema.Str("package_group", func(p row) *string { return &p.group }, "Group, a kind of section"),
		pidColumn(func(p row) *place { return &p.place }),
		mountColumn(func(p row) *place { return &p.place }),
	})
	t.scan = func(ctx context.Context, q *schema.Query, yield func(row) error) error {
		return env.eachScope(t.def, q, func(s *scope) error {
			return env.eachRPM(ctx, s, q, func(h *rpmHeader) error {
				p := newRPMPackage(h)
				p.place = s.place()
				return yield(p)
			})
		})
	}
	return t
}

func rpmPackageFilesTable(env *Env) schema.Relation {
	type row = *packageFile
	t := newStreamed("rpm_package_files", "Files and directories of installed packages, with what rpm installed them as.", []schema.Column[row]{
		schema.Str("package", func(f row) *string { return &f.pkg }, "Package", schema.Index, schema.Optimized),
		schema.Str("path", func(f row) *string { return &f.path }, "Path", schema.Index),
		schema.Str("username", func(f row) *string { return &f.user }, "Owner as packaged"),
		schema.Str("groupname", func(f row) *string { return &f.group }, "Owning group as packaged"),
		schema.Str("mode", func(f row) *string { return &f.mode }, "Permission bits as packaged, four octal digits"),
		schema.Int("size", func(f row) *int64 { return &f.size }, "Size in bytes as packaged"),
		schema.Str("sha256", func(f row) *string { return &f.sha256 }, "SHA-256 as packaged; empty when the package has another digest").Collated("nocase"),
	})
	t.scan = func(ctx context.Context, q *schema.Query, yield func(row) error) error {
		only := packageNames(t.def, q)
		return env.eachScope(t.def, q, func(s *scope) error {
			return env.eachRPM(ctx, s, q, func(h *rpmHeader) error {
				if only != nil && !only[h.text(rpmName)] {
					return nil
				}
				return eachRPMFile(h, yield)
			})
		})
	}
	return t
}

// eachRPMFile calls add with each file of a package. Directories are named once, and files
// by a number and a base name.
func eachRPMFile(h *rpmHeader, add func(*packageFile) error) error {
	names, dirs, indexes := h.texts(rpmBaseNames), h.texts(rpmDirNames), h.numbers(rpmDirIndexes)
	users, groups, digests := h.texts(rpmFileUser), h.texts(rpmFileGroup), h.texts(rpmFileDigests)
	modes, sizes := h.numbers(rpmFileModes), h.numbers(rpmFileSizes)
	if sizes == nil {
		sizes = h.numbers(rpmLongFileSizes)
	}
	algorithm, _ := h.number(rpmFileDigestAlgo)
	pkg := h.text(rpmName)
	for i, name := range names {
		f := &packageFile{pkg: pkg, path: name}
		if i < len(indexes) && indexes[i] >= 0 && indexes[i] < int64(len(dirs)) {
			f.path = dirs[indexes[i]] + name
		}
		if i < len(users) {
			f.user = users[i]
		}
		if i < len(groups) {
			f.group = groups[i]
		}
		if i < len(modes) {
			f.mode = fmt.Sprintf("%04o", modes[i]&0o7777)
		}
		if i < len(sizes) {
			f.size = sizes[i]
		}
		if i < len(digests) && algorithm == pgpSHA256 {
			f.sha256 = digests[i]
		}
		if err := add(f); err != nil {
			return err
		}
	}
	return nil
}
