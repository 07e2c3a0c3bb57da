package table

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"path"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// chromeHomes are the directories of browsers that are Chromium within, below the home
// directory; osquery's list and names, and the places of snap and flatpak.
var chromeHomes = [...]struct{ browser, dir string }{
	{"chrome", ".config/google-chrome"},
	{"chrome_beta", ".config/google-chrome-beta"},
	{"chrome_dev", ".config/google-chrome-unstable"},
	{"brave", ".config/BraveSoftware/Brave-Browser"},
	{"chromium", ".config/chromium"},
	{"chromium", "snap/chromium/common/chromium"},
	{"yandex", ".config/yandex-browser-beta"},
	{"opera", ".config/opera"},
	{"vivaldi", ".config/vivaldi"},
	{"edge", ".config/microsoft-edge"},
	{"edge_beta", ".config/microsoft-edge-beta"},
	{"island", ".config/island"},
	{"chrome", ".var/app/com.google.Chrome/config/google-chrome"},
	{"chromium", ".var/app/org.chromium.Chromium/config/chromium"},
	{"brave", ".var/app/com.brave.Browser/config/BraveSoftware/Brave-Browser"},
}

// maxPreferences bounds a profile's file of settings, which grows with what was visited.
const maxPreferences = 64 << 20

// chromeExtension is a row of chrome_extensions.
type chromeExtension struct {
	uid                                                                 uint32
	browser, profile, profilePath, referencedID, id                     string
	name, version, description, defaultLocale, currentLocale, updateURL string
	author, path, manifest, hash, key                                   string
	permissions, permissionsJSON, optional, optionalJSON                string
	persistent, referenced                                              bool
	fromWebstore, state, installTime                                    string
	installed                                                           int64
}

// chromePreferences is what is read of Preferences and Secure Preferences
// (chrome/common/pref_names.h, extensions/browser/extension_prefs.cc).
type chromePreferences struct {
	Profile    struct{ Name loose }
	Extensions struct {
		Settings, OpSettings map[string]chromeSetting
	}
}

type chromeSetting struct {
	Path         loose
	State        json.RawMessage
	FromWebstore json.RawMessage `json:"from_webstore"`
	InstallTime  json.RawMessage `json:"install_time"`
	FirstInstall json.RawMessage `json:"first_install_time"`
}

// lenient is json.Unmarshal that passes over members of another type.
func lenient(b []byte, into any) bool {
	err := json.Unmarshal(b, into)
	if _, odd := err.(*json.UnmarshalTypeError); odd {
		return true
	}
	return err == nil
}

// scalar is a JSON string, number or truth value as text.
func scalar(b json.RawMessage) string {
	var s string
	if json.Unmarshal(b, &s) == nil {
		return s
	}
	if s = string(b); s == "null" || strings.ContainsAny(s, "{[") {
		return ""
	}
	return s
}

// webkitTime makes unix seconds of Chromium's microseconds since 1601 (base/time/time.h).
func webkitTime(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return max(0, n/1e6-11644473600)
}

// chromeProfiles calls add with the extensions of each profile of one user.
func (s *scope) chromeProfiles(a *account, add func(*chromeExtension)) {
	for _, h := range chromeHomes {
		dir := join(a.home, h.dir)
		profiles := []string{dir} // Opera keeps its one profile there
		for _, name := range s.entries(dir) {
			profiles = append(profiles, path.Join(dir, name))
		}
		for _, profile := range profiles {
			s.chromeProfile(a, h.browser, profile, add)
		}
	}
}

