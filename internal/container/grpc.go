package container

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"bytes"

	"google.golang.org/protobuf/encoding/protowire"
)

// Four questions are asked over gRPC, and a few fields read of the answers. net/http speaks
// HTTP/2 on a unix socket, and protowire reads fields; the generated clients (k8s.io/cri-api
// with grpc, measured in docs) would make the binary a fifth larger for these.

// grpcError is an answer with a status other than 0 (grpc/status.proto, codes).
type grpcError struct {
	code    int
	message string
}

const (
	grpcNotFound      = 5
	grpcUnimplemented = 12
)

func (e *grpcError) Error() string { return fmt.Sprintf("gRPC status %d: %.200q", e.code, e.message) }

func (e *grpcError) Is(target error) bool { return target == errNone && e.code == grpcNotFound }

// call asks a method ("/runtime.v1.RuntimeService/Version") with one message, and returns
// the message of the answer, of at most limit bytes. errNone is a NOT_FOUND.
func (s *socket) call(ctx context.Context, method string, request []byte, limit int64, headers ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	answer, err := s.unary(ctx, method, request, limit, headers)
	if err != nil {
		return nil, fmt.Errorf("ask %q for %s: %w", s.path, method, err)
	}
	return answer, nil
}

func (s *socket) unary(ctx context.Context, method string, request []byte, limit int64, headers []string) ([]byte, error) {
	// A message is a byte (not compressed), its length, and itself.
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(request)))
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://runtime"+method, bytes.NewReader(append(frame, request...)))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", "application/grpc")
	q.Header.Set("TE", "trailers")
	for i := 0; i+1 < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	a, err := s.client.Do(q)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", a.StatusCode)
	}
	body, err := readBounded(a.Body, limit+5)
	if err != nil {
		return nil, err
	}
	// The status comes behind the body, or with the headers when there is none.
	status := a.Trailer.Get("Grpc-Status")
	message := a.Trailer.Get("Grpc-Message")
	if status == "" {
		status, message = a.Header.Get("Grpc-Status"), a.Header.Get("Grpc-Message")
	}
	code, err := strconv.Atoi(status)
	if err != nil {
		return nil, fmt.Errorf("the answer has no gRPC status but %.20q", status)
	}
	if code != 0 {
		if m, err := url.PathUnescape(message); err == nil {
			message = m
		}
		return nil, &grpcError{code, message}
	}
	if len(body) < 5 {
		return nil, io.ErrUnexpectedEOF
	}
	if body[0] != 0 {
		return nil, errors.New("the answer is compressed")
	}
	if n := binary.BigEndian.Uint32(body[1:]); uint64(n) != uint64(len(body)-5) {
		return nil, fmt.Errorf("a message of %d bytes in an answer of %d", n, len(body)-5)
	}
	return body[5:], nil
}

// errMessage says that a message is no protocol buffer.
var errMessage = errors.New("malformed message")

// fields calls fn with each field of a message whose value is text or a message (wire type
// 2), and passes over others.
func fields(message []byte, fn func(number protowire.Number, value []byte) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return errMessage
		}
		message = message[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
				return errMessage
			}
			message = message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return errMessage
		}
		if err := fn(number, value); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

// entry reads an entry of a map of texts, map<string, string>.
func entry(message []byte, into *map[string]string) error {
	var key, value string
	err := fields(message, func(n protowire.Number, v []byte) error {
		switch n {
		case 1:
			key = string(v)
		case 2:
			value = string(v)
		}
		return nil
	})
	if *into == nil {
		*into = make(map[string]string)
	}
	(*into)[key] = value
	return err
}
