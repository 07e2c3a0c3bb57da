package table

import (
	"archive/zip"
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// passwd is of the hosts in this file: root, ada, bob.
const passwd = "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/zsh\nbob:x:1001:1001::/home/bob:/bin/sh\n"

func TestPythonPackages(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/passwd": passwd,
		"usr/lib/python3/dist-packages/apt-2.6.egg-info":                                "Metadata-Version: 1.0\nName: python-apt\nVersion: 2.6.0\nSummary: UNKNOWN\nLicense: GNU GPL\n",
		"usr/local/lib/python3.11/dist-packages/requests-2.31.dist-info/METADATA":       "Name: requests\nVersion: 2.31.0\nSummary: Python HTTP for Humans.\nAuthor-email: \"K\" <k@example.org>\nLicense-Expression: Apache-2.0\nClassifier: a\n\nName: body\n",
		"usr/local/lib/python3.11/dist-packages/old.egg-info/PKG-INFO":                  "Name: old\nVersion: 0.1\nAuthor: Somebody\n",
		"usr/local/lib/python3.11/dist-packages/empty.dist-info/METADATA":               "\n",
		"home/ada/.local/lib/python3.12/site-packages/x-1.dist-info/METADATA":           "Name: x\nVersion: 1\n",
		"root/.pyenv/versions/3.9.1/lib/python3.9/site-packages/y-1.dist-info/METADATA": "Name: y\nVersion: 2\n",
	})
	r := pythonPackagesTable(at(dir))
	system := [][]string{
		{"old", "0", "0.1", "", "Somebody", "", "/usr/local/lib/python3.11/dist-packages/old.egg-info", "/usr/local/lib/python3.11/dist-packages"},
		{"requests", "0", "2.31.0", "Python HTTP for Humans.", `"K" <k@example.org>`, "Apache-2.0", "/usr/local/lib/python3.11/dist-packages/requests-2.31.dist-info", "/usr/local/lib/python3.11/dist-packages"},
		{"python-apt", "0", "2.6.0", "", "", "GNU GPL", "/usr/lib/python3/dist-packages/apt-2.6.egg-info", "/usr/lib/python3/dist-packages"},
		{"y", "0", "2", "", "", "", "/root/.pyenv/versions/3.9.1/lib/python3.9/site-packages/y-1.dist-info", "/root/.pyenv/versions/3.9.1/lib/python3.9/site-packages"},
	}
	ada := []string{"x", "1000", "1", "", "", "", "/home/ada/.local/lib/python3.12/site-packages/x-1.dist-info", "/home/ada/.local/lib/python3.12/site-packages"}
	columns := []string{"name", "uid", "version", "summary", "author", "license", "path", "directory"}
	if diff := cmp.Diff(append(system[:len(system):len(system)], ada), cells(r, scan(t, r, where(r, "uid", 0, 1000)), columns...)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{ada}, cells(r, scan(t, r, where(r, "uid", 1000)), columns...)); diff != "" {
		t.Errorf("uid 1000: %s", diff)
	}
	if diff := cmp.Diff([][]string{{"x", "1000"}}, cells(r, scan(t, r, where(r, "directory", ada[7])), "name", "uid")); diff != "" {
		t.Errorf("directory: %s", diff)
	}
}

