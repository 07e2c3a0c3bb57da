// Package remotetest is a server for tests that speaks osquery's TLS API over real TLS, with
// an authority of its own: enrolment, configuration, logs, distributed queries and carves.
// What it does wrong, tests decide.
//
// It must never be part of the program.
package remotetest

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Endpoints of the server.
const (
	Enroll        = "/api/osquery/enroll"
	Config        = "/api/osquery/config"
	Log           = "/api/osquery/log"
	Read          = "/api/osquery/distributed/read"
	Write         = "/api/osquery/distributed/write"
	CarveStart    = "/api/osquery/carve/begin"
	CarveContinue = "/api/osquery/carve/block"
)

// Server is a running server. Its fields are guarded by Lock once it is started.
type Server struct {
	sync.Mutex
	Host  string // host:port
	CA    string // PEM file of the authority
	Other string // PEM file of another authority

	Secret string
	Config string
	// Fault may answer a request instead of the server; it is called with the server locked.
	Fault func(w http.ResponseWriter, r *http.Request, body []byte) (answered bool)

	Keys       map[string]bool // node keys that are valid
	Enrolled   []json.RawMessage
	Requests   map[string]int
	Headers    map[string]http.Header // of the last request to each endpoint
	Results    []json.RawMessage      // lines, as they came
	Statuses   []json.RawMessage
	Queries    map[string]string // to be given out once
	Discovery  map[string]string
	Accelerate any
	Written    []Written
	Carves     map[string]*Carve // by session

	t    testing.TB
	http *httptest.Server
	key  int
	ca   *x509.Certificate
	caKy *ecdsa.PrivateKey
	dir  string
}

// Written is a request with results of distributed queries.
type Written struct {
	Queries  map[string][]map[string]string
	Statuses map[string]int
	Messages map[string]string
	Stats    map[string]map[string]int64
}

// Carve is what was received of a carve.
type Carve struct {
	Blocks, Size, Total int64
	ID, Request         string
	Data                map[int64][]byte
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	s := &Server{
		t: t, dir: t.TempDir(), Secret: "open sesame", Config: "{}", Keys: map[string]bool{}, Requests: map[string]int{},
		Headers: map[string]http.Header{}, Queries: map[string]string{}, Carves: map[string]*Carve{},
	}
	var other *x509.Certificate
	s.ca, s.caKy = s.authority("tests")
	s.CA = s.pem("ca.pem", "CERTIFICATE", s.ca.Raw)
	other, _ = s.authority("others")
	s.Other = s.pem("other.pem", "CERTIFICATE", other.Raw)
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	cert, key := s.Issue("server", x509.ExtKeyUsageServerAuth)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.ca)
	s.http.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}
	s.http.StartTLS()
	t.Cleanup(s.http.Close)
	s.Host = strings.TrimPrefix(s.http.URL, "https://")
	return s
}

func (s *Server) authority(name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	s.must(err)
	cert, err := x509.ParseCertificate(der)
	s.must(err)
	return cert, key
}

// Issue makes a certificate of the server's authority, and returns its files.
func (s *Server) Issue(name string, usage x509.ExtKeyUsage) (cert, key string) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.ca, &k.PublicKey, s.caKy)
	s.must(err)
	raw, err := x509.MarshalECPrivateKey(k)
	s.must(err)
	return s.pem(name+".pem", "CERTIFICATE", der), s.pem(name+".key", "EC PRIVATE KEY", raw)
}

