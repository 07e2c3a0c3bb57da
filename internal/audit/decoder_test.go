package audit

import (
	"testing"
	"time"
)

func TestDecoderIsEmptyAtFirst(t *testing.T) {
	d := newDecoder(decoderOptions{})
	d.push(1320, nil, time.Now())
	d.flush(time.Now())
	if len(d.take()) != 0 || d.pending() || len(d.counts()) != 0 {
		t.Error("a decoder makes events of nothing")
	}
}