func TestNPMPackages(t *testing.T) {
	dir := tree(t, map[string]string{
		"usr/lib/node_modules/npm/package.json":                              `{"name":"npm","version":"10.8.2","description":"a manager","author":"GitHub Inc.","license":"Artistic-2.0","homepage":"https://docs.npmjs.com/"}`,
		"usr/lib/node_modules/npm/node_modules/@npmcli/fs/package.json":      `{"name":"@npmcli/fs","version":"3.1.1","author":{"name":"GitHub"},"license":{"type":"ISC","url":"u"}}`,
		"usr/lib/node_modules/npm/node_modules/abbrev/package.json":          `{"name":"abbrev","version":7,"licenses":[{"type":"MIT"}]}`,
		"usr/lib/node_modules/npm/node_modules/abbrev/node_modules":          "-> ../../..",
		"usr/lib/node_modules/broken/package.json":                           `{"name":`,
		"home/ada/.nvm/versions/node/v20/lib/node_modules/yarn/package.json": `{"name":"yarn","version":"1"}`,
		"srv/app/node_modules/left-pad/package.json":                         `{"name":"left-pad"}`,
	})
	r := npmPackagesTable(at(dir))
	want := [][]string{
		{"npm", "10.8.2", "a manager", "GitHub Inc.", "Artistic-2.0", "https://docs.npmjs.com/", "/usr/lib/node_modules/npm/package.json", "/usr/lib", "0", "100"},
		{"@npmcli/fs", "3.1.1", "", "GitHub", "ISC", "", "/usr/lib/node_modules/npm/node_modules/@npmcli/fs/package.json", "/usr/lib", "1", "100"},
		{"abbrev", "", "", "", "MIT", "", "/usr/lib/node_modules/npm/node_modules/abbrev/package.json", "/usr/lib", "1", "100"},
		{"yarn", "1", "", "", "", "", "/home/ada/.nvm/versions/node/v20/lib/node_modules/yarn/package.json", "/home/ada/.nvm/versions/node/v20/lib", "0", "100"},
	}
	columns := []string{"name", "version", "description", "author", "license", "homepage", "path", "directory", "depth", "max_depth"}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), columns...)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{{"npm", "0"}, {"yarn", "0"}}, cells(r, scan(t, r, where(r, "max_depth", 0)), "name", "max_depth")); diff != "" {
		t.Errorf("max_depth 0: %s", diff)
	}
	if diff := cmp.Diff([][]string{{"left-pad", "/srv/app"}}, cells(r, scan(t, r, where(r, "directory", "/srv/app")), "name", "directory")); diff != "" {
		t.Errorf("directory: %s", diff)
	}
}

func TestPortagePackages(t *testing.T) {
	dir := tree(t, map[string]string{
		"var/db/pkg/app-editors/vim-core-9.0.2167-r1/SLOT":       "0\n",
		"var/db/pkg/app-editors/vim-core-9.0.2167-r1/BUILD_TIME": "1700000000\n",
		"var/db/pkg/app-editors/vim-core-9.0.2167-r1/repository": "gentoo\n",
		"var/db/pkg/app-editors/vim-core-9.0.2167-r1/EAPI":       "8\n",
		"var/db/pkg/app-editors/vim-core-9.0.2167-r1/SIZE":       "40000\n",
		"var/db/pkg/dev-libs/-MERGING-x-1/SLOT":                  "0\n",
		"var/db/pkg/dev-libs/libx-1_p2/SLOT":                     "0/1\n",
		"var/lib/portage/world":                                  "app-editors/vim-core:0\n",
	})
	r := portagePackagesTable(at(dir))
	want := [][]string{
		{"app-editors/vim-core", "9.0.2167-r1", "0", "1700000000", "gentoo", "8", "40000", "1"},
		{"dev-libs/libx", "1_p2", "0/1", "0", "", "0", "0", "0"},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "package", "version", "slot", "build_time", "repository", "eapi", "size", "world")); diff != "" {
		t.Error(diff)
	}
}

// The key is that of uBlock Origin's package, whose identifier everybody knows.
const (
	ublockKey   = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAmJNzUNVjS6Q1qe0NRqpmfX/oSJdgauSZNdfeb5RV1Hji21vX0TivpP5gq0fadwmvmVCtUpOaNUopgejiUFm/iKHPs0o3x7hyKk/eX0t2QT3OZGdXkPiYpTEC0f0p86SQaLoA2eHaOG4uCGi7sxLJmAXc6IsxGKVklh7cCoLUgWEMnj8ZNG2Y8UKG3gBdrpES5hk7QyFDMraO79NmSlWRNgoJHX6XRoY66oYThFQad8KL8q3pf3Oe8uBLKywohU0ZrDPViWHIszXoE9HEvPTFAbHZ1umINni4W/YVs+fhqHtzRJcaKJtsTaYy+cholu5mAYeTZqtHf6bcwJ8t9i2afwIDAQAB"
	preferences = `{"profile":{"name":"Person 1"},"extensions":{"settings":{
 "abcdefghijklmnopabcdefghijklmnop":{"path":"abcdefghijklmnopabcdefghijklmnop/1.2_0","state":1,"from_webstore":true,"install_time":"13345678901234567"},
 "unpacked":{"path":"/opt/ext","state":0},
 "nothing":{"path":5}}}}`
)

