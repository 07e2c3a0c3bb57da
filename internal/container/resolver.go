package container

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// Endpoint is the socket of a runtime, as --container-runtime names it.
type Endpoint struct {
	Runtime string // docker, podman, containerd or cri-o
	Path    string
}

// ParseEndpoint reads RUNTIME=PATH.
func ParseEndpoint(s string) (Endpoint, error) {
	runtime, path, ok := strings.Cut(s, "=")
	switch {
	case !ok || !filepath.IsAbs(path):
		return Endpoint{}, fmt.Errorf("%q is not RUNTIME=PATH with an absolute path", s)
	case runtime != Docker && runtime != Podman && runtime != Containerd && runtime != CRIO:
		return Endpoint{}, fmt.Errorf("no runtime is called %q; runtimes are docker, podman, containerd, cri-o", runtime)
	}
	return Endpoint{runtime, path}, nil
}

// wellKnown are where runtimes listen, below the host's root; unit is the service that
// systemd may start for one.
var wellKnown = []struct {
	Endpoint
	unit string
}{
	{Endpoint{Docker, "/run/docker.sock"}, "docker"},
	{Endpoint{Podman, "/run/podman/podman.sock"}, "podman"},
	{Endpoint{Containerd, "/run/containerd/containerd.sock"}, "containerd"},
	{Endpoint{Containerd, "/run/k3s/containerd/containerd.sock"}, ""},
	{Endpoint{Containerd, "/run/k0s/containerd.sock"}, ""},
	{Endpoint{Containerd, "/var/snap/microk8s/common/run/containerd.sock"}, ""},
	{Endpoint{CRIO, "/run/crio/crio.sock"}, "crio"},
	{Endpoint{Docker + "-cri", "/run/cri-dockerd.sock"}, "cri-docker"},
}

// ResolverOptions say whom a resolver asks.
type ResolverOptions struct {
	HostRoot  string     // where the host's root directory is, "" for /
	Endpoints []Endpoint // instead of those that are found
	FS        procfs.FS
	BootID    string
	// V2, V1 are trees of the resolver's own; nil: no such hierarchy is watched.
	V2, V1 *procfs.CgroupTree
	Warn   func(string)
}

// Resolver learns from runtimes what containers are called. It only reads. What it learns
// are events of kind container, operation amend, which the Table completes.
type Resolver struct {
	opt      ResolverOptions
	requests chan Request

	files *files
	out   chan<- *event.Batch
	ctx   context.Context
	wait  sync.WaitGroup

	mu      sync.Mutex
	dockers map[Endpoint]*DockerAPI
	cris    map[Endpoint]*criAPI
	failing map[Endpoint]time.Time // not asked until then
	trees   sync.Mutex             // guards opt.V2 and opt.V1

	waiting atomic.Int32 // containers that are asked about again
	count   struct{ asked, answered, unknown, failed, tooLarge, told atomic.Uint64 }
}

const (
	// maxRequests may wait for an answer; a node starts a few hundred containers at once.
	maxRequests = 1024
	// askers are how many requests are worked on at once, so that a runtime that hangs does
	// not keep the others from answering.
	askers = 4
	// maxWaiting is how many containers that nobody knew are asked about again.
	maxWaiting = 256
	// rest is how long a runtime that did not answer in time is left alone.
	rest = 30 * time.Second
	// lookAround is how often sockets and directories of runtimes are looked for.
	lookAround = 5 * time.Second
	// maxDetails bounds the containers that one runtime is asked about in detail at start.
	maxDetails = 4096
)

// retries are the pauses after which a container that nobody knew is asked about again: it
// may be made before its runtime writes down who it is.
var retries = [...]time.Duration{100 * time.Millisecond, 400 * time.Millisecond, 2 * time.Second, 10 * time.Second}

// NewResolver returns a resolver that Run starts.
func NewResolver(opt ResolverOptions) (*Resolver, error) {
	f, err := openFiles(opt.HostRoot)
	if err != nil {
		return nil, err
	}
	if opt.Warn == nil {
		opt.Warn = func(string) {}
	}
	return &Resolver{
		opt: opt, requests: make(chan Request, maxRequests), files: f,
		dockers: make(map[Endpoint]*DockerAPI), cris: make(map[Endpoint]*criAPI), failing: make(map[Endpoint]time.Time),
	}, nil
}

