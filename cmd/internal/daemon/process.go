package daemon

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// Process is a daemon that runs.
type Process interface {
	// Summary is one line for systemctl status.
	Summary() string
	// Alive says whether everything answers in time.
	Alive(within time.Duration) bool
	// ReloadOnSignal reads the configuration again; only the log tells how it went.
	ReloadOnSignal(ctx context.Context)
	// Stop ends everything within a bound of its own.
	Stop() error
}

// keep starts a daemon and keeps it until a signal or ctx ends it.
func keep(ctx context.Context, log *slog.Logger, start func() (Process, error)) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	p, err := start()
	if err != nil {
		return err
	}
	ready := func() { tell(log, sd.SdNotifyReady+"\nSTATUS="+p.Summary()) }
	ready()
	defer watchdog(p, log)()
	for {
		select {
		case <-hup:
			tell(log, sd.SdNotifyReloading+"\n"+sd.SdNotifyMonotonicUsec())
			p.ReloadOnSignal(ctx)
			ready()
		case <-ctx.Done():
			// Further signals change nothing: the stop is bounded, and cut short it
			// would leave devices behind.
			tell(log, sd.SdNotifyStopping)
			return p.Stop()
		}
	}
}

// tell sends a state to systemd, if it asked for that.
func tell(log *slog.Logger, state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		log.Warn("systemd was not told of the daemon's state", "reason", err)
	}
}

// watchdog tells systemd at its pace that the daemon still answers; the returned
// function ends that. A hung daemon is killed and started again.
func watchdog(p Process, log *slog.Logger) (stop func()) {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(interval / 3)
		defer t.Stop()
		for {
			select {
			case <-end:
				return
			case <-t.C:
				if p.Alive(interval / 3) {
					tell(log, sd.SdNotifyWatchdog)
				}
			}
		}
	}()
	return func() { close(end); <-ended }
}