func TestChromeExtensions(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/passwd": passwd,
		"home/ada/.config/google-chrome/Default/Preferences": preferences,
		"home/ada/.config/google-chrome/Default/Extensions/abcdefghijklmnopabcdefghijklmnop/1.2_0/manifest.json": "\xef\xbb\xbf" + `{"name":"__MSG_extName__","version":"1.2","default_locale":"en",
 "description":"d","author":"me","update_url":"https://clients2.google.com/service/update2/crx","background":{"persistent":true},
 "permissions":["tabs","https://*/*",{"fileSystem":["write"]}],"optional_permissions":["storage"]}`,
		"home/ada/.config/google-chrome/Default/Extensions/abcdefghijklmnopabcdefghijklmnop/1.2_0/_locales/en/messages.json": `{"EXTNAME":{"message":"An Extension"}}`,
		"home/ada/.config/google-chrome/Default/Extensions/left/0.1_0/manifest.json":                                         `{"name":"Left behind","version":"0.1","key":"` + ublockKey + `"}`,
		"home/ada/.config/google-chrome/Guest/README":                                                                        "",
		"opt/ext/manifest.json":                               `{"name":"Unpacked","version":"3","current_locale":"de","author":{"email":"x"}}`,
		"home/bob/.config/opera/Preferences":                  `{}`,
		"home/bob/.config/opera/Extensions/a/1/manifest.json": `{"name":"O","version":"1"}`,
	})
	r := chromeExtensionsTable(at(dir))
	columns := []string{"browser_type", "uid", "name", "profile", "profile_path", "referenced_identifier", "version", "description", "default_locale", "current_locale", "update_url",
		"author", "persistent", "path", "permissions", "permissions_json", "optional_permissions", "referenced", "from_webstore", "state", "install_time", "install_timestamp"}
	base := "/home/ada/.config/google-chrome/Default"
	want := [][]string{
		{"chrome", "1000", "An Extension", "Person 1", base, "abcdefghijklmnopabcdefghijklmnop", "1.2", "d", "en", "", "https://clients2.google.com/service/update2/crx",
			"me", "1", base + "/Extensions/abcdefghijklmnopabcdefghijklmnop/1.2_0", `tabs, https://*/*, {"fileSystem":["write"]}`, `["tabs","https://*/*",{"fileSystem":["write"]}]`, "storage", "1", "true", "1", "13345678901234567", "1701205301"},
		{"chrome", "1000", "Left behind", "Person 1", base, "", "0.1", "", "", "", "", "", "0", base + "/Extensions/left/0.1_0", "", "{}", "", "0", "", "", "", "0"},
		{"chrome", "1000", "Unpacked", "Person 1", base, "unpacked", "3", "", "", "de", "", "", "0", "/opt/ext", "", "{}", "", "1", "", "0", "", "0"},
		{"opera", "1001", "O", "", "/home/bob/.config/opera", "", "1", "", "", "", "", "", "0", "/home/bob/.config/opera/Extensions/a/1", "", "{}", "", "0", "", "", "", "0"},
	}
	rows := scan(t, r, where(r, "uid", 0, 1000, 1001))
	if diff := cmp.Diff(want, cells(r, rows, columns...)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{{"abcdefghijklmnopabcdefghijklmnop"}, {"cjpalhdlnbpafiamejdnhcphjbkeiagm"}}, cells(r, rows[:2], "identifier")); diff != "" {
		t.Error(diff)
	}
}

func TestFirefoxAddons(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/passwd": passwd,
		"home/ada/.mozilla/firefox/x.default/extensions.json": `{"schemaVersion":36,"addons":[
 {"id":"uBlock0@raymondhill.net","version":"1.52.2","type":"extension","defaultLocale":{"name":"uBlock Origin","description":"Finally","creator":"R"},
  "visible":true,"active":true,"userDisabled":false,"appDisabled":false,"softDisabled":false,"applyBackgroundUpdates":1,"sourceURI":"https://a/b.xpi","location":"app-profile","path":"/p.xpi"},
 {"id":"off","version":null,"type":"theme","visible":true,"active":false,"userDisabled":true}]}`,
		"home/bob/snap/firefox/common/.mozilla/firefox/y/extensions.json": `[]`,
	})
	r := firefoxAddonsTable(at(dir))
	want := [][]string{
		{"1000", "uBlock Origin", "uBlock0@raymondhill.net", "R", "extension", "1.52.2", "Finally", "https://a/b.xpi", "1", "1", "0", "1", "app-profile", "/p.xpi"},
		{"1000", "", "off", "", "theme", "", "", "", "1", "0", "1", "0", "", ""},
	}
	columns := []string{"uid", "name", "identifier", "creator", "type", "version", "description", "source_url", "visible", "active", "disabled", "autoupdate", "location", "path"}
	if diff := cmp.Diff(want, cells(r, scan(t, r, where(r, "uid", 0, 1000, 1001)), columns...)); diff != "" {
		t.Error(diff)
	}
}