// Ask takes a request without waiting; false when too many wait already.
func (r *Resolver) Ask(q Request) bool {
	select {
	case r.requests <- q:
		return true
	default:
		return false
	}
}

// Counts returns what was asked, and what came of it.
func (r *Resolver) Counts() []event.Count {
	var out []event.Count
	for _, c := range [...]struct {
		what, reason string
		n            *atomic.Uint64
	}{
		{event.Delivered, "", &r.count.told},
		{event.Failed, "unknown", &r.count.unknown}, {event.Failed, "no_answer", &r.count.failed}, {event.Failed, "too_large", &r.count.tooLarge},
	} {
		out = append(out, event.Count{Source: "runtime", Kind: event.KindContainer, What: c.what, Reason: c.reason, N: c.n.Load()})
	}
	return out
}

// Close lets go of what New opened. Run must have returned.
func (r *Resolver) Close() error { return r.files.close() }

// Run learns until ctx ends. All goroutines of the resolver end before it returns.
func (r *Resolver) Run(ctx context.Context, out chan<- *event.Batch) error {
	r.ctx, r.out = ctx, out
	for range askers {
		r.wait.Go(r.serve)
	}
	w, err := newWatcher(r)
	if err != nil {
		r.opt.Warn(fmt.Sprintf("containers: %v: those without a runtime's socket may stay without a name", err))
	} else {
		r.wait.Go(w.run)
	}
	r.wait.Go(r.discover)
	r.wait.Wait()
	if w != nil {
		w.close()
	}
	return nil
}

// sleep waits, or returns false when the resolver is to end.
func (r *Resolver) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.ctx.Done():
		return false
	}
}

// about is what tells of whom facts are.
type about struct {
	id     string
	ref    Ref
	cgroup uint64
	v1     bool
	ns     uint32
}

// tell sends facts on the way of all events.
func (r *Resolver) tell(a about, f *Facts) {
	b := event.NewBatch()
	e := b.Add(event.KindContainer).(*event.Container)
	e.Operation = event.ContainerAmend
	e.NTime, e.Time = event.BootNow(), time.Now().UnixNano()
	e.Source, e.Fidelity, e.BootID = "runtime", event.FidelityState, r.opt.BootID
	e.UID, e.GID, e.EUID, e.EGID, e.AUID, e.Session = unset, unset, unset, unset, unset, unset
	describe(e, &Ref{ID: a.id, Runtime: a.ref.Runtime, PodUID: a.ref.PodUID, Root: a.ref.Root}, f)
	e.ContainerID, e.Cgroup, e.PIDNamespace = a.id, a.cgroup, a.ns
	if a.v1 {
		e.Hierarchy = 1
	}
	select {
	case r.out <- b:
		r.count.told.Add(1)
	case <-r.ctx.Done():
		b.Release()
	}
}

// discover finds the sockets of runtimes, and follows each.
func (r *Resolver) discover() {
	followed := map[Endpoint]bool{}
	for {
		var found []Endpoint
		if r.opt.Endpoints != nil {
			found = r.opt.Endpoints
		} else {
			for _, w := range wellKnown {
				if r.files.isSocket(w.Path) && (w.unit == "" || !systemdActivates(r.files, w.unit)) {
					found = append(found, w.Endpoint)
				}
			}
		}
		for _, e := range found {
			if !followed[e] {
				followed[e] = true
				r.wait.Go(func() { r.follow(e) })
			}
		}
		if !r.sleep(lookAround) {
			return
		}
	}
}

// follow keeps in touch with one runtime.
func (r *Resolver) follow(e Endpoint) {
	pause := time.Second
	warned := false
	for {
		began := time.Now()
		err := r.connect(e)
		if r.ctx.Err() != nil {
			return
		}
		if err != nil && !warned && !isGone(err) {
			warned = true
			r.opt.Warn(fmt.Sprintf("containers: %s: %v; trying again", e.Runtime, err))
		}
		r.failed(err)
		if time.Since(began) > time.Minute {
			pause = time.Second
		}
		if !r.sleep(pause) {
			return
		}
		pause = min(2*pause, rest)
	}
}