func (s *scope) chromeProfile(a *account, browser, dir string, add func(*chromeExtension)) {
	var name string
	settings := map[string]chromeSetting{} // by identifier
	found := false
	for _, file := range [...]string{"Preferences", "Secure Preferences"} {
		b, err := s.readFile(path.Join(dir, file), maxPreferences)
		if err != nil {
			continue
		}
		var p chromePreferences
		if !lenient(b, &p) {
			continue
		}
		found = true
		if name == "" {
			name = string(p.Profile.Name)
		}
		for _, list := range [...]map[string]chromeSetting{p.Extensions.Settings, p.Extensions.OpSettings} {
			for id, one := range list {
				if one.Path != "" {
					settings[id] = one
				}
			}
		}
	}
	if !found {
		return
	}
	referenced := map[string]string{} // directory to identifier
	for id, one := range settings {
		at := string(one.Path)
		if !strings.HasPrefix(at, "/") {
			at = path.Join(dir, "Extensions", at)
		}
		referenced[path.Clean(at)] = id
	}
	dirs := map[string]bool{}
	for at := range referenced {
		dirs[at] = true
	}
	for _, id := range s.entries(path.Join(dir, "Extensions")) {
		for _, version := range s.entries(path.Join(dir, "Extensions", id)) {
			dirs[path.Join(dir, "Extensions", id, version)] = true
		}
	}
	for _, at := range sortedKeys(dirs) {
		b, err := s.readFile(at+"/manifest.json", maxManifest)
		if err != nil {
			continue
		}
		e := &chromeExtension{uid: a.uid, browser: browser, profile: name, profilePath: dir, path: at}
		if !s.chromeManifest(e, b) {
			continue
		}
		if id, ok := referenced[at]; ok {
			one := settings[id]
			e.referenced, e.referencedID = true, id
			e.state, e.fromWebstore, e.installTime = scalar(one.State), scalar(one.FromWebstore), scalar(one.InstallTime)
			if e.installTime == "" {
				e.installTime = scalar(one.FirstInstall)
			}
			e.installed = webkitTime(e.installTime)
		}
		add(e)
	}
}

// chromeManifest fills in what a manifest.json says (developer.chrome.com, "Manifest file
// format").
func (s *scope) chromeManifest(e *chromeExtension, b []byte) bool {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	var m struct {
		Name, Version, Description, Author, Key loose
		UpdateURL                               loose `json:"update_url"`
		DefaultLocale                           loose `json:"default_locale"`
		CurrentLocale                           loose `json:"current_locale"`
		Background                              struct{ Persistent bool }
		Permissions                             json.RawMessage
		Optional                                json.RawMessage `json:"optional_permissions"`
	}
	var compact bytes.Buffer
	if !lenient(b, &m) || json.Compact(&compact, b) != nil {
		return false
	}
	sum := sha256.Sum256(b)
	e.hash, e.manifest = hex.EncodeToString(sum[:]), compact.String()
	e.version, e.updateURL, e.key = string(m.Version), string(m.UpdateURL), string(m.Key)
	e.defaultLocale, e.currentLocale, e.persistent = string(m.DefaultLocale), string(m.CurrentLocale), m.Background.Persistent
	e.permissions, e.permissionsJSON = jsonList(m.Permissions)
	e.optional, e.optionalJSON = jsonList(m.Optional)
	locale := e.defaultLocale
	if locale == "" {
		locale = e.currentLocale
	}
	say := s.chromeMessages(e.path, locale)
	e.name, e.description, e.author = say(string(m.Name)), say(string(m.Description)), say(string(m.Author))
	e.id = chromeIdentifier(e)
	return true
}

// chromeMessages returns what replaces __MSG_name__ by the text in the extension's own
// language (developer.chrome.com, "chrome.i18n").
func (s *scope) chromeMessages(dir, locale string) func(string) string {
	var messages map[string]struct{ Message loose }
	return func(text string) string {
		name, ok := strings.CutPrefix(text, "__MSG_")
		if !ok {
			return text
		}
		name = strings.TrimSuffix(name, "__")
		if messages == nil {
			if locale == "" || strings.ContainsAny(locale, "/") {
				locale = "en"
			}
			b, err := s.readFile(path.Join(dir, "_locales", locale, "messages.json"), maxManifest)
			if err != nil || !lenient(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), &messages) || messages == nil {
				messages = map[string]struct{ Message loose }{}
			}
		}
		for key, m := range messages {
			if strings.EqualFold(key, name) {
				return string(m.Message)
			}
		}
		return text
	}
}

// chromeIdentifier is the extension's identifier: sixteen bytes of the SHA-256 of its
// public key, or of its path when it has none, in the letters a to p
// (components/crx_file/id_util.cc). An installed one without a key has it as the name of its directory.
func chromeIdentifier(e *chromeExtension) string {
	input := []byte(e.path)
	if key, err := base64.StdEncoding.DecodeString(e.key); err == nil && len(key) > 0 {
		input = key
	} else if dir := path.Base(path.Dir(e.path)); len(dir) == 32 && strings.Trim(dir, "abcdefghijklmnop") == "" {
		return dir
	}
	sum := sha256.Sum256(input)
	id := make([]byte, 0, 32)
	for _, b := range sum[:16] {
		id = append(id, 'a'+b>>4, 'a'+b&15)
	}
	return string(id)
}

