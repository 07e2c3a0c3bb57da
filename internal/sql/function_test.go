package sql

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Expectations are literals: from osquery's own tests and documentation where it has
// them, else worked out from its source at 5.23.1.
func TestFunctions(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"tool", "tool -v"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := openEngine(t, Options{})
	tests := []struct{ expr, want string }{
		{"split('192.168.0.1', '.', 1)", "168"},
		{"split('192.168.0.1', '.0', 0)", "192"},
		{"split('192.168.0.1', '.0', 2)", "1"},
		{"split(1001, 1, 0)", "00"},
		{"split(' a , b ,, c', ',', 1)", "b"},
		{"split(' a , b ,, c', ',', 2)", "c"},
		{"split('a', ',', 1)", "NULL"},
		{"split('a,b', ',', -1)", "NULL"},
		{"split('', ',', 0)", "NULL"},
		{"split(NULL, ',', 0)", "NULL"},
		{"split('a', ',', NULL)", "NULL"},
		{"split('a', '', 0)", "error: Invalid input to split function"},

		{`regex_split('192.168.0.1', '\.0', 0)`, "192.168"},
		{`regex_split('192.168.0.1', '\.', 3)`, "1"},
		{"regex_split(1001, '[1-5]', 0)", ""},
		{"regex_split(1001, '[1-5]', 1)", "00"},
		{"regex_split(1001, '[1-5]', 2)", "NULL"},
		{"regex_split('', 'a', 0)", ""},
		{"regex_split('abc', 'x', 0)", "abc"},
		{"regex_split('abc', '', 0)", "error: Invalid input to split function"},
		{"regex_split('abc', '(', 0)", "error: Invalid regex: missing closing ): `(`"},

		{`regex_match('hello world. Goodbye', '(\w+) \w+', 0)`, "hello world"},
		{`regex_match('hello world. Goodbye', '(\w+) \w+', 1)`, "hello"},
		{`regex_match('hello world. Goodbye', '(\w+) \w+', 2)`, "NULL"},
		{`regex_match('hello', '(x)?h', 1)`, ""},
		{`regex_match('hello', 'z', 0)`, "NULL"},
		{`regex_match('hello', 'h', -1)`, "NULL"},
		{`regex_match(NULL, 'h', 0)`, "NULL"},
		{`regex_match('hello', '[', 0)`, "error: Invalid regex: missing closing ]: `[`"},
		{"regex_match('', '" + strings.Repeat("a", 257) + "', 0)", "error: Invalid regex: too big, max size is 256 bytes"},

		{"concat('hello', NULL, ' ', 'world')", "hello world"},
		{"concat()", "NULL"},
		{"concat(NULL, NULL)", ""},
		{"concat(1, 2.5)", "12.5"},
		{"concat_ws(' ', 'hello', NULL, 'world')", "hello world"},
		{"concat_ws(',', 'a', NULL)", "a"},
		{"concat_ws(NULL, 'a', 'b')", "ab"},
		{"concat_ws(',')", "NULL"},
		{"concat_ws()", "error: Missing separator to concat_ws"},

		{"md5('x')", "9dd4e461268c8034f5c8564e155c67a6"},
		{"sha1('x')", "11f6ad8ec52a2984abaafd7c3b516503785c2072"},
		{"sha256('x')", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"},
		{"sha256(NULL)", "NULL"},
		{"sha1('')", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},

		{"to_base64('test')", "dGVzdA=="},
		{"from_base64('dGVzdA==')", "test"},
		{"from_base64('dGV' || char(10) || 'zdA==')", "test"},
		{"from_base64('dGVzdA')", "test"},
		{"from_base64('%%%')", ""},
		{"from_base64(NULL)", "NULL"},
		{"conditional_to_base64('plain text!')", "plain text!"},
		{"conditional_to_base64(char(7) || 'x')", "B3g="},
		{"conditional_to_base64('caf' || char(233))", "Y2Fmw6k="},

		{`inet_aton("1.0.1.5")`, "16777477"},
		{"inet_aton('255.255.255.255')", "4294967295"},
		{"inet_aton('::1')", "NULL"},
		{"inet_aton('1.2.3')", "NULL"},
		{"inet_aton('01.2.3.4')", "NULL"},
		{"inet_aton(NULL)", "NULL"},

		{"in_cidr_block('10.0.0.0/26', '10.0.0.24')", "1"},
		{"in_cidr_block('10.0.0.0/26', '10.0.0.64')", "0"},
		{"in_cidr_block('198.51.100.14/24', '198.51.100.14')", "1"},
		{"in_cidr_block('2a00:a040:019e:f12a:0000:0000:0000:0000/64', '2a00:a040:19e:f12a:658b:3589:b2ba:71a3')", "1"},
		{"in_cidr_block('2001:db8::/48', '2001:db8:0:ffff:ffff:ffff:ffff:ffff')", "1"},
		{"in_cidr_block('fe80::/10', 'fe80::1%eth0')", "1"},
		{"in_cidr_block('10.0.0.0/8', '10.0.0.0')", "1"},
		{"in_cidr_block('10.0.0.0/8', NULL)", "NULL"},
		{"in_cidr_block('10.0.0.0/8', '')", "NULL"},
		{"in_cidr_block('10.0.0.0/8', 'x')", "error: IP address cannot be parsed"},
		{"in_cidr_block('10.0.0.0/8', '::1')", "error: CIDR for IP address v6 cannot be parsed"},
		{"in_cidr_block('::/8', '10.0.0.1')", "error: CIDR for IP address v4 cannot be parsed"},
		{"in_cidr_block('10.0.0.0', '10.0.0.1')", "error: CIDR for IP address v4 cannot be parsed"},
		{"in_cidr_block(10, '10.0.0.1')", "error: CIDR must be a string"},

		{"community_id_v1('66.35.250.204', '128.232.110.120', 80, 34855, 6, 0)", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{"community_id_v1('128.232.110.120', '66.35.250.204', 34855, 80, 6)", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{"community_id_v1('66.35.250.204', '128.232.110.120', 80, 34855, 6, 1)", "1:3V71V58M3Ksw/yuFALMcW0LAHvc="},
		{"community_id_v1('127.0.0.1', 'fe80::14b0:de4a:f8e8:522f', 64, 10, 6)", "1:Jww+Ua4pSUNl9TvSUwvSHL4n93w="},
		{"community_id_v1('fe80::14b0:de4a:f8e8:522f', '127.0.0.1', 10, 64, 6, 0)", "1:Jww+Ua4pSUNl9TvSUwvSHL4n93w="},
		{"community_id_v1('192.168.170.8', '192.168.170.56', 7, 80, 132, 0)", "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ="},
		{"community_id_v1('192.168.1.52', '8.8.8.8', 54585, 53, 17, 1)", "1:Q9We8WO3piVF8yEQBNJF4uiSVrI="},
		{"community_id_v1('66.35.250.204', '2001:0:3238:DFE1:63::FEFB', 80, 2347, 6, 37)", "1:jmJ2ORP31di4mtsQPIKzyoEb3yo="},
		{"community_id_v1('192.168.1.52', 'foo', 10, 53, 17, 0)", "NULL"},
		{"community_id_v1('192.168.1.52', '192.168.1.1', 10, 53, 17, 100000000)", "NULL"},
		{"community_id_v1_strict('192.168.1.52', 'foo', 10, 53, 17, 0)", "error: Community ID daddr cannot be parsed as IP"},
		{"community_id_v1_strict('192.168.1.52', '192.168.1.1', 10, 53, 17, 100000000)", "error: Community ID seed must fit in 2 bytes"},
		{"community_id_v1_strict('192.168.1.52', '192.168.1.1', 70000, 53, 17)", "error: Community ID ports must fit in 2 bytes"},

		{"parent_directory('/usr/bin/ls')", "/usr/bin"},
		{"parent_directory('/ls')", "/"},
		{"parent_directory('ls')", "NULL"},
		{"parent_directory(1)", "error: Invalid inputs to parent_directory, TEXT was expected"},
		{"find_file_path_in_cmd('" + dir + "/tool -v x')", dir + "/tool"},
		{"find_file_path_in_cmd('  " + dir + "/tool')", dir + "/tool"},
		{"find_file_path_in_cmd('\"" + dir + "/tool -v\" x')", ""},
		{"find_file_path_in_cmd('\"" + dir + "/tool -v\" x', 1)", dir + "/tool -v"},
		{"find_file_path_in_cmd('" + dir + "/tool^ -v x', 0, '^')", dir + "/tool -v"},
		{"find_file_path_in_cmd('" + dir + "')", ""},
		{"find_file_path_in_cmd(NULL)", "error: Invalid inputs to find_binary_path_from_cmd"},
		{"is_path_deterministic('" + dir + "/tool -v x')", "0"},
		{"is_path_deterministic('" + dir + "/tool x')", "1"},
		{"is_path_deterministic('/no/such/file x')", "1"},
		{"carve('/etc/passwd')", "error: carving is disabled"},

		{"version_compare('1.0', '<', '1.0.1')", "1"},
		{"version_compare('1.9', '<', '1.10')", "1"},
		{"version_compare('2', '>=', '2')", "1"},
		{"version_compare('1.0', '=', '1.1')", "0"},
		{"version_compare('1:1.0', '>', '2.0', true)", "1"},
		{"version_compare('1.0~rc1', '<', '1.0', true, true, true)", "1"},
		{"version_compare('1.0', '!', '1.1')", "error: Unknown compare operator. Must provide one of the following: (<, <=, =, >=, >)"},
		{"version_compare('1.0', '<')", "error: Must provide two version strings and an operator to compare."},

		{"sqrt(4)", "2"},
		{"power(2, 10)", "1024"},
		{"log(10)", "2.302585092994046"},
		{"log10(1000)", "3"},
		{"exp(0)", "1"},
		{"round(sin(30), 9)", "-0.988031624"},
		{"round(cos(30), 9)", "0.15425145"},
		{"round(tan(30), 9)", "-6.405331197"},
		{"round(cot(30), 9)", "-0.156119952"},
		{"round(asin(.5), 9)", "0.523598776"},
		{"round(acos(.5), 9)", "1.047197551"},
		{"round(atan(.5), 9)", "0.463647609"},
		{"round(radians(60), 9)", "1.047197551"},
		{"round(degrees(1.3), 9)", "74.484513367"},
		{"round(pi(), 9)", "3.141592654"},
		{"typeof(ceil(1.5)) || ceil(1.5)", "integer2"},
		{"typeof(floor(-1.5)) || floor(-1.5)", "integer-2"},
		{"ceil(9007199254740993)", "9007199254740993"},
		{"floor(1e300)", "1e+300"},
		{"ceil(NULL)", "NULL"},
		{"cot(0)", "NULL"},
		{"log(0)", "NULL"},
	}
	for _, tt := range tests {
		t.Run(tt.expr[:min(len(tt.expr), 60)], func(t *testing.T) {
			if want, ok := strings.CutPrefix(tt.want, "error: "); ok {
				if got := queryError(t, e, "SELECT "+tt.expr); got.Text != want {
					t.Errorf("got error %q, want %q", got.Text, want)
				}
				return
			}
			if got := query(t, e, "SELECT "+tt.expr); len(got) != 1 || got[0] != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestVersionOrders compares each pair both ways round.
func TestVersionOrders(t *testing.T) {
	tests := []struct {
		collation, lower, higher string
		equal                    bool
	}{
		{"version", "1.9", "1.10", false},
		{"version", "50.0.0", "50.0.1", false},
		{"version", "", "1", false},
		{"version", "1.0", "1.0.1", false},
		{"version", "1.2", "11.0", false},
		{"version_dpkg", "1.0~rc1", "1.0-1", false},
		{"version_dpkg", "2.0", "1:1.0", false},
		{"version_dpkg", "1:1.0", "2:1.0", false},
		{"version_rhel", "1.0~rc1", "1.0", false},
		{"version_rhel", "1.0", "1.0^git1", false},
		{"version_rhel", "1.0", "1.0-3", true},
		{"version_rhel", "1.0a", "1.0b1", false},
		{"version_arch", "1.0~rc1", "1.0", false},
		{"version_arch", "1.9", "1.10", false},
		{"version_arch", "1.0a", "1.0b1", false},
		{"version_rhel", "1.10", "1.9", false}, // by value, as osquery has it
	}
	for _, tt := range tests {
		order, ok := versionOrders[tt.collation]
		if !ok {
			t.Fatalf("no collation %q", tt.collation)
		}
		up, down := order.compare([]byte(tt.lower), []byte(tt.higher)), order.compare([]byte(tt.higher), []byte(tt.lower))
		if tt.equal && (up != 0 || down != 0) || !tt.equal && (up >= 0 || down <= 0) {
			t.Errorf("%s: %q and %q compare as %d, the other way round %d", tt.collation, tt.lower, tt.higher, up, down)
		}
	}
}