func TestEditorExtensions(t *testing.T) {
	var jar bytes.Buffer
	w := zip.NewWriter(&jar)
	f, err := w.Create("META-INF/plugin.xml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("<!-- c --><idea-plugin url='u'>\n<id>x</id><name>Osquery &amp; more</name>\n<vendor url='v'>\n  The Vendor\n</vendor><version>1.3.18</version></idea-plugin>")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := tree(t, map[string]string{
		"etc/passwd": passwd,
		"home/ada/.vscode/extensions/extensions.json": `[{"identifier":{"id":"golang.go","uuid":"d6f6cfea"},"version":"0.41.0","location":{"path":"/home/ada/.vscode/extensions/golang.go"},
 "metadata":{"publisherDisplayName":"Go Team","publisherId":"dbf6ae0a","installedTimestamp":1700000000123,"isPreReleaseVersion":false}},{"version":"1"}]`,
		"home/ada/.cursor/extensions/extensions.json":                       `[{"identifier":{"id":"a.b"},"metadata":{"isPreReleaseVersion":true}}]`,
		"home/ada/.vscode-server/extensions/extensions.json":                `{}`,
		"home/bob/.local/share/JetBrains/GoLand2024.3/one.jar":              jar.String(),
		"home/bob/.local/share/JetBrains/PyCharmCE2024.3/big/lib/big-1.jar": jar.String(),
		"home/bob/.local/share/JetBrains/PyCharmCE2024.3/big/lib/a.jar":     "no zip",
		"home/bob/.local/share/JetBrains/consentOptions/x.jar":              jar.String(),
	})
	r := vscodeExtensionsTable(at(dir))
	want := [][]string{
		{"golang.go", "d6f6cfea", "0.41.0", "/home/ada/.vscode/extensions/golang.go", "Go Team", "dbf6ae0a", "1700000000123", "0", "1000", "vscode"},
		{"a.b", "", "", "", "", "", "0", "1", "1000", "cursor"},
	}
	columns := []string{"name", "uuid", "version", "path", "publisher", "publisher_id", "installed_at", "prerelease", "uid", "vscode_edition"}
	if diff := cmp.Diff(want, cells(r, scan(t, r, where(r, "uid", 1000, 1001)), columns...)); diff != "" {
		t.Error(diff)
	}
	j := jetbrainsPluginsTable(at(dir))
	want = [][]string{
		{"goland", "1001", "Osquery & more", "1.3.18", "The Vendor", "/home/bob/.local/share/JetBrains/GoLand2024.3/one.jar"},
		{"pycharm_community_edition", "1001", "Osquery & more", "1.3.18", "The Vendor", "/home/bob/.local/share/JetBrains/PyCharmCE2024.3/big"},
	}
	if diff := cmp.Diff(want, cells(j, scan(t, j, where(j, "uid", 1000, 1001)), "product_type", "uid", "name", "version", "vendor", "path")); diff != "" {
		t.Error(diff)
	}
}