// failed counts a question without an answer.
func (r *Resolver) failed(err error) {
	switch {
	case err == nil || errors.Is(err, context.Canceled) || errors.Is(err, errNone) || isGone(err):
	case errors.Is(err, errTooLarge):
		r.count.tooLarge.Add(1)
	default:
		r.count.failed.Add(1)
	}
}

// connect asks one runtime for what runs, and listens to it until that ends.
func (r *Resolver) connect(e Endpoint) error {
	path := r.files.at(e.Path)
	switch e.Runtime {
	case Docker, Podman:
		d := NewDocker(path)
		defer d.Close()
		return r.docker(e, d)
	}
	c := &criAPI{s: dial(path, true), runtime: strings.TrimSuffix(e.Runtime, "-cri")}
	defer c.s.close()
	return r.cri(e, c)
}

// docker follows Docker's or podman's stream of events.
func (r *Resolver) docker(e Endpoint, d *DockerAPI) error {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	ended := make(chan error, 1)
	r.wait.Go(func() {
		ended <- d.events(ctx, func(v *dockerEvent) {
			if v.Type == "container" && lasting(v.Actor.ID) {
				r.dockerEvent(ctx, e.Runtime, d, v)
			}
		})
	})
	list, err := d.Containers(ctx, false)
	if err == nil {
		r.mu.Lock()
		r.dockers[e] = d
		r.mu.Unlock()
		defer func() {
			r.mu.Lock()
			delete(r.dockers, e)
			r.mu.Unlock()
		}()
		for i := range list {
			if c := &list[i]; lasting(c.ID) {
				r.tell(about{id: c.ID}, c.facts(e.Runtime))
			}
		}
		for i := range list[:min(len(list), maxDetails)] {
			if c := &list[i]; lasting(c.ID) && ctx.Err() == nil {
				if err = r.dockerDetails(ctx, e.Runtime, d, c.ID); err != nil && !errors.Is(err, errNone) {
					break
				}
			}
		}
	}
	if err != nil && !errors.Is(err, errNone) {
		cancel()
		<-ended
		return err
	}
	return <-ended
}

// dockerEvent takes what an event says by itself, at once: the container may be gone before
// anybody could ask about it.
func (r *Resolver) dockerEvent(ctx context.Context, runtime string, d *DockerAPI, v *dockerEvent) {
	switch v.Action {
	case "create", "rename", "update": // when it starts, its cgroup is made, and somebody asks
	default:
		return
	}
	if v.Action != "rename" || v.Actor.Attributes["name"] != "" {
		r.tell(about{id: v.Actor.ID}, v.facts(runtime))
	}
	if err := r.dockerDetails(ctx, runtime, d, v.Actor.ID); err != nil {
		r.failed(err)
	}
}

func (r *Resolver) dockerDetails(ctx context.Context, runtime string, d *DockerAPI, id string) error {
	f, err := d.about(ctx, runtime, id)
	if err == nil {
		r.tell(about{id: id}, f)
	}
	return err
}

// cri lists what runs, and stays for requests. Containers that start later are asked about
// when their cgroup is made: a kubelet removes none so soon that it could not be found.
func (r *Resolver) cri(e Endpoint, c *criAPI) error {
	list, err := c.list(r.ctx)
	var status *grpcError
	if err != nil && !(errors.As(err, &status) && status.code == grpcUnimplemented) {
		return err // a containerd whose CRI is switched off still knows its own containers
	}
	for i := range list {
		if x := &list[i]; lasting(x.id) {
			r.tell(about{id: x.id}, x.facts(c.runtime))
		}
	}
	r.mu.Lock()
	r.cris[e] = c
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.cris, e)
		r.mu.Unlock()
	}()
	for i := range list[:min(len(list), maxDetails)] {
		if x := &list[i]; lasting(x.id) && r.ctx.Err() == nil {
			full, err := c.get(r.ctx, x.id)
			if err != nil && !errors.Is(err, errNone) {
				return err
			}
			if err == nil && full.id == x.id {
				r.tell(about{id: x.id}, full.facts(c.runtime))
			}
		}
	}
	for r.sleep(rest) {
		if _, err := c.s.call(r.ctx, "/runtime.v1.RuntimeService/Version", nil, maxAnswer); err != nil && !errors.As(err, &status) {
			return err
		}
	}
	return r.ctx.Err()
}

