package ctl

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/sql"
)

// TestForeignUser connects as another user, past the modes that would keep it out.
func TestForeignUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	path, _ := serve(t, handler{}, Options{})
	for name, mode := range map[string]os.FileMode{filepath.Dir(filepath.Dir(path)): 0o755, filepath.Dir(path): 0o755, path: 0o666} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	result := make(chan string)
	go func() {
		// The thread keeps its user, and dies with this goroutine.
		runtime.LockOSThread()
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			result <- errno.Error()
			return
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			result <- err.Error()
			return
		}
		defer c.Close()
		if kind, body, err := readFrame(c, maxRequest); parseHello(kind, body) != nil {
			result <- fmt.Sprint("no hello: ", err)
			return
		}
		kind, body, err := readFrame(c, maxRequest)
		text, _, _ := parseFault(body)
		_, _, end := readFrame(c, maxRequest)
		result <- fmt.Sprintf("%c %s, %v, %v", kind, text, err, end)
	}()
	if got, want := <-result, "E user 65534 may not talk to this agent, <nil>, EOF"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestHostileClients sends what no client of ours sends; the server must go on, and must
// not have called the handler.
func TestHostileClients(t *testing.T) {
	var calls atomic.Int32
	path, _ := serve(t, handler{
		query:  func(context.Context, string, sql.Receiver) error { calls.Add(1); return nil },
		status: func(context.Context) ([]byte, error) { return []byte("{}"), nil },
	}, Options{Stall: 200 * time.Millisecond})
	for name, bytes := range map[string]string{
		"nothing":                "",
		"half a length":          "\x01\x00",
		"length 0":               "\x00\x00\x00\x00Q",
		"length 4 GiB":           "\xff\xff\xff\xffQ",
		"more promised":          "\xff\xff\x00\x00Qxxx",
		"no such request":        "\x01\x00\x00\x00Z",
		"status with a body":     "\x02\x00\x00\x00Sx",
		"query without its time": "\x01\x00\x00\x00Q",
		"endless time":           "\x0c\x00\x00\x00Q\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"long time":              "\x0a\x00\x00\x00Q\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
		"text":                   "GET / HTTP/1.1\r\n\r\n",
	} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(bytes)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		defer c.Close() // so that a stall ends by the server's clock
	}
	begun := time.Now()
	for calls.Load() == 0 && time.Since(begun) < 300*time.Millisecond {
		time.Sleep(10 * time.Millisecond)
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("the handler was called %d times", n)
	}
	if _, err := dial(t, path).Status(context.Background()); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// TestHostileServer answers as no server of ours does.
func TestHostileServer(t *testing.T) {
	hello := string(appendHello(nil))
	const columns = "\x05\x00\x00\x00C\x01\x01a\x00"
	tests := []struct{ name, answer, want string }{
		{"no greeting", "", "unexpected EOF"},
		{"a web server", "HTTP/1.1 400 Bad Request\r\n\r\n", "read the length of a frame: not understood"},
		{"another protocol", "\x05\x00\x00\x00Hello", "read the agent's greeting: not understood"},
		{"another version", "\x09\x00\x00\x00Hgoshawk\x09", "the agent speaks version 9 of the socket's protocol, this program version 1: use the program the agent was started from"},
		{"the end", hello, "the agent ended the connection before the answer was complete"},
		{"half a frame", hello + "\x05\x00\x00\x00C", "the agent ended the connection before the answer was complete"},
		{"too large", hello + "\xff\xff\xff\x7fR", "read the length of a frame: not understood"},
		{"unknown frame", hello + "\x01\x00\x00\x00?", "read the agent's answer: not understood"},
		{"rows first", hello + "\x02\x00\x00\x00R\x01", "read rows: not understood"},
		{"no columns", hello + "\x02\x00\x00\x00C\x00", "read columns: not understood"},
		{"many columns", hello + "\x04\x00\x00\x00C\xff\xff\x01", "read columns: not understood"},
		{"fewer rows", hello + columns + "\x02\x00\x00\x00R\x01", "read rows: not understood"},
		{"more rows", hello + columns + "\x04\x00\x00\x00R\x01\x00\x00", "read rows: not understood"},
		{"long text", hello + columns + "\x04\x00\x00\x00R\x01\x03\x09", "read rows: not understood"},
		{"endless rows", hello + columns + "\x0a\x00\x00\x00R\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "read rows: not understood"},
		{"unknown kind of value", hello + columns + "\x03\x00\x00\x00R\x01\x09", "read rows: not understood"},
		{"a status", hello + "\x01\x00\x00\x00S", "read the agent's answer: not understood"},
		{"half a fault", hello + "\x02\x00\x00\x00E\x05", "read an error: not understood"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "ctl")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			path := filepath.Join(dir, "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				_, _ = c.Write([]byte(tt.answer))
				if strings.HasPrefix(tt.answer, hello) {
					_, _, _ = readFrame(c, maxRequest)
				}
			})
			err = (&Client{path}).Query(context.Background(), "x", &answer{})
			if err == nil || !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			l.Close()
		})
	}
}
