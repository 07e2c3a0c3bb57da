// Package remote speaks osquery's TLS API: enrolment, configuration, logs, distributed
// queries and carves (https://osquery.readthedocs.io/en/stable/deployment/remote/).
//
// The server's certificate is always verified, its answers are bounded, and what it says
// never makes the agent ask another host. The package must never know what a query reads,
// or where a line came from. Secrets are in no error and no log.
package remote

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// defaultTimeout is osquery's: for a connection, and for an answer to begin and to end.
	defaultTimeout = 16 * time.Second
	// maxUpload is how long a request may take to send.
	maxUpload    = 5 * time.Minute
	maxRedirects = 5
)

// Bounds of answers in bytes, also when they come compressed.
const (
	maxConfig = 8 << 20
	maxAnswer = 4 << 20
)

// Options of a Client.
type Options struct {
	Hostname    string // host or host:port
	ServerCerts string // PEM file that the server's certificate must lead to; "" is the system's
	ClientCert  string // PEM files; "" is none
	ClientKey   string
	Proxy       string // host:port of an HTTP proxy; "" is none
	// KeepAlive keeps connections for SessionTimeout, 0 being for ever.
	KeepAlive      bool
	SessionTimeout time.Duration
	AcceptGzip     bool
	Version        string        // in User-Agent
	Timeout        time.Duration // 0: 16 s
	Now            func() time.Time
}

// Client sends requests to one server. It is safe for concurrent use.
type Client struct {
	o    Options
	host string
	http *http.Client

	mu    sync.Mutex
	begun time.Time // when connections were begun to be kept
}

// NewClient returns a client. It connects to nobody yet.
func NewClient(o Options) (*Client, error) {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	base, err := url.Parse("https://" + o.Hostname)
	if err != nil || base.Host == "" || base.User != nil || base.Path != "" || base.RawQuery != "" {
		return nil, fmt.Errorf("tls_hostname: %q is no host or host:port", o.Hostname)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.ServerCerts != "" {
		pem, err := os.ReadFile(o.ServerCerts)
		if err != nil {
			return nil, fmt.Errorf("tls_server_certs: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_server_certs: %q holds no certificate", o.ServerCerts)
		}
	}
	if (o.ClientCert == "") != (o.ClientKey == "") {
		return nil, errors.New("tls_client_cert and tls_client_key: one is given without the other")
	}
	if o.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(o.ClientCert, o.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("tls_client_cert: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: o.Timeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: o.Timeout,
		// The agent's own environment has no say in who sees its requests.
		Proxy:                  nil,
		DisableKeepAlives:      !o.KeepAlive,
		DisableCompression:     true, // bounded here, and only when asked for
		ResponseHeaderTimeout:  o.Timeout,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        90 * time.Second,
	}
	if o.Proxy != "" {
		proxy, err := url.Parse("http://" + o.Proxy)
		if err != nil || proxy.Host == "" || proxy.Path != "" {
			return nil, fmt.Errorf("proxy_hostname: %q is no host:port", o.Proxy)
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	return &Client{
		o: o, host: base.Host, begun: o.Now(),
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// Close ends the connections that are kept.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// address is where an endpoint is, which cannot lead to another host: a configuration from
// the server names some.
func (c *Client) address(endpoint string) (*url.URL, error) {
	u, err := url.Parse("https://" + c.o.Hostname + endpoint)
	if err != nil || !strings.HasPrefix(endpoint, "/") || u.Host != c.host || u.User != nil || u.Scheme != "https" {
		return nil, fmt.Errorf("endpoint %q is no path", endpoint)
	}
	return u, nil
}

// post sends a body and returns the answer's status and text.
func (c *Client) post(ctx context.Context, endpoint string, body []byte, key string, compress bool, limit int64) (status int, answer []byte, err error) {
	u, err := c.address(endpoint)
	if err != nil {
		return 0, nil, err
	}
	c.renew()
	if compress {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, err := w.Write(body)
		if err = errors.Join(err, w.Close()); err != nil {
			return 0, nil, err
		}
		body = b.Bytes()
	}
	for range maxRedirects {
		var next *url.URL
		status, answer, next, err = c.once(ctx, u, body, key, compress, limit)
		if err != nil || next == nil {
			return status, answer, err
		}
		if next.Scheme != "https" || next.Host != c.host || next.User != nil {
			return status, nil, fmt.Errorf("post %s: redirected to another server, %q", u.Path, next.Host)
		}
		u = next
	}
	return status, nil, fmt.Errorf("post %s: more than %d redirections", u.Path, maxRedirects)
}

// renew gives up kept connections after their time.
func (c *Client) renew() {
	if c.o.SessionTimeout <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.o.Now(); now.Sub(c.begun) > c.o.SessionTimeout {
		c.begun = now
		c.http.CloseIdleConnections()
	}
}

// once sends one request. next is where the server sends the client instead.
func (c *Client) once(ctx context.Context, u *url.URL, body []byte, key string, compress bool, limit int64) (status int, answer []byte, next *url.URL, err error) {
	defer func() {
		var wrapped *url.Error // which repeats the address
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		if err != nil {
			err = fmt.Errorf("post %s: %w", u.Path, err)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, maxUpload)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "osquery/"+c.o.Version)
	// What is sent twice is told by what it says. An empty value is not sent, but lets the
	// transport try again when a kept connection was closed (net/http.Transport).
	r.Header["Idempotency-Key"] = nil
	if key != "" {
		r.Header.Set("Authorization", "NodeKey "+key)
	}
	if compress {
		r.Header.Set("Content-Encoding", "gzip")
	}
	if c.o.AcceptGzip {
		r.Header.Set("Accept-Encoding", "gzip")
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	slow := time.AfterFunc(c.o.Timeout, cancel)
	defer slow.Stop()
	var in io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" && c.o.AcceptGzip {
		z, err := gzip.NewReader(in)
		if err != nil {
			return resp.StatusCode, nil, nil, err
		}
		in = z
	}
	answer, err = io.ReadAll(io.LimitReader(in, limit+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return resp.StatusCode, nil, nil, fmt.Errorf("the answer took longer than %v", c.o.Timeout)
	case err != nil:
		return resp.StatusCode, nil, nil, err
	case int64(len(answer)) > limit:
		return resp.StatusCode, nil, nil, fmt.Errorf("the answer is longer than %d bytes", limit)
	}
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if next, err = resp.Location(); err != nil {
			return resp.StatusCode, nil, nil, err
		}
	}
	return resp.StatusCode, answer, next, nil
}
