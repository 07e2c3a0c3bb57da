package table

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOSVersion(t *testing.T) {
	columns := []string{"name", "version", "major", "minor", "patch", "build", "platform", "platform_like", "codename"}
	roots := map[string]map[string]string{
		"Rocky Linux 9": {
			"etc/os-release":     "NAME=\"Rocky Linux\"\nVERSION=\"9.3 (Blue Onyx)\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.3\"\n",
			"etc/redhat-release": "Rocky Linux release 9.3 (Blue Onyx)\n",
		},
		"CentOS Stream 9": {
			"etc/os-release":     "NAME=\"CentOS Stream\"\nVERSION=\"9\"\nID=\"centos\"\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"9\"\n",
			"etc/redhat-release": "CentOS Stream release 9\n",
		},
		"Fedora 39": {
			"etc/os-release":     "NAME=\"Fedora Linux\"\nVERSION=\"39 (Server Edition)\"\nID=fedora\nVERSION_ID=39\nVERSION_CODENAME=\"\"\n",
			"etc/redhat-release": "Fedora release 39 (Thirty Nine)\n",
		},
		"RHEL 6": { // older than os-release
			"etc/redhat-release": "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n",
		},
		"Ubuntu 22.04": {
			"etc/os-release": "PRETTY_NAME=\"Ubuntu 22.04.3 LTS\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"22.04\"\nVERSION=\"22.04.3 LTS (Jammy Jellyfish)\"\nVERSION_CODENAME=jammy\nID=ubuntu\nID_LIKE=debian\nUBUNTU_CODENAME=other\n",
		},
		"Gentoo": {
			"etc/os-release":     "NAME=Gentoo\nID=gentoo\nVERSION_ID=2.14\n",
			"etc/gentoo-release": "Gentoo Base System release 2.14\n",
		},
		"Arch": {
			"etc/os-release": "NAME=\"Arch Linux\"\nID=arch\nBUILD_ID=rolling\n",
		},
		"odd quoting": {
			"etc/os-release": "NAME='Ann\\'\n  ID=\"a\\\"b\\\\c\\d\"\nVERSION=\"\nVERSION_ID=x.9y.z1\n#ID=commented\nSOME_CODENAME=made\n",
		},
		"nothing": {"etc/": ""},
	}
	want := map[string][]string{
		"debian-12":        {"Debian GNU/Linux", "12 (bookworm)", "12", "0", "0", "", "debian", "", "bookworm"},
		"centos-7":         {"CentOS Linux", "CentOS Linux release 7.9.2009 (Core)", "7", "9", "2009", "", "rhel", "rhel", ""},
		"alpine-3.20-bare": {"Alpine Linux", "", "3", "20", "3", "", "alpine", "", ""},
		"Rocky Linux 9":    {"Rocky Linux", "Rocky Linux release 9.3 (Blue Onyx)", "9", "3", "0", "", "rhel", "rhel", ""},
		"CentOS Stream 9":  {"CentOS Stream", "CentOS Stream release 9", "9", "0", "0", "", "rhel", "rhel", ""},
		"Fedora 39":        {"Fedora Linux", "Fedora release 39 (Thirty Nine)", "39", "0", "0", "", "rhel", "rhel", ""},
		"RHEL 6":           {"Red Hat Enterprise Linux Server", "Red Hat Enterprise Linux Server release 6.10 (Santiago)", "6", "10", "0", "", "rhel", "rhel", ""},
		"Ubuntu 22.04":     {"Ubuntu", "22.04.3 LTS (Jammy Jellyfish)", "22", "4", "0", "", "ubuntu", "debian", "jammy"},
		"Gentoo":           {"Gentoo Base System", "Gentoo Base System release 2.14", "2", "14", "0", "", "gentoo", "gentoo", ""},
		"Arch":             {"Arch Linux", "", "0", "0", "0", "rolling", "arch", "", ""},
		"odd quoting":      {`Ann\`, `"`, "0", "9", "0", "", `a"b\c\d`, "", "made"},
		"nothing":          {"Unknown", "", "0", "0", "0", "", "posix", "", ""},
	}
	for name, line := range want {
		t.Run(name, func(t *testing.T) {
			env := fixture(t, name)
			if files := roots[name]; files != nil {
				env = at(tree(t, files))
			}
			r := osVersionTable(env)
			if diff := cmp.Diff([][]string{line}, cells(r, scan(t, r, whereAll()), columns...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// An image may have only the copy that the vendor ships (os-release(5)).
func TestOSVersionVendorCopy(t *testing.T) {
	r := osVersionTable(at(tree(t, map[string]string{"usr/lib/os-release": "NAME=Vendor\nID=v\n"})))
	if diff := cmp.Diff([][]string{{"Vendor", "v"}}, cells(r, scan(t, r, whereAll()), "name", "platform")); diff != "" {
		t.Error(diff)
	}
}

func FuzzOSRelease(f *testing.F) {
	for _, name := range []string{"debian-12", "centos-7", "alpine-3.20-bare"} {
		b, err := os.ReadFile("testdata/" + name + "/usr/lib/os-release")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("CentOS Linux release 7.9.2009 (Core)"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v osVersion
		v.parseOSRelease(b)
		v.parseRelease(b, "rhel")
		if v.platform != "rhel" || v.major < 0 || v.minor < 0 || v.patch < 0 {
			t.Errorf("odd version %+v", v)
		}
	})
}
