package container

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/goshawk-project/goshawk/internal/event"
)

// criAPI asks containerd or CRI-O, over the interface that a kubelet speaks
// (runtime.v1.RuntimeService, k8s.io/cri-api) and, of containerd, for containers of others
// than a kubelet (containerd.services.containers.v1).
type criAPI struct {
	s       *socket
	runtime string

	mu        sync.Mutex
	podLabels map[string]map[string]string // by sandbox
}

// criContainer is what is read of a Container, a ContainerStatus, a PodSandbox and a
// PodSandboxStatus: their fields have different numbers.
type criContainer struct {
	id, name                 string
	image, imageRef, imageID string
	labels, annotations      map[string]string
	podUID, podNamespace     string // of sandboxes
	sandbox                  bool
	info                     []byte // JSON of the runtime's own, when asked for
}

// labelsOf returns the labels of a pod, by its sandbox: a kubelet gives its containers none of
// them. Nil when they cannot be had.
func (c *criAPI) labelsOf(ctx context.Context, sandbox string) map[string]string {
	c.mu.Lock()
	have, ok := c.podLabels[sandbox]
	c.mu.Unlock()
	if ok || sandbox == "" {
		return have
	}
	answer, err := c.s.call(ctx, "/runtime.v1.RuntimeService/PodSandboxStatus", appendText(nil, 1, sandbox), 2*maxLabels)
	if err != nil {
		return nil
	}
	var x criContainer
	err = fields(answer, func(n protowire.Number, v []byte) (err error) {
		if n == 1 {
			x, err = parseCRI(v, sandboxStatusFields)
		}
		return err
	})
	if err != nil || x.id != sandbox {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.podLabels == nil || len(c.podLabels) >= 256 {
		c.podLabels = make(map[string]map[string]string)
	}
	c.podLabels[sandbox] = x.labels
	return x.labels
}

// list returns the containers and the sandboxes that run.
func (c *criAPI) list(ctx context.Context) ([]criContainer, error) {
	// filter.state.state = CONTAINER_RUNNING, 1; SANDBOX_READY is 0, which is not written.
	state := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
	filter := appendMessage(nil, 2, state)
	answer, err := c.s.call(ctx, "/runtime.v1.RuntimeService/ListContainers", appendMessage(nil, 1, filter), maxList)
	if err != nil {
		return nil, err
	}
	var out []criContainer
	err = fields(answer, func(n protowire.Number, v []byte) error {
		if n != 1 {
			return nil
		}
		x, err := parseCRI(v, containerFields)
		out = append(out, x)
		return err
	})
	if err != nil {
		return nil, err
	}
	answer, err = c.s.call(ctx, "/runtime.v1.RuntimeService/ListPodSandbox", appendMessage(nil, 1, appendMessage(nil, 2, nil)), maxList)
	if err != nil {
		return out, err
	}
	return out, fields(answer, func(n protowire.Number, v []byte) error {
		if n != 1 {
			return nil
		}
		x, err := parseCRI(v, sandboxFields)
		out = append(out, x)
		return err
	})
}

// get describes one container, or one sandbox.
func (c *criAPI) get(ctx context.Context, id string) (*criContainer, error) {
	request := appendText(nil, 1, id)
	request = protowire.AppendVarint(protowire.AppendTag(request, 2, protowire.VarintType), 1) // verbose
	var x criContainer
	parse := func(numbers criFields) func(protowire.Number, []byte) error {
		return func(n protowire.Number, v []byte) (err error) {
			switch n {
			case 1:
				info := x.info
				x, err = parseCRI(v, numbers)
				x.info = info
			case 2: // info, a map whose entry "info" is JSON
				var m map[string]string
				if err = entry(v, &m); m["info"] != "" {
					x.info = []byte(m["info"])
				}
			}
			return err
		}
	}
	answer, err := c.s.call(ctx, "/runtime.v1.RuntimeService/ContainerStatus", request, 4*maxAnswer)
	if err == nil {
		if err = fields(answer, parse(statusFields)); err != nil {
			return nil, err
		}
		var info struct {
			SandboxID string `json:"sandboxID"`
		}
		_ = json.Unmarshal(x.info, &info) // it is the runtime's own, and may be missing
		for k, v := range c.labelsOf(ctx, info.SandboxID) {
			if _, own := x.labels[k]; !own {
				if x.labels == nil {
					x.labels = make(map[string]string)
				}
				x.labels[k] = v
			}
		}
		return &x, nil
	}
	if !errors.Is(err, errNone) {
		return nil, err
	}
	if answer, err = c.s.call(ctx, "/runtime.v1.RuntimeService/PodSandboxStatus", request, 4*maxAnswer); err != nil {
		return nil, err
	}
	return &x, fields(answer, parse(sandboxStatusFields))
}

// criFields are the numbers of fields in one kind of message; 0 where it has none.
type criFields struct {
	id, metadata, image, imageRef, imageID, labels, annotations protowire.Number
	sandbox                                                     bool
}

// From api.proto of k8s.io/cri-api v1.
var (
	containerFields     = criFields{id: 1, metadata: 3, image: 4, imageRef: 5, imageID: 10, labels: 8, annotations: 9}
	statusFields        = criFields{id: 1, metadata: 2, image: 8, imageRef: 9, imageID: 17, labels: 12, annotations: 13}
	sandboxFields       = criFields{id: 1, metadata: 2, labels: 5, annotations: 6, sandbox: true}
	sandboxStatusFields = criFields{id: 1, metadata: 2, labels: 7, annotations: 8, sandbox: true}
)

func parseCRI(message []byte, f criFields) (criContainer, error) {
	x := criContainer{sandbox: f.sandbox}
	err := fields(message, func(n protowire.Number, v []byte) error {
		switch n {
		case f.id:
			x.id = string(v)
		case f.imageRef:
			x.imageRef = string(v)
		case f.imageID:
			x.imageID = string(v)
		case f.labels:
			return entry(v, &x.labels)
		case f.annotations:
			return entry(v, &x.annotations)
		case f.image:
			return fields(v, func(n protowire.Number, v []byte) error {
				if n == 1 && x.image == "" || n == 18 { // 18: as the pod's author wrote it
					x.image = string(v)
				}
				return nil
			})
		case f.metadata: // name 1; of a sandbox: name 1, uid 2, namespace 3
			return fields(v, func(n protowire.Number, v []byte) error {
				switch n {
				case 1:
					x.name = string(v)
				case 2:
					x.podUID = string(v)
				case 3:
					x.podNamespace = string(v)
				}
				return nil
			})
		}
		return nil
	})
	return x, err
}

// facts is what was read of x.
func (x *criContainer) facts(runtime string) *Facts {
	f := &Facts{}
	var info struct {
		Image      string // of a sandbox: its image
		Privileged bool
		Config     struct {
			Linux struct {
				SecurityContext struct {
					Privileged bool
				} `json:"security_context"`
			}
		}
		RuntimeSpec *spec
	}
	if len(x.info) > 0 && json.Unmarshal(x.info, &info) == nil && info.RuntimeSpec != nil {
		f.Confinement = info.RuntimeSpec.confinement()
		if info.Config.Linux.SecurityContext.Privileged || info.Privileged {
			f.Confinement.Privileged = event.Yes
		}
		if p := info.RuntimeSpec.Root.Path; strings.HasPrefix(p, "/") {
			f.RootPath = text(p)
		}
	}
	f.Runtime, f.Name, f.Image, f.Labels = runtime, text(x.name), text(x.image), labels(x.labels, nil)
	f.PodName, f.PodNamespace, f.PodUID = text(x.labels[crioPod]), text(x.labels[crioNamespace]), text(x.labels[crioUID])
	if x.sandbox {
		f.PodName, f.PodNamespace, f.PodUID = text(x.name), text(x.podNamespace), text(x.podUID)
		f.Image = text(info.Image)
	}
	f.ImageID = text(x.imageID)
	// containerd gives the image's id here, CRI-O and Docker its digest.
	switch _, digest, ok := strings.Cut(x.imageRef, "@"); {
	case ok:
		f.Digest = text(digest)
	case strings.HasPrefix(x.imageRef, "sha256:"):
		f.ImageID = text(x.imageRef)
	}
	return f
}

// native asks containerd about a container in one of its namespaces: what ctr and nerdctl
// made, of which CRI knows nothing.
func (c *criAPI) native(ctx context.Context, namespace, id string) (*Facts, error) {
	answer, err := c.s.call(ctx, "/containerd.services.containers.v1.Containers/Get", appendText(nil, 1, id), 4*maxAnswer,
		"Containerd-Namespace", namespace)
	if err != nil {
		return nil, err
	}
	f := &Facts{Runtime: Containerd}
	var l map[string]string
	err = fields(answer, func(n protowire.Number, v []byte) error {
		if n != 1 { // container
			return nil
		}
		return fields(v, func(n protowire.Number, v []byte) error {
			switch n {
			case 2:
				return entry(v, &l)
			case 3:
				f.Image = text(string(v))
			case 5: // spec, a google.protobuf.Any: type_url 1, value 2
				return fields(v, func(n protowire.Number, v []byte) error {
					var s spec
					if n == 2 && json.Unmarshal(v, &s) == nil {
						f.Confinement = s.confinement()
					}
					return nil
				})
			}
			return nil
		})
	})
	f.Labels = labels(l, nil)
	f.Name = text(l[nerdctlName])
	f.podOf(l)
	if err == nil && f.Image != "" {
		if d, err := c.digest(ctx, namespace, f.Image); err == nil { // it has its name without
			f.Digest = d
		}
	}
	return f, err
}

// digest asks containerd what an image is by now; "" when it is gone.
func (c *criAPI) digest(ctx context.Context, namespace, image string) (digest string, err error) {
	answer, err := c.s.call(ctx, "/containerd.services.images.v1.Images/Get", appendText(nil, 1, image), maxAnswer, "Containerd-Namespace", namespace)
	if errors.Is(err, errNone) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	err = fields(answer, within(1, within(3, func(n protowire.Number, v []byte) error { // image, its target
		if n == 2 && strings.HasPrefix(string(v), "sha256:") {
			digest = text(string(v))
		}
		return nil
	})))
	return digest, err
}

// within calls fn with the fields of the messages in field number.
func within(number protowire.Number, fn func(protowire.Number, []byte) error) func(protowire.Number, []byte) error {
	return func(n protowire.Number, v []byte) error {
		if n != number {
			return nil
		}
		return fields(v, fn)
	}
}

func appendText(dst []byte, n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, n, protowire.BytesType), s)
}

func appendMessage(dst []byte, n protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, n, protowire.BytesType), message)
}
