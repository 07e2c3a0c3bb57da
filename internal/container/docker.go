package container

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/goshawk-project/goshawk/internal/event"
)

// DockerAPI is the API of Docker, which podman offers, too. It asks, and changes nothing.
// Paths bear no version: no single one is taken by both Docker 20 and Docker 29, and what is
// read here has been the same in all. It is safe for concurrent use.
type DockerAPI struct {
	s *socket

	mu      sync.Mutex
	digests map[string]string // by image ID
	pods    map[string]string // podman's: names by ID
}

// NewDocker returns a client for the socket at path.
func NewDocker(path string) *DockerAPI {
	return &DockerAPI{s: dial(path, false), digests: make(map[string]string), pods: make(map[string]string)}
}

// Close lets go of idle connections.
func (d *DockerAPI) Close() { d.s.close() }

// DockerContainer is one of GET /containers/json.
type DockerContainer struct {
	ID      string            `json:"Id"`
	Names   []string          `json:"Names"`
	Image   string            `json:"Image"`
	ImageID string            `json:"ImageID"`
	Command string            `json:"Command"`
	Created int64             `json:"Created"`
	State   string            `json:"State"`
	Status  string            `json:"Status"`
	Labels  map[string]string `json:"Labels"`
	Mounts  []DockerMount     `json:"Mounts"`
	Ports   []DockerPort      `json:"Ports"`

	NetworkSettings struct {
		Networks map[string]DockerNetwork `json:"Networks"`
	} `json:"NetworkSettings"`
}

// DockerMount is what is mounted in a container.
type DockerMount struct {
	Type, Name, Source, Destination, Driver, Mode, Propagation string
	RW                                                         bool
}

// DockerNetwork is a network that a container is in.
type DockerNetwork struct {
	NetworkID, EndpointID, Gateway, IPAddress, IPv6Gateway, GlobalIPv6Address, MacAddress string
	IPPrefixLen, GlobalIPv6PrefixLen                                                      int64
}

// DockerDetails is GET /containers/ID/json.
type DockerDetails struct {
	ID    string `json:"Id"`
	Name  string
	Image string // its ID
	Path  string
	State struct {
		Pid                   int64
		StartedAt, FinishedAt string
	}
	Config struct {
		Image      string
		Labels     map[string]string
		Env        []string
		Entrypoint []string
	}
	HostConfig struct {
		Privileged, ReadonlyRootfs             bool
		PidMode, IpcMode, UTSMode, NetworkMode string
		CapAdd, SecurityOpt                    []string
	}
	GraphDriver struct {
		Data map[string]string
	}
	Mounts []DockerMount
}

// DockerPort is a port of a container.
type DockerPort struct {
	IP          string `json:"IP"`
	PrivatePort int64  `json:"PrivatePort"`
	PublicPort  int64  `json:"PublicPort"`
	Type        string `json:"Type"`
}

// Containers lists the containers: all, or those that run.
func (d *DockerAPI) Containers(ctx context.Context, all bool) ([]DockerContainer, error) {
	path := "/containers/json"
	if all {
		path += "?all=1"
	}
	var out []DockerContainer
	return out, d.s.get(ctx, path, maxList, &out)
}

// Details describes one container, named by its id (or its name).
func (d *DockerAPI) Details(ctx context.Context, id string) (*DockerDetails, error) {
	out := new(DockerDetails)
	return out, d.s.get(ctx, "/containers/"+url.PathEscape(id)+"/json", maxAnswer, out)
}

// Get decodes the answer to another question: a path.
func (d *DockerAPI) Get(ctx context.Context, path string, into any) error {
	return d.s.get(ctx, path, maxList, into)
}

// about is all that the runtime says of one container.
func (d *DockerAPI) about(ctx context.Context, runtime, id string) (*Facts, error) {
	details, err := d.Details(ctx, id)
	if err != nil {
		return nil, err
	}
	if details.ID != id {
		return nil, fmt.Errorf("asked for container %.12s, answered %.12q", id, details.ID)
	}
	f := details.facts(runtime)
	f.Digest = d.digest(ctx, details.Image)
	if runtime == Podman {
		if f.PodName == "" {
			f.PodUID, f.PodName = d.pod(ctx, id)
		}
		// With --ipc host podman 4.3 answers IpcMode shareable. What it had runc do is in the
		// container's configuration, which is read, too.
		f.Confinement = event.Confinement{}
	}
	return f, nil
}

// libpod is podman's own API, which always bears a version; podman 3 to 5 take this one.
const libpod = "/v3.0.0/libpod"

