package table

import (
	"bytes"
	"context"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
)

const maxHosts = 64 << 20 // lists of blocked names run to some ten MiB

// hostEntry is one line of /etc/hosts.
type hostEntry struct {
	address, names string
	pid            int64
}

// parseHosts reads hosts(5): an address, then its names up to a #.
func parseHosts(b []byte) []*hostEntry {
	var out []*hostEntry
	for line := range bytes.Lines(b) {
		line, _, _ = bytes.Cut(line, []byte{'#'})
		words := bytes.Fields(line)
		if len(words) > 0 {
			out = append(out, &hostEntry{
				address: string(words[0]),
				names:   string(bytes.Join(words[1:], []byte{' '})),
			})
		}
	}
	return out
}

func etcHostsTable(env *Env) schema.Relation {
	t := &schema.Table[*hostEntry]{
		Name: "etc_hosts",
		Doc:  "The lines of /etc/hosts.",
		Columns: []schema.Column[*hostEntry]{
			schema.Str("address", func(h *hostEntry) *string { return &h.address }, "IP address"),
			schema.Str("hostnames", func(h *hostEntry) *string { return &h.names }, "Names of that address, separated by a space"),
			schema.Int("pid_with_namespace", func(h *hostEntry) *int64 { return &h.pid }, namespaceDoc, schema.Hidden, schema.Additional).As(schema.Integer),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*hostEntry, error) {
		var rows []*hostEntry
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			b, err := optional(s.readFile("/etc/hosts", maxHosts))
			for _, h := range parseHosts(b) {
				h.pid = s.pid
				rows = append(rows, h)
			}
			return err
		})
		return rows, err
	}
	return t.Bind()
}

// resolver is a row of dns_resolvers.
type resolver struct {
	place
	id                     int64
	kind, address, netmask string
	options                int64
}

// resolverOptions are the bits of the GNU C library's _res.options (resolv.h) that resolv.conf
// can set; those of resolverDefaults are set anyway: initialised, recursion, default domain,
// search.
var resolverOptions = map[string]int64{
	"use-vc": 0x8, "rotate": 0x4000, "edns0": 0x100000, "single-request": 0x200000, "single-request-reopen": 0x400000,
	"no-tld-query": 0x1000000, "no-reload": 0x2000000, "trust-ad": 0x4000000, "no-aaaa": 0x8000000,
}

const (
	resolverDefaults = 0x1 | 0x40 | 0x80 | 0x200
	maxNameservers   = 3 // the C library asks no more (MAXNS)
)

// parseResolvConf reads resolv.conf(5). Of search and domain the last one counts.
func parseResolvConf(b []byte) []*resolver {
	var servers, sorts, search []*resolver
	options := int64(resolverDefaults)
	for line := range bytes.Lines(b) {
		words := strings.Fields(string(line))
		if len(words) < 2 || words[0][0] == '#' || words[0][0] == ';' {
			continue
		}
		switch words[0] {
		case "nameserver":
			if len(servers) < maxNameservers {
				mask := "32"
				if strings.Contains(words[1], ":") {
					mask = "128"
				}
				servers = append(servers, &resolver{id: int64(len(servers)), kind: "nameserver", address: words[1], netmask: mask})
			}
		case "sortlist":
			for _, w := range words[1:] {
				address, mask, _ := strings.Cut(w, "/")
				sorts = append(sorts, &resolver{id: int64(len(sorts)), kind: "sortlist", address: address, netmask: mask})
			}
		case "search", "domain":
			search = nil
			for _, w := range words[1:] {
				search = append(search, &resolver{id: int64(len(search)), kind: "search", address: w})
			}
		case "options":
			for _, w := range words[1:] {
				options |= resolverOptions[w]
			}
		}
	}
	all := append(append(servers, sorts...), search...)
	for _, r := range all {
		r.options = options
	}
	return all
}

func dnsResolversTable(env *Env) schema.Relation {
	type row = *resolver
	t := &schema.Table[row]{
		Name: "dns_resolvers",
		Doc:  "Whom this host asks for names, and in which domains: /etc/resolv.conf.",
		Columns: []schema.Column[row]{
			schema.Int("id", func(r row) *int64 { return &r.id }, "Place among those of its type, from 0").As(schema.Integer),
			schema.Str("type", func(r row) *string { return &r.kind }, "nameserver, sortlist or search"),
			schema.Str("address", func(r row) *string { return &r.address }, "Address, or domain to search"),
			schema.Str("netmask", func(r row) *string { return &r.netmask }, "Netmask, or its length"),
			schema.Int("options", func(r row) *int64 { return &r.options }, "Options as bits of the C library"),
			pidColumn(func(r row) *place { return &r.place }),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		var rows []row
		err := env.eachScope(t.Def(), q, func(s *scope) error {
			b, err := optional(s.readFile("/etc/resolv.conf", maxText))
			for _, r := range parseResolvConf(b) {
				r.place = s.place()
				rows = append(rows, r)
			}
			return err
		})
		return rows, err
	}
	return t.Bind()
}
