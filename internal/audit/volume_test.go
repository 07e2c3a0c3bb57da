package audit

import (
	"fmt"
	"testing"
	"time"
)

// record is a SYSCALL record of a call made through an ABI.
func sysRecord(serial int, abi abi, number int, rest string) []byte {
	return fmt.Appendf(nil, "audit(1795386465.756:%d): arch=%s syscall=%d success=yes exit=0 %s", serial, abi.text, number, rest)
}

func TestGroupOf(t *testing.T) {
	v := newVolume(nil)
	number := func(name string, a abi) int { return int(callNamed(name).number(a)) }
	for _, c := range []struct {
		typ  uint16
		text string
		want string
	}{
		{recSyscall, string(sysRecord(1, abis[0], number("execve", abis[0]), "a0=1")), "exec"},
		{recSyscall, string(sysRecord(1, abis[1], number("execve", abis[1]), "a0=1")), "exec"},
		{recSyscall, string(sysRecord(1, abis[0], number("unlinkat", abis[0]), "")), "file"},
		{recSyscall, string(sysRecord(1, abis[0], 511, "")), "other"},
		{recSyscall, string(sysRecord(1, abis[0], 512, "")), "other"},
		{recSyscall, string(sysRecord(1, abi{text: "1"}, 11, "")), "other"},
		{recSyscall, "audit(1.2:3): arch=c000003e syscall=184467440737095516160 ", "other"},
		{recSyscall, "audit(1.2:3)", "other"},
		{recSyscall, "", "other"},
		{recUringOp, "audit(1.2:3): uring_op=16 success=yes", "connect"},
		{recUringOp, "audit(1.2:3): uring_op=36 success=yes", "file"},
		{recUringOp, "audit(1.2:3): uring_op=0 success=yes", "other"},
		{recUringOp, "audit(1.2:3): uring_op=256 success=yes", "other"},
		{recUringOp, "audit(1.2:3): x", "other"},
	} {
		name := "other"
		if g := v.groupOf(c.typ, []byte(c.text)); g != foreign {
			name = groups[g].name
		}
		if name != c.want {
			t.Errorf("%q is of %s, want %s", c.text, name, c.want)
		}
	}
	if abis[1].arch != archI386 {
		return
	}
	for a0, want := range map[string]string{"2": "bind", "3": "connect", "4": "listen", "5": "accept", "12": "accept", "9": "other", "zz": "other"} {
		name := "other"
		if g := v.groupOf(recSyscall, sysRecord(1, abis[1], 102, "a0="+a0+" a1=ff")); g != foreign {
			name = groups[g].name
		}
		if name != want {
			t.Errorf("socketcall %s is of %s, want %s", a0, name, want)
		}
	}
}

func TestRates(t *testing.T) {
	v := newVolume(map[string]float64{"exec": 10, "connect": 0})
	now := time.Unix(100, 0)
	exec, connect := int(callNamed("execve").number(abis[0])), int(callNamed("connect").number(abis[0]))
	serial := 0
	// admits counts of n events how many get through with each of their records.
	admits := func(n, call int) (through int) {
		for range n {
			serial++
			first := v.admit(recSyscall, sysRecord(serial, abis[0], call, ""), now)
			more := v.admit(1307, fmt.Appendf(nil, `audit(1795386465.756:%d): cwd="/"`, serial), now)
			last := v.admit(recEOE, fmt.Appendf(nil, "audit(1795386465.756:%d): ", serial), now)
			if first != more || first != last {
				t.Fatalf("event %d: its records are admitted %v, %v, %v", serial, first, more, last)
			}
			if first {
				through++
			}
		}
		return through
	}
	if n := admits(200, exec); n != 10*burstSeconds {
		t.Errorf("a burst of %d, want %d", n, 10*burstSeconds)
	}
	now = now.Add(500 * time.Millisecond)
	if n := admits(200, exec); n != 5 {
		t.Errorf("%d after half a second, want 5", n)
	}
	if n := admits(100_000, connect); n != 100_000 {
		t.Errorf("%d of 100,000 without a limit", n)
	}
	now = now.Add(time.Hour)
	if n := admits(200, exec); n != 10*burstSeconds {
		t.Errorf("a burst of %d after an hour, want %d", n, 10*burstSeconds)
	}
	g := v.groupOf(recSyscall, sysRecord(1, abis[0], exec, ""))
	if seen, lost := v.seen[g].Load(), v.lost[g][byRate].Load(); seen != 600 || lost != 600-105 {
		t.Errorf("seen %d, lost %d", seen, lost)
	}
	if v.open != 0 {
		t.Errorf("%d events are still open", v.open)
	}
}