// serve works on requests.
func (r *Resolver) serve() {
	dir, err := r.opt.FS.Open()
	if err != nil {
		r.opt.Warn(fmt.Sprintf("containers: %v", err))
		return
	}
	defer dir.Close()
	for {
		select {
		case q := <-r.requests:
			r.count.asked.Add(1)
			if r.answer(dir, q) {
				r.count.answered.Add(1)
				continue
			}
			if r.waiting.Add(1) > maxWaiting {
				r.waiting.Add(-1)
				r.count.unknown.Add(1)
				continue
			}
			r.wait.Go(func() {
				defer r.waiting.Add(-1)
				r.again(q)
			})
		case <-r.ctx.Done():
			return
		}
	}
}

// again asks a few times more.
func (r *Resolver) again(q Request) {
	dir, err := r.opt.FS.Open()
	if err != nil {
		return
	}
	defer dir.Close()
	for _, pause := range retries {
		if !r.sleep(pause) {
			return
		}
		if q.Cgroup != 0 && !lasting(q.ID) && !r.stands(q) {
			break // it is over, and its name may be another's soon
		}
		if r.answer(dir, q) {
			r.count.answered.Add(1)
			return
		}
	}
	r.count.unknown.Add(1)
}

// stands reports whether the cgroup of a request is still there.
func (r *Resolver) stands(q Request) bool {
	id, err := r.number(q.Root, q.V1)
	return err == nil && id == q.Cgroup
}

func (r *Resolver) number(path string, v1 bool) (uint64, error) {
	tree := r.opt.V2
	if v1 {
		tree = r.opt.V1
	}
	if tree == nil {
		return 0, procfs.ErrGone
	}
	r.trees.Lock()
	defer r.trees.Unlock()
	return tree.ID(path)
}

// answer finds out about one container; false when nobody knows it (yet).
func (r *Resolver) answer(dir *procfs.Dir, q Request) bool {
	switch {
	case q.PIDNamespace != 0:
		return r.answerProcess(dir, q)
	case lasting(q.ID):
		f := r.askRuntimes(q)
		if f == nil || f.Confinement == (event.Confinement{}) || f.RootPath == "" {
			if more := r.readBundles(q.ID); more != nil && f != nil {
				f = f.merge(more)
			} else if more != nil {
				f = more
			}
		}
		if f == nil && q.Cgroup != 0 {
			f = r.ofRootless(dir, q)
		}
		if f == nil {
			return false
		}
		r.tell(about{id: q.ID}, f)
		return f.Image != "" // else somebody may know it who is not connected yet
	}
	return r.answerNamed(q)
}

// askRuntimes asks those whose sockets are known, first the one whose name the path bore.
func (r *Resolver) askRuntimes(q Request) *Facts {
	r.mu.Lock()
	now := time.Now()
	type docker struct {
		Endpoint
		api *DockerAPI
	}
	type cri struct {
		Endpoint
		api *criAPI
	}
	var dockers []docker
	var cris []cri
	for e, d := range r.dockers {
		if r.failing[e].Before(now) {
			dockers = append(dockers, docker{e, d})
		}
	}
	for e, c := range r.cris {
		if r.failing[e].Before(now) {
			cris = append(cris, cri{e, c})
		}
	}
	r.mu.Unlock()
	bad := func(e Endpoint, err error) {
		if err == nil || errors.Is(err, errNone) || r.ctx.Err() != nil {
			return
		}
		r.failed(err)
		var status *grpcError
		if !errors.As(err, &status) {
			r.mu.Lock()
			r.failing[e] = time.Now().Add(rest)
			r.mu.Unlock()
		}
	}
	for _, d := range dockers {
		if q.Runtime != "" && q.Runtime != d.Runtime {
			continue
		}
		f, err := d.api.about(r.ctx, d.Runtime, q.ID)
		bad(d.Endpoint, err)
		if err == nil {
			return f
		}
	}
	for _, c := range cris {
		if q.Runtime != "" && q.Runtime != c.api.runtime {
			continue
		}
		x, err := c.api.get(r.ctx, q.ID)
		bad(c.Endpoint, err)
		if err == nil && x.id == q.ID {
			return x.facts(c.api.runtime)
		}
	}
	return nil
}