func TestRepositories(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/apt/sources.list": "# deb http://no/ no main\ndeb [arch=amd64 signed-by=/k.gpg] http://deb.debian.org/debian/ bookworm main contrib # x\n" +
			"deb-src https://x_y.example/pool ./\nrpm http://z/ a b\ndeb cdrom\n",
		"etc/apt/sources.list.d/docker.sources": "Types: deb\nURIs: https://download.docker.com/linux/debian\n  https://mirror.example/d\nSuites: bookworm bookworm-x\n" +
			"# Enabled: no\nComponents: stable\n\nEnabled: no\nURIs: http://off/\nSuites: s\n",
		"etc/apt/sources.list.d/old.list.save": "deb http://saved/ s main\n",
		"var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_InRelease": "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\nVersion: 12.5\nCodename: bookworm\n" +
			"Architectures: all amd64\nComponents: main contrib\nSHA256:\n Version: 9\n",
		"var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_main_binary-amd64_Packages": "Version: 8\n",
	})
	r := aptSourcesTable(at(dir))
	list, docker := "/etc/apt/sources.list", "/etc/apt/sources.list.d/docker.sources"
	want := [][]string{
		{"deb.debian.org/debian bookworm", list, "http://deb.debian.org/debian", "bookworm", "12.5", "Debian", "main contrib", "all amd64"},
		{"x_y.example/pool ./", list, "https://x_y.example/pool", "", "", "", "", ""},
		{"download.docker.com/linux/debian bookworm", docker, "https://download.docker.com/linux/debian", "", "", "", "", ""},
		{"download.docker.com/linux/debian bookworm-x", docker, "https://download.docker.com/linux/debian", "", "", "", "", ""},
		{"mirror.example/d bookworm", docker, "https://mirror.example/d", "", "", "", "", ""},
		{"mirror.example/d bookworm-x", docker, "https://mirror.example/d", "", "", "", "", ""},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "name", "source", "base_uri", "release", "version", "maintainer", "components", "architectures")); diff != "" {
		t.Error(diff)
	}
	dir = tree(t, map[string]string{
		"etc/dnf/dnf.conf": "[main]\ngpgcheck=1\nreposdir=/etc/yum.repos.d,/opt/repos\n",
		"etc/yum.repos.d/rocky.repo": "[baseos]\nname=Rocky Linux $releasever - BaseOS\nmirrorlist=https://mirrors/?a=$basearch&b=1;c\n#baseurl=http://x\ngpgcheck=1\nenabled=1\n" +
			"gpgkey=file:///etc/pki/a\n\tfile:///etc/pki/b\n[debug]\nbaseurl = http://d/#frag\nenabled=0\n",
		"opt/repos/own.repo": "[own]\nname=\"Own\"\nbaseurl=http://own/\nnonsense\n", "opt/repos/own.repo.bak": "[bak]\nname=b\n",
	})
	r = yumSourcesTable(at(dir))
	want = [][]string{
		{"Rocky Linux $releasever - BaseOS", "", "https://mirrors/?a=$basearch&b=1;c", "1", "1", "file:///etc/pki/a file:///etc/pki/b"},
		{"debug", "http://d/#frag", "", "0", "", ""},
		{`"Own"`, "http://own/", "", "", "", ""},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "name", "baseurl", "mirrorlist", "enabled", "gpgcheck", "gpgkey")); diff != "" {
		t.Error(diff)
	}
}

func TestContentScripts(t *testing.T) {
	const base = "/home/ada/.config/google-chrome/Default"
	dir := tree(t, map[string]string{
		"etc/passwd": passwd, base[1:] + "/Preferences": "{}",
		base[1:] + "/Extensions/abcdefghijklmnopabcdefghijklmnop/2_0/manifest.json": `{"name":"A","version":"2","content_scripts":[
			{"matches":["<all_urls>","https://bank.example/*"],"js":["a.js","b.js"]},{"matches":["http://x/*"],"css":["c.css"]},{"js":"odd"},7]}`,
		base[1:] + "/Extensions/abcdefghijklmnopabcdefghijklmnop/3_0/manifest.json": `{"name":"B","version":"3"}`,
	})
	r := chromeContentScriptsTable(at(dir))
	var want [][]string
	for _, script := range []string{"a.js", "b.js"} {
		for _, match := range []string{"<all_urls>", "https://bank.example/*"} {
			want = append(want, []string{"chrome", "1000", "abcdefghijklmnopabcdefghijklmnop", "2", script, match, base, base + "/Extensions/abcdefghijklmnopabcdefghijklmnop/2_0", "0"})
		}
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, where(r, "uid", 1000)), "browser_type", "uid", "identifier", "version", "script", "match", "profile_path", "path", "referenced")); diff != "" {
		t.Error(diff)
	}
}

// Manifests are whatever somebody wrote.
func FuzzManifests(f *testing.F) {
	for _, s := range []string{preferences, `{"addons":[{"id":"x"}]}`, `[{"identifier":{"id":"a"}}]`, `{"name":[],"author":{"name":1}}`, "Name: x\nVersion:\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p chromePreferences
		lenient(b, &p)
		s := &scope{root: root{ownRoot}}
		e := &chromeExtension{path: "/nonexistent/goshawk"}
		s.chromeManifest(e, b)
		e.contentScripts()
		parseFirefoxExtensions(b)
		parseVSCodeExtensions(b)
		parsePackageJSON(b)
		parseMetadata(b, &pythonPackage{})
		splitPortage(string(b))
		parseAptLine(string(b))
		parseAptStanzas(b, func(*aptSource) {})
		(&aptSource{}).parseRelease(b)
		_, _ = parseYum(b, func(*yumSource) {})
	})
}
