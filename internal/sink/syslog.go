package sink

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Severities of syslog(3).
const (
	SyslogCritical = 2
	SyslogError    = 3
	SyslogWarning  = 4
	SyslogNotice   = 5
	SyslogInfo     = 6
)

// DefaultSyslog is where the system's logger listens.
const DefaultSyslog = "/dev/log"

// Syslog writes messages to the system's logger in the form of syslog(3), which RFC 3164 was
// made after. It is safe for concurrent use.
type Syslog struct {
	Path     string // of the socket
	Tag      string
	Facility int // 0 to 23

	mu   sync.Mutex
	conn net.Conn
}

const syslogTimeout = 5 * time.Second

// ErrTooLong says that the logger takes no message of that size.
var ErrTooLong = errors.New("message too long")

// Write sends one message.
func (s *Syslog) Write(severity int, message string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf("<%d>%s %s[%d]: %s", s.Facility<<3|severity, time.Now().Format(time.Stamp), s.Tag, os.Getpid(), message)
	err := s.send(text)
	if err != nil && !errors.Is(err, ErrTooLong) {
		s.close() // the logger may have been started anew
		err = s.send(text)
	}
	if err != nil && !errors.Is(err, ErrTooLong) {
		s.close()
	}
	return err
}

func (s *Syslog) send(text string) error {
	if s.conn == nil {
		var err error
		if s.conn, err = net.DialTimeout("unixgram", s.Path, syslogTimeout); err != nil {
			if s.conn, err = net.DialTimeout("unix", s.Path, syslogTimeout); err != nil {
				s.conn = nil
				return err
			}
		}
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(syslogTimeout)); err != nil {
		return err
	}
	if s.conn.RemoteAddr().Network() == "unix" {
		text += "\n"
	}
	_, err := s.conn.Write([]byte(text))
	if errors.Is(err, syscall.EMSGSIZE) {
		return fmt.Errorf("%w: %d bytes", ErrTooLong, len(text))
	}
	return err
}

func (s *Syslog) close() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// Close closes the connection.
func (s *Syslog) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close()
	return nil
}

// Lines sends each line as a message, after prefix, and counts those that are too long. A
// failure in the middle sends the lines before it again.
func (s *Syslog) Lines(lines []byte, prefix string) (tooLong int, err error) {
	for line := range strings.Lines(string(lines)) {
		switch err := s.Write(SyslogInfo, prefix+strings.TrimSuffix(line, "\n")); {
		case errors.Is(err, ErrTooLong):
			tooLong++
		case err != nil:
			return 0, err
		}
	}
	return tooLong, nil
}

// SyslogSeverity is the severity that osquery gives a status.
func SyslogSeverity(s *Status) int {
	return [...]int{SyslogNotice, SyslogWarning, SyslogError, SyslogCritical}[s.Severity]
}