// pod returns identity and name of the pod of podman's that a container is in, "" for none.
func (d *DockerAPI) pod(ctx context.Context, id string) (uid, name string) {
	var c struct{ Pod string }
	if d.s.get(ctx, libpod+"/containers/"+url.PathEscape(id)+"/json", maxAnswer, &c) != nil || !lasting(c.Pod) {
		return "", ""
	}
	d.mu.Lock()
	name, ok := d.pods[c.Pod]
	d.mu.Unlock()
	if ok {
		return c.Pod, name
	}
	var p struct{ Name string }
	if d.s.get(ctx, libpod+"/pods/"+c.Pod+"/json", maxAnswer, &p) != nil {
		return c.Pod, ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.pods) >= 1024 {
		clear(d.pods)
	}
	d.pods[c.Pod] = text(p.Name)
	return c.Pod, d.pods[c.Pod]
}

// digest returns under which digest an image was pulled, "" when it was not.
func (d *DockerAPI) digest(ctx context.Context, image string) string {
	d.mu.Lock()
	have, ok := d.digests[image]
	d.mu.Unlock()
	if ok || image == "" {
		return have
	}
	var i struct{ RepoDigests []string }
	if err := d.s.get(ctx, "/images/"+url.PathEscape(image)+"/json", maxAnswer, &i); err != nil && !errors.Is(err, errNone) {
		return ""
	}
	digest := ""
	for _, r := range i.RepoDigests {
		if _, after, ok := strings.Cut(r, "@"); ok {
			digest = text(after)
			break
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.digests) >= 1024 {
		clear(d.digests)
	}
	d.digests[image] = digest
	return digest
}

// facts is what the list says of a container.
func (c *DockerContainer) facts(runtime string) *Facts {
	f := &Facts{Runtime: runtime, Image: text(c.Image), ImageID: text(c.ImageID), Labels: labels(c.Labels, nil)}
	if len(c.Names) > 0 {
		f.Name = text(strings.TrimPrefix(c.Names[0], "/"))
	}
	f.podOf(c.Labels)
	return f
}

// facts is what the details say.
func (d *DockerDetails) facts(runtime string) *Facts {
	f := &Facts{
		Runtime: runtime, Name: text(strings.TrimPrefix(d.Name, "/")), Image: text(d.Config.Image), ImageID: text(d.Image),
		Labels: labels(d.Config.Labels, nil), RootPath: text(d.GraphDriver.Data["MergedDir"]),
	}
	f.podOf(d.Config.Labels)
	c := &f.Confinement
	c.Privileged = event.No
	c.Capabilities = capabilities(d.HostConfig.CapAdd)
	if d.HostConfig.Privileged {
		c.Privileged, c.Capabilities = event.Yes, capabilities([]string{"ALL"})
	}
	var shared []string
	for _, n := range [...]struct{ name, mode string }{
		{"ipc", d.HostConfig.IpcMode}, {"network", d.HostConfig.NetworkMode}, {"pid", d.HostConfig.PidMode}, {"uts", d.HostConfig.UTSMode},
	} {
		if n.mode == "host" {
			shared = append(shared, n.name)
		}
	}
	c.HostNamespaces = strings.Join(shared, ",")
	for _, m := range d.Mounts {
		if m.Source != "" && leadsToSocket(m.Source) {
			c.RuntimeSocket = text(m.Source)
			break
		}
	}
	return f
}

// podOf takes the Kubernetes pod from the labels that a kubelet gives.
func (f *Facts) podOf(l map[string]string) {
	f.PodName, f.PodNamespace, f.PodUID = text(l[crioPod]), text(l[crioNamespace]), text(l[crioUID])
	if name := l["io.kubernetes.container.name"]; name != "" {
		f.Name = text(name)
	}
}

// dockerEvent is a line of GET /events.
type dockerEvent struct {
	Type   string
	Action string
	Actor  struct {
		ID         string
		Attributes map[string]string
	}
}

// maxEvent bounds a line of events.
const maxEvent = 1 << 20

// events calls fn with each event of containers, until the stream ends, or ctx.
func (d *DockerAPI) events(ctx context.Context, fn func(*dockerEvent)) error {
	body, err := d.s.open(ctx, "/events?filters="+url.QueryEscape(`{"type":["container"]}`))
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var e dockerEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read events of %q: %w", d.s.path, err)
		}
		fn(&e)
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read events of %q: %w", d.s.path, err)
	}
	return ctx.Err()
}

// facts is what an event says of its container: attributes are its labels, name and image.
func (e *dockerEvent) facts(runtime string) *Facts {
	a := e.Actor.Attributes
	f := &Facts{Runtime: runtime, Name: text(a["name"]), Image: text(a["image"])}
	f.Labels = labels(a, func(name string) bool {
		switch name {
		case "name", "image", "exitCode", "execID", "signal", "execDuration":
			return false
		}
		return true
	})
	f.podOf(a)
	return f
}
