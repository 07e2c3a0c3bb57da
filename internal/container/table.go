package container

import (
	"errors"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

const (
	// DefaultGroups bounds the cgroups remembered; one that is forgotten is found again by
	// its number, as long as it is there.
	DefaultGroups = 1 << 14
	// DefaultContainers bounds the containers known, running and lately ended.
	DefaultContainers = 1 << 12
	// DefaultFactBytes bounds what runtimes said of containers.
	DefaultFactBytes = 8 << 20

	// grace is how long a removed cgroup and an ended container are remembered, for events
	// that come late; in ns of event time.
	grace = 60e9
	// maxLookups bounds look-ups of cgroups in a second; one costs about 5 us.
	maxLookups = 500
	// maxMembers bounds the processes remembered to be in a container.
	maxMembers = 1 << 16
	// maxNamespaces bounds the pid namespaces remembered where cgroups say nothing.
	maxNamespaces = 1 << 10
	// maxTries is how often each of them is asked about: after 1, 2, 4 … s.
	maxTries = 8
)

// Tree finds paths of cgroups; *procfs.CgroupTree is one. See there.
type Tree interface {
	Path(id uint64) (string, error)
	ID(path string) (uint64, error)
	Walk(fn func(id uint64, path string) error) error
}

// Options of a table. Zero bounds take the defaults above.
type Options struct {
	BootID string
	V2, V1 Tree // nil: no such hierarchy is watched
	// Ask passes a request on, and never waits: false when there is no room. Nil: nobody
	// knows more than the kernel.
	Ask func(Request) bool
	// Rows says that the steps in containers' lives are wanted as events.
	Rows bool

	MaxGroups, MaxContainers, MaxFactBytes int
}

// Table knows the containers of this host. It belongs to one goroutine.
type Table struct {
	opt    Options
	now    uint64 // newest NTime seen
	wall   int64  // Time of the event under way
	groups map[key]*group
	ended  []*group // removed cgroups, first removed first

	byID  map[string]*instance // the newest of each id that is nobody's claim
	roots map[root]*instance
	alive map[*instance]bool
	over  []*instance // ended, first ended first
	ns    map[uint32]*namespace

	facts     map[string]*known
	factBytes int
	declared  map[root]*declaration

	members map[uint32]member
	derived []event.Event

	lookupSecond uint64
	lookups      int
	count        tallies
}

// tallies are what the table gave up.
type tallies struct {
	groups, containers, facts, members, limited, unasked uint64
}

// key names a cgroup.
type key struct {
	id uint64
	v1 bool
}

// root names the cgroup that is a container's own.
type root struct {
	path string
	v1   bool
}

// group is a cgroup at one path.
type group struct {
	key
	path  string
	in    *instance // nil: no container's
	born  uint64    // when it was made; 0 before the agent
	died  uint64    // when it was removed; 0 not yet
	older *group    // of the same number, removed before; kernels before 4.14 use numbers again
}

// instance is one life of a container, from the making of its cgroup to the removal.
type instance struct {
	Ref
	facts   *Facts
	roots   [2]string // path of its own cgroup in v2, in v1; empty: none there (any more)
	nested  bool      // inside another container, whose runtime is not ours to ask
	fresh   bool      // its cgroup was made while we watched
	started uint64    // when its first program was executed
	ended   uint64    // when its last cgroup was removed
	created bool      // its making was told
	stopped bool      // its first process has ended
	gone    bool      // no longer in the table

	initPID   uint32
	initNS    uint32 // pid of that process in its own pid namespace
	initStart uint64
}

// known are facts by id, kept for a container that comes, or comes again.
type known struct {
	facts *Facts
	used  uint64 // NTime
}

// declaration is a container that a runtime has announced for a cgroup still to be made.
type declaration struct {
	ref   Ref
	facts *Facts
	at    uint64
}

// namespace is a pid namespace of processes in no cgroup that tells.
type namespace struct {
	in    *instance // nil: not known, or none
	pid   uint32    // of its first process; 0 not seen
	start uint64
	died  uint64
	old   bool   // it was there before the agent
	began uint64 // when its first process executed a program; 0 not seen
	tries uint   // how often it was asked about
	next  uint64 // when to ask again
}

type member struct {
	start uint64
	in    *instance
}

// NewTable returns an empty table.
func NewTable(opt Options) *Table {
	for _, d := range [...]struct {
		at    *int
		value int
	}{{&opt.MaxGroups, DefaultGroups}, {&opt.MaxContainers, DefaultContainers}, {&opt.MaxFactBytes, DefaultFactBytes}} {
		if *d.at <= 0 {
			*d.at = d.value
		}
	}
	return &Table{
		opt: opt, groups: make(map[key]*group), byID: make(map[string]*instance), roots: make(map[root]*instance),
		alive: make(map[*instance]bool), ns: make(map[uint32]*namespace), facts: make(map[string]*known), declared: make(map[root]*declaration),
		members: make(map[uint32]member),
	}
}

// Counts returns what the table gave up so far.
func (t *Table) Counts() []event.Count {
	out := make([]event.Count, 0, 6)
	for _, c := range [...]struct {
		reason string
		n      uint64
	}{
		{"cgroups", t.count.groups}, {"containers", t.count.containers}, {"metadata", t.count.facts},
		{"members", t.count.members}, {"lookup_limit", t.count.limited}, {"request_queue_full", t.count.unasked},
	} {
		out = append(out, event.Count{Source: "containers", What: event.Evicted, Reason: c.reason, N: c.n})
	}
	return out
}

// Len is the number of containers known, running and lately ended, and of cgroups.
func (t *Table) Len() (containers, groups int) { return len(t.alive) + len(t.over), len(t.groups) }

// Derived returns the events that followed from those completed since it was called last.
func (t *Table) Derived() []event.Event {
	out := t.derived
	t.derived = nil
	return out
}

// Walk enters the containers that run already. The hooks are attached by then, so that
// nothing falls between.
func (t *Table) Walk() error {
	var errs []error
	for _, h := range [...]struct {
		tree Tree
		v1   bool
	}{{t.opt.V2, false}, {t.opt.V1, true}} {
		if h.tree == nil {
			continue
		}
		errs = append(errs, h.tree.Walk(func(id uint64, path string) error {
			if r, ok := ParsePath(path); ok && r.Root == path {
				t.add(key{id, h.v1}, path, 0)
			}
			return nil
		}))
	}
	return errors.Join(errs...)
}

// Seed enters a process that runs already, described by the exec that might have made it.
func (t *Table) Seed(e *event.Exec) {
	h := &e.Header
	in := t.of(h)
	if n := t.ns[h.PIDNamespace]; n != nil {
		n.old = true
	}
	if in == nil {
		return
	}
	if h.PIDNamespace == 0 && (e.OtherMount || e.Deleted || e.Memfd) {
		return // the runtime on its way in, as in exec
	}
	t.join(h.PID, h.Start, in)
	if h.ContainerPID == 1 || in.initPID == 0 || in.initNS != 1 && h.Start < in.initStart {
		in.initPID, in.initStart, in.initNS = h.PID, h.Start, h.ContainerPID
		in.started = h.Start
		t.own(h, in)
	}
}

// Complete says which container e belongs to, and reports whether e is to be kept: what
// happens to cgroups that are no containers' is not, nor are facts that are no news.
func (t *Table) Complete(e event.Event) bool {
	h := e.Head()
	if h.NTime > t.now {
		t.now = h.NTime
	}
	t.wall = h.Time
	t.sweep()
	if c, ok := e.(*event.Container); ok {
		return t.container(c) && t.opt.Rows
	}
	in := t.of(h)
	if x, ok := e.(*event.Exec); ok && in == nil && h.PIDNamespace != 0 {
		if in = t.ofMonitor(x); in == nil && h.ContainerPID == 1 {
			if n := t.ns[h.PIDNamespace]; n != nil && n.began == 0 {
				n.began = h.NTime
			}
		}
	}
	if in == nil {
		if len(t.members) > 0 {
			t.leave(h, e)
		}
		return true
	}
	in.fill(h)
	switch e := e.(type) {
	case *event.Exec:
		t.exec(e, in)
	case *event.Fork:
		t.fork(e, in)
	case *event.Exit:
		t.exit(e, in)
	case *event.File:
		if f := in.facts; f != nil && f.RootPath != "" {
			if rest, ok := strings.CutPrefix(e.TargetPath, f.RootPath); ok && strings.HasPrefix(rest, "/") {
				e.ContainerPath = rest
			}
		}
	}
	return true
}

// leave forgets a process that was in a container and is not, or is gone.
func (t *Table) leave(h *event.Header, e event.Event) {
	switch e.(type) {
	case *event.Exec, *event.Exit:
		delete(t.members, h.PID)
	}
}

func (in *instance) fill(h *event.Header) {
	h.ContainerID = in.ID
	if f := in.facts; f != nil {
		h.ContainerName, h.Image, h.PodName, h.PodNamespace = f.Name, f.Image, f.PodName, f.PodNamespace
	}
}

// of finds the container of the process in h: by its cgroup, else by its pid namespace.
func (t *Table) of(h *event.Header) *instance {
	var two, one *group
	if h.CgroupID != 0 {
		if two = t.group(key{h.CgroupID, false}, h.NTime); two != nil && two.in != nil {
			return two.in
		}
	}
	if h.CgroupV1 != 0 {
		if one = t.group(key{h.CgroupV1, true}, h.NTime); one != nil && one.in != nil {
			return one.in
		}
	}
	if h.PIDNamespace == 0 {
		return nil
	}
	// A pid namespace, and a cgroup that says nothing: one that a runtime was told to use.
	for _, g := range [...]*group{two, one} {
		if g == nil || g.path == "" {
			continue
		}
		if r, ok := Guess(g.path); ok {
			return t.guess(g, r, h)
		}
	}
	return t.ofNamespace(h)
}

// group returns the cgroup that had a number at a time; nil when it is not known, or is
// younger than that.
func (t *Table) group(k key, at uint64) *group {
	g := t.groups[k]
	if g == nil {
		return t.look(k)
	}
	for ; g != nil; g = g.older {
		if g.born <= at || at == 0 {
			return g
		}
	}
	return nil
}

// look asks the kernel for a cgroup that was made before the agent came, or was forgotten.
func (t *Table) look(k key) *group {
	tree := t.opt.V2
	if k.v1 {
		tree = t.opt.V1
	}
	if tree == nil {
		return nil
	}
	if s := t.now / 1e9; s != t.lookupSecond {
		t.lookupSecond, t.lookups = s, 0
	}
	if t.lookups >= maxLookups {
		t.count.limited++
		return nil
	}
	t.lookups++
	path, err := tree.Path(k.id)
	if err != nil && !errors.Is(err, procfs.ErrGone) {
		path = ""
	}
	g := t.add(k, path, 0)
	if err != nil { // nothing more will be known of it
		t.bury(g, t.now)
	}
	return g
}

// add enters a cgroup, and the container that it is or is part of.
func (t *Table) add(k key, path string, born uint64) *group {
	g := &group{key: k, path: path, born: born}
	if have := t.groups[k]; have != nil {
		if have.died == 0 {
			t.bury(have, born) // its removal was missed
		}
		g.older = have
	} else if len(t.groups) >= t.opt.MaxGroups {
		t.evictGroup()
	}
	t.groups[k] = g
	t.classify(g)
	return g
}

// evictGroup forgets one cgroup: one that was removed if there is one, else any.
func (t *Table) evictGroup() {
	t.count.groups++
	if len(t.ended) > 0 {
		t.forget(t.ended[0])
		t.ended = t.ended[1:]
		return
	}
	for k := range t.groups {
		delete(t.groups, k)
		return
	}
}

// bury notes that a cgroup was removed.
func (t *Table) bury(g *group, at uint64) {
	if g.died == 0 {
		g.died = max(at, 1)
		t.ended = append(t.ended, g)
	}
}

// forget takes a removed cgroup out.
func (t *Table) forget(g *group) {
	for at := t.groups[g.key]; at != nil; at = at.older {
		switch {
		case at == g && t.groups[g.key] == g:
			delete(t.groups, g.key) // those older were removed before, and are out already
			return
		case at.older == g:
			at.older = nil
			return
		}
	}
}

// sweep forgets what ended long ago.
func (t *Table) sweep() {
	for len(t.ended) > 0 && t.ended[0].died+grace < t.now {
		t.forget(t.ended[0])
		t.ended[0] = nil
		t.ended = t.ended[1:]
	}
	for len(t.over) > 0 && t.over[0].ended+grace < t.now {
		t.drop(t.over[0])
		t.over[0] = nil
		t.over = t.over[1:]
	}
}

// classify finds the container of a new cgroup.
func (t *Table) classify(g *group) {
	if g.path == "" {
		return
	}
	r, ok := ParsePath(g.path)
	if !ok {
		g.in = t.above(g)
		return
	}
	outer, nested := ParsePath(r.Root[:strings.LastIndexByte(r.Root, '/')])
	at := root{r.Root, g.v1}
	if in := t.roots[at]; in != nil {
		if g.path != r.Root || g.born == 0 {
			g.in = in
			return
		}
		t.uproot(at, g.born, nil) // another has taken its place, and its removal was missed
	}
	switch have := t.byID[r.ID]; {
	case have != nil && have.ended == 0 && have.nested == nested && have.roots[side(g.v1)] == "":
		g.in = have // the same container in the other hierarchy
	case have != nil && have.ended == 0 && nested && !have.nested:
		// Who may make cgroups in a container could claim to be any other. Believe the outer.
		r, nested = outer, false
		at = root{r.Root, g.v1}
		if g.in = t.roots[at]; g.in == nil {
			g.in = t.make(r, g, nested)
			t.inquire(g.in, g)
		}
	default:
		g.in = t.make(r, g, nested)
		t.inquire(g.in, g)
	}
	t.settle(g.in, at)
}

// settle makes a cgroup a container's own.
func (t *Table) settle(in *instance, at root) {
	t.roots[at] = in
	in.roots[side(at.v1)] = at.path
}

func side(v1 bool) int {
	if v1 {
		return 1
	}
	return 0
}

// above finds the container that a cgroup of another form is part of: its own root was
// declared by a runtime, or guessed.
func (t *Table) above(g *group) *instance {
	if len(t.declared) > 0 {
		if d := t.declared[root{g.path, g.v1}]; d != nil && g.born >= d.at {
			delete(t.declared, root{g.path, g.v1})
			in := t.twin(d.ref.ID, g)
			if in != nil {
				return in
			}
			in = t.make(d.ref, g, false)
			in.facts = d.facts
			t.settle(in, root{g.path, g.v1})
			t.inquire(in, g)
			return in
		}
	}
	for path := g.path; path != ""; path = path[:strings.LastIndexByte(path, '/')] {
		if in := t.roots[root{path, g.v1}]; in != nil {
			return in
		}
		if strings.LastIndexByte(path, '/') < 0 {
			break
		}
	}
	return nil
}

// make makes an instance, with what was said of its id before.
func (t *Table) make(r Ref, g *group, nested bool) *instance {
	if len(t.alive)+len(t.over) >= t.opt.MaxContainers {
		t.evict()
	}
	in := &instance{Ref: r, nested: nested, fresh: g.born != 0}
	t.alive[in] = true
	if have := t.byID[r.ID]; !nested || have == nil || have.ended != 0 {
		t.byID[r.ID] = in
	}
	switch k := t.facts[r.ID]; {
	case !lasting(r.ID): // its id is what people call it
		in.facts = &Facts{Runtime: r.Runtime, Name: text(r.ID), PodUID: r.PodUID}
	case k != nil && !nested:
		in.facts, k.used = k.facts, t.now
	}
	return in
}

// inquire asks about a container of which nothing is known. One inside another is unknown
// to the runtimes of this host, or an impostor.
func (t *Table) inquire(in *instance, g *group) {
	if in.nested || lasting(in.ID) && in.facts.whole() || in.Runtime == LXC || in.Runtime == Nspawn || in.Runtime == LibvirtLXC {
		return
	}
	q := Request{Ref: in.Ref, V1: g.v1}
	if g.path == in.Root {
		q.Cgroup = g.id
	}
	t.ask(q)
}

func (t *Table) ask(q Request) bool {
	if t.opt.Ask == nil {
		return false
	}
	if !t.opt.Ask(q) {
		t.count.unasked++
		return false
	}
	return true
}

// evict forgets a container to make room: the first that ended, else any.
func (t *Table) evict() {
	t.count.containers++
	if len(t.over) > 0 {
		t.drop(t.over[0])
		t.over = t.over[1:]
		return
	}
	for in := range t.alive {
		t.drop(in)
		return
	}
}

// drop takes an instance out of everything that finds it.
func (t *Table) drop(in *instance) {
	in.gone = true
	if t.byID[in.ID] == in {
		delete(t.byID, in.ID)
	}
	for i, v1 := range [...]bool{false, true} {
		if at := (root{in.roots[i], v1}); t.roots[at] == in {
			delete(t.roots, at)
		}
	}
	delete(t.alive, in)
	if in.ended == 0 { // it runs: its cgroups must be able to find it again
		for k, g := range t.groups {
			if g.in == in {
				delete(t.groups, k)
			}
		}
	}
}