// TestPressure sees that the least important go first, and come back one after the other.
func TestPressure(t *testing.T) {
	v := newVolume(nil)
	now := time.Unix(100, 0)
	shed := func() (out string) {
		for _, name := range []string{"unlinkat", "connect", "exit_group", "execve", "setuid"} {
			if !v.admit(recSyscall, sysRecord(1, abis[0], int(callNamed(name).number(abis[0])), ""), now) {
				out += name + " "
			}
		}
		return out
	}
	for _, c := range []struct {
		after  time.Duration
		filled float64
		want   string
	}{
		{0, 0.29, ""},
		{0, 0.31, "unlinkat "},
		{0, 0.50, "unlinkat connect "},
		{0, 0.70, "unlinkat connect exit_group "},
		{0, 0.80, "unlinkat connect exit_group execve "},
		{0, 0.96, "unlinkat connect exit_group execve setuid "},
		{0, 0.10, "unlinkat connect exit_group execve setuid "},
		{calm, 0.10, "unlinkat connect exit_group execve "},
		{calm / 2, 0.10, "unlinkat connect exit_group execve "},
		{calm / 2, 0.10, "unlinkat connect exit_group "},
		{calm / 2, 0.20, "unlinkat connect exit_group "}, // not calm
		{calm / 2, 0.10, "unlinkat connect exit_group "},
		{calm, 0.10, "unlinkat connect "},
		{calm, 0, "unlinkat "},
		{calm, 0, ""},
		{calm, 0, ""},
	} {
		now = now.Add(c.after)
		v.press(c.filled, byBacklog, now)
		if got := shed(); got != c.want {
			t.Errorf("at %.2f: shed %q, want %q", c.filled, got, c.want)
		}
	}
}

// TestShedSerials sees that events which never end do not stay in the way for ever, and that
// other events' records pass meanwhile.
func TestShedSerials(t *testing.T) {
	v := newVolume(map[string]float64{"exec": 0.1})
	now := time.Unix(100, 0)
	exec := int(callNamed("execve").number(abis[0]))
	for i := 1; i <= 1000; i++ {
		v.admit(recSyscall, sysRecord(i, abis[0], exec, ""), now)
	}
	if v.open != len(v.dropped) {
		t.Errorf("%d events are open", v.open)
	}
	for serial, want := range map[int]bool{1000: false, 1001: true, 1: true} {
		if got := v.admit(1307, fmt.Appendf(nil, "audit(1.2:%d): cwd=", serial), now); got != want {
			t.Errorf("a record of event %d is admitted: %v", serial, got)
		}
	}
	if !v.admit(1307, []byte("no stamp"), now) {
		t.Error("a record without a stamp is for the decoder to count")
	}
}

func TestAdmitAllocates(t *testing.T) {
	v := newVolume(nil)
	now := time.Unix(100, 0)
	r := sysRecord(1, abis[0], int(callNamed("execve").number(abis[0])), "a0=1")
	if n := testing.AllocsPerRun(100, func() {
		v.admit(recSyscall, r, now)
		v.admit(recEOE, r, now)
		serial(r)
	}); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

func FuzzAdmit(f *testing.F) {
	f.Add(uint16(recSyscall), sysRecord(7, abis[0], 59, "a0=1"))
	f.Add(uint16(recSyscall), sysRecord(7, abis[1], 102, "a0=3"))
	f.Add(uint16(recUringOp), []byte("audit(1.2:3): uring_op=18 success=yes"))
	f.Add(uint16(recEOE), []byte("audit(1.2:18446744073709551615): "))
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		v := newVolume(map[string]float64{"exec": 0.1, "other": 0.1})
		for range 3 {
			v.admit(typ, b, time.Unix(1, 0))
		}
	})
}

func BenchmarkAdmit(b *testing.B) {
	v := newVolume(map[string]float64{"exec": 0})
	now := time.Now()
	r := sysRecord(1, abis[0], int(callNamed("execve").number(abis[0])), "a0=1")
	for b.Loop() {
		v.admit(recSyscall, r, now)
	}
}