func (s *Server) pem(name, kind string, der []byte) string {
	path := filepath.Join(s.dir, name)
	s.must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

func (s *Server) must(err error) {
	if err != nil {
		s.t.Fatal(err)
	}
}

// SecretFile writes the enrolment secret to a file.
func (s *Server) SecretFile() string {
	path := filepath.Join(s.dir, "secret")
	s.must(os.WriteFile(path, []byte("  "+s.Secret+"\n"), 0o600))
	return path
}

// Do runs f with the server locked.
func (s *Server) Do(f func()) {
	s.Lock()
	defer s.Unlock()
	f()
}

// CloseConnections closes the connections that clients keep.
func (s *Server) CloseConnections() { s.http.CloseClientConnections() }

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	in := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(in)
		if err != nil {
			http.Error(w, "bad gzip", http.StatusBadRequest)
			return
		}
		in = z
	}
	body, err := io.ReadAll(in)
	if err != nil {
		return
	}
	s.Lock()
	defer s.Unlock()
	s.Requests[r.URL.Path]++
	s.Headers[r.URL.Path] = r.Header.Clone()
	if s.Fault != nil && s.Fault(w, r, body) {
		return
	}
	var q struct {
		Secret         string          `json:"enroll_secret"`
		HostIdentifier string          `json:"host_identifier"`
		PlatformType   string          `json:"platform_type"`
		Details        json.RawMessage `json:"host_details"`
		Key            string          `json:"node_key"`
		Type           string          `json:"log_type"`
		Data           json.RawMessage `json:"data"`
		SessionID      string          `json:"session_id"`
	}
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, fmt.Sprintf(`{"error":%q}`, err.Error()), http.StatusBadRequest)
		return
	}
	switch path := r.URL.Path; path {
	case Enroll:
		var details map[string]map[string]string // anything else is what osctrl refuses
		switch err := json.Unmarshal(q.Details, &details); {
		case q.Secret != s.Secret:
			s.json(w, map[string]any{"error": "enrollment with the secret " + q.Secret + " is refused", "node_invalid": true})
		case err != nil || q.HostIdentifier == "" || q.PlatformType != "9":
			s.json(w, map[string]any{"error": fmt.Sprintf("host_details: %v", err)})
		default:
			s.key++
			key := fmt.Sprintf("node-key-%d", s.key)
			s.Keys[key] = true
			s.Enrolled = append(s.Enrolled, bytes.Clone(body))
			s.json(w, map[string]any{"node_key": key, "node_invalid": false})
		}
		return
	case CarveContinue:
		s.block(w, q.SessionID, body)
		return
	default:
		if !s.Keys[q.Key] || r.Header.Get("Authorization") != "NodeKey "+q.Key {
			w.WriteHeader(http.StatusUnauthorized)
			s.json(w, map[string]any{"error": "authentication error: invalid node key: " + q.Key, "node_invalid": true})
			return
		}
	}
	switch r.URL.Path {
	case Config:
		io.WriteString(w, s.Config)
	case Log:
		var lines []json.RawMessage
		if err := json.Unmarshal(q.Data, &lines); err != nil {
			http.Error(w, "{}", http.StatusBadRequest)
			return
		}
		switch q.Type {
		case "result":
			s.Results = append(s.Results, lines...)
		case "status":
			s.Statuses = append(s.Statuses, lines...)
		default:
			http.Error(w, "{}", http.StatusBadRequest)
			return
		}
		io.WriteString(w, "{}")
	case Read:
		answer := map[string]any{"queries": maps.Clone(s.Queries)}
		if s.Discovery != nil {
			answer["discovery"] = s.Discovery
		}
		if s.Accelerate != nil {
			answer["accelerate"] = s.Accelerate
		}
		clear(s.Queries)
		s.json(w, answer)
	case Write:
		var written Written
		if err := json.Unmarshal(body, &written); err != nil {
			http.Error(w, fmt.Sprintf(`{"error":%q}`, err.Error()), http.StatusBadRequest)
			return
		}
		s.Written = append(s.Written, written)
		io.WriteString(w, "{}")
	case CarveStart:
		var c struct {
			Count   int64  `json:"block_count"`
			Size    int64  `json:"block_size"`
			Total   int64  `json:"carve_size"`
			ID      string `json:"carve_id"`
			Request string `json:"request_id"`
		}
		s.must(json.Unmarshal(body, &c))
		session := fmt.Sprintf("session-%d", len(s.Carves)+1)
		s.Carves[session] = &Carve{c.Count, c.Size, c.Total, c.ID, c.Request, map[int64][]byte{}}
		s.json(w, map[string]any{"session_id": session})
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) block(w http.ResponseWriter, session string, body []byte) {
	var b struct {
		ID   int64  `json:"block_id"`
		Data string `json:"data"`
	}
	s.must(json.Unmarshal(body, &b))
	data, err := base64.StdEncoding.DecodeString(b.Data)
	c := s.Carves[session]
	if err != nil || c == nil {
		s.json(w, map[string]any{"error": "no such session"})
		return
	}
	c.Data[b.ID] = data
	s.json(w, map[string]any{"success": true})
}

func (s *Server) json(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.t.Error(err)
	}
}
