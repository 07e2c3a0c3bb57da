package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// callTime bounds one question to a runtime, from the connection to the last byte.
	callTime = 5 * time.Second
	// maxAnswer bounds the answer to a question about one container or image, maxList
	// that about all: 5,000 containers are listed in about 8 MB.
	maxAnswer = 1 << 20
	maxList   = 16 << 20
)

// errTooLarge says that a runtime answered more than anybody could have asked for.
var errTooLarge = errors.New("the answer is too large")

// errNone says that the runtime knows no such container.
var errNone = errors.New("not known there")

// socket speaks HTTP with a runtime over its unix socket. It is safe for concurrent use.
type socket struct {
	path   string
	client *http.Client
	close  func()
}

// dial returns a client for a unix socket; h2 says that it speaks HTTP/2 without TLS (gRPC).
// Nothing is connected before the first question.
func dial(path string, h2 bool) *socket {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: callTime}).DialContext(ctx, "unix", path)
		},
		MaxConnsPerHost: 2, MaxIdleConns: 1, IdleConnTimeout: 10 * time.Second,
		DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
	}
	if h2 {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return &socket{path: path, close: t.CloseIdleConnections,
		client: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// get asks for a path and decodes the answer, JSON of at most limit bytes. errNone is a 404.
func (s *socket) get(ctx context.Context, path string, limit int64, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := s.open(ctx, path)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := readBounded(r, limit)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return fmt.Errorf("ask %q for %q: %w", s.path, path, err)
	}
	return nil
}

// open asks for a path and returns the body of a good answer.
func (s *socket) open(ctx context.Context, path string) (io.ReadCloser, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://runtime"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %q for %q: %w", s.path, path, err)
	}
	a, err := s.client.Do(q)
	if err != nil {
		return nil, fmt.Errorf("ask %q: %w", s.path, errors.Unwrap(err))
	}
	switch a.StatusCode {
	case http.StatusOK:
		return a.Body, nil
	case http.StatusNotFound:
		err = errNone
	default:
		err = fmt.Errorf("status %d", a.StatusCode)
	}
	a.Body.Close()
	return nil, fmt.Errorf("ask %q for %q: %w", s.path, path, err)
}

// readBounded reads all of r unless that is more than limit bytes.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", errTooLarge, limit)
	}
	return b, nil
}
