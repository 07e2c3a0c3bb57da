package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goshawk-project/goshawk/internal/agent"
	"github.com/goshawk-project/goshawk/internal/container"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// containers are what tells which container an event belongs to.
type containers struct {
	table    *container.Table
	resolver *container.Resolver // nil: no runtime is asked
	trees    []*procfs.CgroupTree
	v2, v1   *procfs.CgroupTree // of the agent's goroutine
}

// openContainers opens the cgroup hierarchies that containers are told by, and what asks
// their runtimes.
func (o *runOptions) openContainers(fs procfs.FS, bootID string, warn func(string)) (c *containers, err error) {
	c = &containers{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	options := container.Options{BootID: bootID, Rows: o.kinds == nil || slices.Contains(o.kinds, event.KindContainer.String())}
	ask := container.ResolverOptions{HostRoot: o.hostRoot, FS: fs, BootID: bootID, Warn: warn}
	if c.v2, ask.V2, err = c.openTree(fs.Cgroup2Hierarchy()); err != nil {
		return c, err
	}
	if c.v1, ask.V1, err = c.openTree(fs.ContainerHierarchy()); err != nil {
		return c, err
	}
	if c.v2 != nil {
		options.V2 = c.v2
	}
	if c.v1 != nil {
		options.V1 = c.v1
	}
	if ask.Endpoints, err = o.endpoints(); err != nil {
		return c, err
	}
	if !slices.Contains(o.runtimes, "none") {
		if c.resolver, err = container.NewResolver(ask); err != nil {
			return c, err
		}
		options.Ask = c.resolver.Ask
	}
	c.table = container.NewTable(options)
	if err := c.table.Walk(); err != nil {
		warn(fmt.Sprintf("containers that run already: %v", err))
	}
	return c, nil
}

// openTree opens a hierarchy twice: for the agent's goroutine, and for those that ask
// runtimes. Nil for none.
func (c *containers) openTree(h procfs.Hierarchy, name string) (own, other *procfs.CgroupTree, err error) {
	if name == "" {
		return nil, nil, nil
	}
	for _, t := range [...]**procfs.CgroupTree{&own, &other} {
		if *t, err = procfs.OpenCgroups(h); err != nil {
			return nil, nil, err
		}
		c.trees = append(c.trees, *t)
	}
	return own, other, nil
}

// endpoints are the sockets that --container-runtime names; nil: those that are found.
func (o *runOptions) endpoints() ([]container.Endpoint, error) {
	if len(o.runtimes) == 1 && (o.runtimes[0] == "auto" || o.runtimes[0] == "none") {
		return nil, nil
	}
	var all []container.Endpoint
	for _, s := range o.runtimes {
		e, err := container.ParseEndpoint(s)
		if err != nil {
			return nil, failf(exitUsage, "--container-runtime: %w; or use auto, or none", err)
		}
		all = append(all, e)
	}
	return all, nil
}

// place puts the cgroups that a process is in now into a header that lacks them.
func (c *containers) place(p *procfs.Process, h *event.Header) {
	lines, err := p.Cgroup()
	if err != nil {
		return
	}
	procfs.EachCgroup(lines, func(l procfs.CgroupLine) {
		switch {
		case c.v2 != nil && l.Hierarchy == 0:
			h.CgroupID, _ = c.v2.ID(string(l.Path))
		case c.v1 != nil && l.Hierarchy == c.v1.Hierarchy.ID:
			h.CgroupV1, _ = c.v1.ID(string(l.Path))
		}
	})
}

// input is what asks runtimes, as the agent takes it.
func (c *containers) inputs() []agent.Input {
	if c.resolver == nil {
		return nil
	}
	return []agent.Input{{Name: "runtime", Source: c.resolver, Counts: c.resolver.Counts, Aside: true}}
}

func (c *containers) close() error {
	var errs []error
	if c.resolver != nil {
		errs = append(errs, c.resolver.Close())
	}
	for _, t := range c.trees {
		errs = append(errs, t.Close())
	}
	return errors.Join(errs...)
}

// inContainer is what --container and --pod let through; nil: everything.
func (o *runOptions) inContainer() func(event.Event) bool {
	if o.container == "" && o.pod == "" {
		return nil
	}
	return func(e event.Event) bool {
		h := e.Head()
		if o.container != "" && h.ContainerName != o.container &&
			(h.ContainerID == "" || !strings.HasPrefix(h.ContainerID, o.container)) {
			return false
		}
		return o.pod == "" || h.PodName == o.pod || h.PodName != "" && h.PodNamespace+"/"+h.PodName == o.pod
	}
}

// both joins two filters, of which either may be nil.
func both(a, b func(event.Event) bool) func(event.Event) bool {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return func(e event.Event) bool { return a(e) && b(e) }
}
