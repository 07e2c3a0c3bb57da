package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/watchdog"
)

// supervise runs the daemon as a worker that is watched.
func supervise(ctx context.Context, f *config.Flags, errOut io.Writer) error {
	protect()
	limits := watchdog.Profile(f.Int("watchdog_level"))
	if n := f.Int("watchdog_memory_limit"); n > 0 {
		limits.Memory = min(n, 1<<30) << 20
	}
	if n := f.Int("watchdog_utilization_limit"); n > 0 {
		limits.CPU = int(min(n, 100))
	}
	if n := f.Seconds("watchdog_latency_limit"); n > 0 {
		limits.Latency = n
	}
	if path := f.String("pidfile"); path != "" {
		if err := writePID(path); err != nil {
			fmt.Fprintf(errOut, "goshawk: write pid file: %v\n", err)
		} else {
			defer os.Remove(path)
		}
	}
	code, err := watchdog.Run(ctx, watchdog.Options{
		Limits: limits, Delay: f.Seconds("watchdog_delay"), MaxDelay: f.Seconds("watchdog_max_delay"),
		Stop: max(f.Seconds("watchdog_forced_shutdown_delay"), f.Seconds("alarm_timeout"), 4*time.Second),
		FS:   procfs.At(""), Log: func(s string) { fmt.Fprintf(errOut, "goshawk: %s\n", s) },
		Waiting: func() { notify(systemd.SdNotifyWatchdog) },
	})
	switch {
	case err != nil:
		return &exitError{exitFailed, err}
	case code != exitOK:
		return &exitError{code, nil} // the worker has said why
	}
	return nil
}

// notify tells the service manager, if there is one (sd_notify(3)).
func notify(state string) {
	_, _ = systemd.SdNotify(false, state) // it may be gone, which it will know
}

// tellManager tells the service manager that the daemon is ready, and that it lives for as
// long as its agent answers, until ctx ends.
func (d *daemon) tellManager(ctx context.Context) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	notify(systemd.SdNotifyReady + fmt.Sprintf("\nSTATUS=watching; worker is process %d", os.Getpid()))
	interval := watchdogInterval(d.env.Watcher)
	if interval == 0 {
		<-ctx.Done()
		notify(systemd.SdNotifyStopping)
		return
	}
	for {
		if sleepFor(ctx, interval) != nil {
			notify(systemd.SdNotifyStopping)
			return
		}
		asking, cancel := context.WithTimeout(ctx, interval)
		_, err := d.agent.Status(asking)
		cancel()
		if err == nil {
			notify(systemd.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			d.logger.Error(fmt.Sprintf("the agent does not answer, so the service manager is not told that it lives: %v", err))
		}
	}
}

// watchdogInterval is how often the service manager wants to be told, 0 when it does not
// (sd_watchdog_enabled(3)). It means its own child, which is the watcher when there is one.
func watchdogInterval(watcher int) time.Duration {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	if text := os.Getenv("WATCHDOG_PID"); text != "" {
		if pid, err := strconv.Atoi(text); err != nil || pid != os.Getpid() && pid != watcher {
			return 0
		}
	}
	return time.Duration(usec) * time.Microsecond / 3
}
