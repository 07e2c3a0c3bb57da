package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// message is a protocol buffer under construction.
type message []byte

func (m message) text(n protowire.Number, s string) message {
	return protowire.AppendString(protowire.AppendTag(m, n, protowire.BytesType), s)
}

func (m message) sub(n protowire.Number, s message) message {
	return protowire.AppendBytes(protowire.AppendTag(m, n, protowire.BytesType), s)
}

func (m message) number(n protowire.Number, v uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, n, protowire.VarintType), v)
}

func (m message) labels(n protowire.Number, pairs ...string) message {
	for i := 0; i+1 < len(pairs); i += 2 {
		m = m.sub(n, message{}.text(1, pairs[i]).text(2, pairs[i+1]))
	}
	return m
}

// kubelet does what a kubelet does to run pods, over CRI (k8s.io/cri-api, runtime.v1).
type kubelet struct{ client *http.Client }

func newKubelet(socket string) *kubelet {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetUnencryptedHTTP2(true)
	return &kubelet{&http.Client{Transport: t, Timeout: 2 * time.Minute}}
}

// call asks a method and returns the first text of the answer.
func (k *kubelet) call(method string, request message) (string, error) {
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(request))), request...)
	q, err := http.NewRequest(http.MethodPost, "http://cri/runtime.v1.RuntimeService/"+method, bytes.NewReader(frame))
	if err != nil {
		return "", err
	}
	q.Header.Set("Content-Type", "application/grpc")
	q.Header.Set("TE", "trailers")
	a, err := k.client.Do(q)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		return "", err
	}
	for _, h := range []http.Header{a.Trailer, a.Header} {
		if s := h.Get("Grpc-Status"); s != "" && s != "0" {
			return "", fmt.Errorf("%s: status %s: %s", method, s, h.Get("Grpc-Message"))
		}
	}
	if len(b) < 5 {
		return "", fmt.Errorf("%s: an answer of %d bytes", method, len(b))
	}
	b = b[5:]
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return "", fmt.Errorf("%s: malformed answer", method)
		}
		b = b[size:]
		if n == 1 && kind == protowire.BytesType {
			s, _ := protowire.ConsumeString(b)
			return s, nil
		}
		if size = protowire.ConsumeFieldValue(n, kind, b); size < 0 {
			return "", fmt.Errorf("%s: malformed answer", method)
		}
		b = b[size:]
	}
	return "", nil
}

// The fields of api.proto that a pod of the tests needs. It shares the network of its host,
// for which no CNI plugin is asked.
func podConfig(b *box) message {
	namespaces := message{}.number(1, 2).number(2, 1) // network NODE, pid CONTAINER
	return message{}.
		sub(1, message{}.text(1, b.pod).text(2, b.uid).text(3, "shop")).
		text(3, "/var/log/pods/shop_"+b.pod).
		labels(6, "io.kubernetes.pod.name", b.pod, "io.kubernetes.pod.namespace", "shop", "io.kubernetes.pod.uid", b.uid, "app", "web").
		sub(8, message{}.text(1, "/kubepods/burstable/pod"+b.uid).sub(2, message{}.sub(1, namespaces)))
}

func containerConfig(b *box) message {
	namespaces := message{}.number(1, 2).number(2, 1)
	return message{}.
		sub(1, message{}.text(1, b.name)).
		sub(2, message{}.text(1, shopImage)).
		text(3, "/entry").text(3, b.token).text(3, strconv.Itoa(b.port)).
		labels(9, "io.kubernetes.container.name", b.name, "io.kubernetes.pod.name", b.pod, "io.kubernetes.pod.namespace", "shop",
			"io.kubernetes.pod.uid", b.uid).
		sub(15, message{}.sub(1, message{}.number(5, 1000)).sub(2, message{}.sub(3, namespaces)))
}

// cri makes an engine of a runtime that a kubelet would use.
func (c *containerBench) cri(socket string) *engine {
	k := newKubelet(socket)
	pods := map[*box]string{}
	call := func(t *testing.T, method string, m message) string {
		t.Helper()
		s, err := k.call(method, m)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	removeAfter(c.t, "/var/log/pods")
	return &engine{
		name:  "cri",
		watch: "/run/containerd/io.containerd.runtime.v2.task/k8s.io/%/rootfs",
		run: func(t *testing.T, b *box) {
			b.pod = "pod-" + b.token
			b.uid = fmt.Sprintf("3f2a91de-%04x-4a0b-9c1d-%012x", b.port, time.Now().UnixNano()&0xffffffffffff)
			pod := call(t, "RunPodSandbox", message{}.sub(1, podConfig(b)))
			pods[b] = pod
			c.t.Cleanup(func() {
				_, _ = k.call("StopPodSandbox", message{}.text(1, pod))
				_, _ = k.call("RemovePodSandbox", message{}.text(1, pod))
			})
			b.id = call(t, "CreateContainer", message{}.text(1, pod).sub(2, containerConfig(b)).sub(3, podConfig(b)))
			call(t, "StartContainer", message{}.text(1, b.id))
		},
		exec: func(t *testing.T, b *box, args ...string) {
			m := message{}.text(1, b.id)
			for _, a := range args {
				m = m.text(2, a)
			}
			call(t, "ExecSync", m.number(3, 60))
		},
		stop: func(t *testing.T, b *box) {
			call(t, "StopContainer", message{}.text(1, b.id).number(2, 30))
			call(t, "RemoveContainer", message{}.text(1, b.id))
			call(t, "StopPodSandbox", message{}.text(1, pods[b]))
			call(t, "RemovePodSandbox", message{}.text(1, pods[b]))
		},
		want: map[string]string{"image": shopImage, "pod_namespace": "shop"},
	}
}
