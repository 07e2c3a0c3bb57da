package table

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const dpkgStatus = `Package: base-files
Essential: yes
Status: install ok installed
Priority: required
Section: admin
Installed-Size: 341
Maintainer: Santiago Vila <sanvila@debian.org>
Architecture: amd64
Version: 12.4+deb12u10
Conffiles:
 /etc/debian_version 3c0ad0d3b1ae5ff6a4b0ad3ea9b1eb2f
Description: Debian base system miscellaneous files
 Package: not-a-package
 .
 Version: 9

Package: libfoo
Status: deinstall ok config-files
Source: foo (1:2.0-1)
Architecture: i386
Version: 1:2.0-1+b1

Package: gone
Status: purge ok not-installed
Version: 1
Priority: optional

package: lower
status: hold ok half-configured
version: 3~rc1-0.1
installed-size: huge
`

func TestDebPackages(t *testing.T) {
	dir := tree(t, map[string]string{
		"var/lib/dpkg/status":                  dpkgStatus,
		"opt/other/status":                     "Package: x\nVersion: 1\nStatus: install ok installed\n",
		"image/status.d/tzdata":                "Package: tzdata\nVersion: 2024b-0+deb12u1\n",
		"image/status.d/tzdata.md5sums":        "Package: no\nVersion: 1\n",
		"var/lib/dpkg/info/base-files.list":    "/.\n/etc\n/etc/debian_version\n",
		"var/lib/dpkg/info/libfoo:i386.list":   "/usr/lib/libfoo.so\n",
		"var/lib/dpkg/info/base-files.md5sums": "x\n",
		"opt/other/info/x.list":                "/x\n",
		"var/lib/dpkg/info/not.a.list/":        "",
	})
	r := debPackagesTable(at(dir))
	columns := []string{"name", "version", "source", "size", "arch", "revision", "status", "maintainer", "section", "priority", "admindir"}
	want := [][]string{
		{"base-files", "12.4+deb12u10", "", "341", "amd64", "", "install ok installed", "Santiago Vila <sanvila@debian.org>", "admin", "required", "/var/lib/dpkg"},
		{"libfoo", "1:2.0-1+b1", "foo (1:2.0-1)", "0", "i386", "1+b1", "deinstall ok config-files", "", "", "", "/var/lib/dpkg"},
		{"lower", "3~rc1-0.1", "", "0", "", "0.1", "hold ok half-configured", "", "", "", "/var/lib/dpkg"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), columns...)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{{"x"}, {"tzdata"}}, cells(r, scan(t, r, where(r, "admindir", "/opt/other", "/image")), "name")); diff != "" {
		t.Errorf("admindir: %s", diff)
	}
	f := debPackageFilesTable(at(dir))
	if diff := cmp.Diff([][]string{{"base-files", "/etc"}, {"base-files", "/etc/debian_version"}, {"libfoo", "/usr/lib/libfoo.so"}},
		cells(f, scan(t, f, whereAll()), "package", "path")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{{"/usr/lib/libfoo.so"}}, cells(f, scan(t, f, where(f, "package", "libfoo")), "path")); diff != "" {
		t.Errorf("one package: %s", diff)
	}
}

// dpkg itself says the same of this host.
func TestDebPackagesHere(t *testing.T) {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		t.Skip("no dpkg on this host: TestDebPackages reads its format")
	}
	query := func(args ...string) []string {
		out, err := exec.Command("dpkg-query", args...).Output()
		if err != nil {
			t.Fatalf("dpkg-query %v: %v", args, err)
		}
		return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	}
	want := query("-W", "-f", "${Package}\t${Version}\t${Architecture}\t${Status}\t${Installed-Size}\n")
	want = slices.DeleteFunc(want, func(l string) bool { return strings.Contains(l, " not-installed\t") })
	r := debPackagesTable(here())
	var got []string
	for _, row := range cells(r, scan(t, r, whereAll()), "name", "version", "arch", "status", "size") {
		if row[4] == "0" {
			row[4] = ""
		}
		got = append(got, strings.Join(row, "\t"))
	}
	for i := range want {
		want[i] = strings.TrimSuffix(want[i], "\t0")
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-dpkg +ours): %s", diff)
	}
	files := query("-L", "dpkg")
	files = slices.DeleteFunc(files, func(l string) bool { return l == "/." || !strings.HasPrefix(l, "/") })
	f := debPackageFilesTable(here())
	var ours []string
	for _, row := range cells(f, scan(t, f, where(f, "package", "dpkg")), "path") {
		ours = append(ours, row[0])
	}
	if diff := cmp.Diff(files, ours); diff != "" {
		t.Errorf("files of dpkg (-dpkg +ours): %s", diff)
	}
}

func FuzzParseDpkgStatus(f *testing.F) {
	f.Add([]byte(dpkgStatus))
	f.Add([]byte("Package:\n\x00\n: \n\n\nVersion"))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseDpkgStatus(b, func(p *debPackage) {
			if p.name == "" || strings.Contains(p.name, "\n") {
				t.Errorf("odd name %q", p.name)
			}
			p.revision()
		})
	})
}
