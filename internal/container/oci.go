package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// What one text may hold. A runtime's answer is untrusted: it repeats what images and users
// say, and may come from somebody who is no runtime at all.
const (
	maxName   = 4096     // names, images, paths
	maxLabels = 32 << 10 // all labels of a container as JSON
)

// spec is the part of an OCI runtime configuration (config.json of the runtime-spec, 1.0 to
// 1.2) that says how far a container is kept from its host.
type spec struct {
	Annotations map[string]string `json:"annotations"`
	Root        struct {
		Path string `json:"path"`
	} `json:"root"`
	Process struct {
		Capabilities struct {
			Bounding []string `json:"bounding"`
		} `json:"capabilities"`
	} `json:"process"`
	Mounts []struct {
		Source string `json:"source"`
		Type   string `json:"type"`
	} `json:"mounts"`
	Linux struct {
		CgroupsPath string          `json:"cgroupsPath"`
		MaskedPaths []string        `json:"maskedPaths"`
		Seccomp     json.RawMessage `json:"seccomp"`
		Namespaces  []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
	} `json:"linux"`
}

// specFacts reads a configuration that lies in the directory bundle.
func specFacts(data []byte, bundle string) (*Facts, *spec, error) {
	var s spec
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, nil, fmt.Errorf("read OCI configuration: %w", err)
	}
	f := s.facts()
	if s.Root.Path != "" {
		if !filepath.IsAbs(s.Root.Path) {
			s.Root.Path = filepath.Join(bundle, s.Root.Path)
		}
		f.RootPath = text(s.Root.Path)
	}
	return f, &s, nil
}

// Annotations by which runtimes and those above them tell of themselves.
const (
	criName      = "io.kubernetes.cri.container-name"
	criKind      = "io.kubernetes.cri.container-type"
	criImage     = "io.kubernetes.cri.image-name"
	criPod       = "io.kubernetes.cri.sandbox-name"
	criNamespace = "io.kubernetes.cri.sandbox-namespace"
	criUID       = "io.kubernetes.cri.sandbox-uid"

	crioName      = "io.kubernetes.cri-o.ContainerName"
	crioImage     = "io.kubernetes.cri-o.ImageName"
	crioPod       = "io.kubernetes.pod.name"
	crioNamespace = "io.kubernetes.pod.namespace"
	crioUID       = "io.kubernetes.pod.uid"

	imageRef      = "org.opencontainers.image.ref.name"
	nerdctlName   = "nerdctl/name"
	manager       = "io.container.manager"
	podmanManager = "libpod"
)

func (s *spec) facts() *Facts {
	a := s.Annotations
	first := func(names ...string) string {
		for _, n := range names {
			if v := a[n]; v != "" {
				return text(v)
			}
		}
		return ""
	}
	f := &Facts{
		Name: first(criName, crioName, nerdctlName), Image: first(criImage, crioImage, imageRef),
		PodName: first(criPod, crioPod), PodNamespace: first(criNamespace, crioNamespace), PodUID: first(criUID, crioUID),
		Labels: labels(a, func(name string) bool {
			return !strings.HasPrefix(name, "io.kubernetes.cri") && name != manager
		}),
	}
	switch {
	case a[manager] == podmanManager:
		f.Runtime = Podman
	case a[manager] == "cri-o" || a[crioName] != "":
		f.Runtime = CRIO
	case a[criKind] != "":
		f.Runtime = Containerd
	}
	if f.Name == "" && a[criKind] == "sandbox" {
		f.Name = f.PodName
	}
	f.Confinement = s.confinement()
	return f
}

// hostNamespaces are those whose sharing lets a container see or reach its host, in the
// words of the runtime-spec.
var hostNamespaces = [...]string{"ipc", "mount", "network", "pid", "uts"}