// jsonList is a JSON array as text, its members separated by a comma, and as JSON. Members
// that are no strings (permissions with arguments) stay JSON.
func jsonList(b json.RawMessage) (text, list string) {
	var members []json.RawMessage
	if json.Unmarshal(b, &members) != nil {
		return "", "{}"
	}
	words := make([]string, len(members))
	for i, m := range members {
		if words[i] = scalar(m); words[i] == "" {
			words[i] = string(m)
		}
	}
	var compact bytes.Buffer
	_ = json.Compact(&compact, b) // it was read before
	return strings.Join(words, ", "), compact.String()
}

func chromeExtensionsTable(env *Env) schema.Relation {
	type row = *chromeExtension
	text := func(name string, at func(row) *string, doc string, flags ...schema.Flag) schema.Column[row] {
		return schema.Str(name, at, doc, flags...)
	}
	t := &schema.Table[row]{
		Name: "chrome_extensions",
		Doc:  "Extensions of Chrome, Chromium, Edge, Brave and their kin.",
		Columns: []schema.Column[row]{
			text("browser_type", func(e row) *string { return &e.browser }, "Browser: chrome, chromium, brave, edge …"),
			uidColumn(func(e row) *uint32 { return &e.uid }, schema.Index, schema.Optimized),
			text("name", func(e row) *string { return &e.name }, "Extension's name"),
			text("profile", func(e row) *string { return &e.profile }, "Name of the browser's profile"),
			text("profile_path", func(e row) *string { return &e.profilePath }, "Directory of the profile"),
			text("referenced_identifier", func(e row) *string { return &e.referencedID }, "Identifier in the profile's settings"),
			text("identifier", func(e row) *string { return &e.id }, "Identifier made of the manifest's key"),
			text("version", func(e row) *string { return &e.version }, "Version").Collated("version"),
			text("description", func(e row) *string { return &e.description }, "What it is"),
			text("default_locale", func(e row) *string { return &e.defaultLocale }, "Language it falls back on").Alias("locale"),
			text("current_locale", func(e row) *string { return &e.currentLocale }, "Language in use"),
			text("update_url", func(e row) *string { return &e.updateURL }, "Where its updates come from"),
			text("author", func(e row) *string { return &e.author }, "Author"),
			schema.Bool("persistent", func(e row) *bool { return &e.persistent }, "1 when its background page always runs"),
			text("path", func(e row) *string { return &e.path }, "Its directory"),
			text("permissions", func(e row) *string { return &e.permissions }, "What it may do"),
			text("permissions_json", func(e row) *string { return &e.permissionsJSON }, "The same as JSON", schema.Hidden),
			text("optional_permissions", func(e row) *string { return &e.optional }, "What it may ask to do"),
			text("optional_permissions_json", func(e row) *string { return &e.optionalJSON }, "The same as JSON", schema.Hidden),
			text("manifest_hash", func(e row) *string { return &e.hash }, "SHA-256 of its manifest.json").Collated("nocase"),
			schema.Bool("referenced", func(e row) *bool { return &e.referenced }, "1 when the profile's settings know it").As(schema.BigInt),
			text("from_webstore", func(e row) *string { return &e.fromWebstore }, "true when it came from the web store"),
			text("state", func(e row) *string { return &e.state }, "1 when it is enabled"),
			text("install_time", func(e row) *string { return &e.installTime }, "When it was installed, in microseconds since 1601"),
			schema.Int("install_timestamp", func(e row) *int64 { return &e.installed }, "When it was installed, unix seconds"),
			text("manifest_json", func(e row) *string { return &e.manifest }, "Its manifest", schema.Hidden),
			text("key", func(e row) *string { return &e.key }, "Public key in its manifest", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachHome(t.Def(), q, func(s *scope, a *account) error {
			s.chromeProfiles(a, func(e row) { rows = append(rows, e) })
			return ctx.Err()
		})
		return rows, err
	}
	return t.Bind()
}