// leading are capabilities that lead out of a container, or to its host's memory, kernel
// and files; sorted.
var leading = []string{"BPF", "DAC_READ_SEARCH", "MAC_ADMIN", "MAC_OVERRIDE", "NET_ADMIN", "PERFMON", "SYS_ADMIN",
	"SYS_BOOT", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO"}

func (s *spec) confinement() event.Confinement {
	c := event.Confinement{Privileged: event.No}
	var shared []string
	for _, kind := range hostNamespaces {
		own := false
		for _, n := range s.Linux.Namespaces {
			if n.Type == kind && !strings.HasPrefix(n.Path, "/proc/1/ns/") {
				own = true
			}
		}
		if !own {
			shared = append(shared, kind)
		}
	}
	c.HostNamespaces = strings.Join(shared, ",")
	c.Capabilities = capabilities(s.Process.Capabilities.Bounding)
	// --privileged, in its runtimes' own words: nothing is masked, no call is filtered, and
	// whoever is root there may mount.
	filtered := len(s.Linux.Seccomp) > 0 && !bytes.Equal(s.Linux.Seccomp, []byte("null"))
	if strings.Contains(c.Capabilities, "SYS_ADMIN") && len(s.Linux.MaskedPaths) == 0 && !filtered {
		c.Privileged = event.Yes
	}
	for _, m := range s.Mounts {
		if leadsToSocket(m.Source) {
			c.RuntimeSocket = text(m.Source)
			break
		}
	}
	return c
}

// capabilities picks those that lead out of a container from names with or without CAP_.
func capabilities(names []string) string {
	var out []string
	for _, n := range names {
		n = strings.TrimPrefix(strings.ToUpper(n), "CAP_")
		if n == "ALL" {
			return strings.Join(leading, ",")
		}
		if slices.Contains(leading, n) && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// leadsToSocket reports whether a mounted file or directory of the host is, or holds, the
// socket of a container runtime: who can write to one is root on the host.
func leadsToSocket(source string) bool {
	switch filepath.Clean(source) {
	case "/", "/run", "/var", "/var/run", "/run/containerd", "/run/podman", "/run/crio", "/var/run/podman":
		return true
	}
	switch filepath.Base(source) {
	case "docker.sock", "podman.sock", "containerd.sock", "crio.sock", "cri-dockerd.sock", "buildkitd.sock":
		return true
	}
	return false
}

// labels is a JSON object of the labels that keep takes, sorted by name; "" for none. What
// would make it longer than maxLabels is left out.
func labels(all map[string]string, keep func(name string) bool) string {
	names := make([]string, 0, len(all))
	for n := range all {
		if keep == nil || keep(n) {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	out := []byte{'{'}
	for _, n := range names {
		before := len(out)
		if before > 1 {
			out = append(out, ',')
		}
		out = append(schema.AppendString(out, n), ':')
		out = schema.AppendString(out, all[n])
		if len(out) >= maxLabels {
			out = out[:before]
			break
		}
	}
	if len(out) == 1 {
		return ""
	}
	return string(append(out, '}'))
}

// text bounds one text of a runtime's answer.
func text(s string) string {
	if len(s) > maxName {
		return s[:maxName]
	}
	return s
}

// state is what runc and crun keep of a container: /run/runc/ID/state.json (libcontainer's
// State) and /run/crun/ID/status.
type state struct {
	ID     string // runc only
	PID    int
	Start  uint64 // of that process, in ticks since boot
	Bundle string
	// Cgroups are paths by controller, "" for v2: of the file system (runc), or from the root
	// of the hierarchy (crun, which has one for all, under "*").
	Cgroups map[string]string
}

func runcState(data []byte) (*state, error) {
	var s struct {
		ID     string            `json:"id"`
		PID    int               `json:"init_process_pid"`
		Start  uint64            `json:"init_process_start"`
		Paths  map[string]string `json:"cgroup_paths"`
		Config struct {
			Labels []string `json:"labels"`
		} `json:"config"`
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read runc's state: %w", err)
	}
	out := &state{ID: s.ID, PID: s.PID, Start: s.Start, Cgroups: s.Paths}
	for _, l := range s.Config.Labels {
		if b, ok := strings.CutPrefix(l, "bundle="); ok {
			out.Bundle = b
		}
	}
	return out, nil
}

func crunState(data []byte) (*state, error) {
	var s struct {
		PID    int    `json:"pid"`
		Start  uint64 `json:"process-start-time"`
		Cgroup string `json:"cgroup-path"`
		Bundle string `json:"bundle"`
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read crun's status: %w", err)
	}
	return &state{PID: s.PID, Start: s.Start, Bundle: s.Bundle, Cgroups: map[string]string{"*": s.Cgroup}}, nil
}

// stored is a container in the list that containers/storage keeps for podman, CRI-O and
// buildah: containers.json in DRIVER-containers.
type stored struct {
	ID       string   `json:"id"`
	Names    []string `json:"names"`
	Image    string   `json:"image"`
	Metadata string   `json:"metadata"` // JSON of whoever made it
}

var errNotStored = errors.New("the container is not in the list")

// storedFacts finds a container in such a list.
func storedFacts(data []byte, id string) (*Facts, error) {
	var f *Facts
	err := eachStored(data, func(c *stored) {
		if c.ID == id {
			f = c.facts()
		}
	})
	if err == nil && f == nil {
		err = errNotStored
	}
	return f, err
}

// eachStored calls fn with each container in a list. It reads one after the other: a list of
// thousands is not made into structures at once.
func eachStored(data []byte, fn func(*stored)) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if start, err := d.Token(); err != nil || start != json.Delim('[') {
		return fmt.Errorf("read list of containers: it is none: %w", err)
	}
	for d.More() {
		var c stored
		if err := d.Decode(&c); err != nil {
			return fmt.Errorf("read list of containers: %w", err)
		}
		fn(&c)
	}
	return nil
}

func (c *stored) facts() *Facts {
	var meta struct {
		ImageName string `json:"image-name"`
		Name      string `json:"name"`
	}
	_ = json.Unmarshal([]byte(c.Metadata), &meta) // others than podman write other things there
	f := &Facts{Name: text(meta.Name), Image: text(meta.ImageName)}
	if f.Name == "" && len(c.Names) > 0 {
		f.Name = text(c.Names[0])
	}
	if len(c.Image) == 64 && isHex(c.Image) {
		f.ImageID = "sha256:" + c.Image
	}
	return f
}
