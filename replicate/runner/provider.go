package runner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hastd/blockdev"
	"hastd/blockdev/fuse"
	"hastd/blockdev/nbd"
	"hastd/replicate"
)

// startProvider answers EffProviderStart.
func (r *Resource) startProvider(op replicate.OpID, ex *export) {
	ev := replicate.Event{Kind: replicate.EvProviderUp, Op: op}
	r.export.Store(ex)
	p, err := r.serve()
	if err != nil {
		r.export.Store(nil)
		ev.Err, ev.Text = replicate.ErrOther, err.Error()
		var busy *blockdev.InUseError
		if errors.As(err, &busy) {
			ev.Err = replicate.ErrBusy
		}
	}
	if !r.box.post(item{ev: ev, provider: p}) && p != nil {
		r.cut(p) // the resource was closed meanwhile
	}
}

// cut closes a provider that nobody else will close any more.
func (r *Resource) cut(p blockdev.Provider) {
	r.export.Store(nil)
	if err := p.Close(true); err != nil {
		r.opts.Log.Warn("closing the provider left something behind", "path", p.Path(), "error", err)
	}
}

// serve starts the configured front end.
func (r *Resource) serve() (blockdev.Provider, error) {
	o := &r.opts
	kind, path := o.Provider, o.ProviderPath
	if kind == "auto" || kind == "" {
		kind = fuse.Kind
		if !usable("/dev/fuse") || !usable("/dev/loop-control") {
			kind = "nbd-server"
			path = filepath.Join(o.RunDir, o.Resource+".nbd") // the configured one is a device's
		}
	}
	switch kind {
	case "nbd-server":
		network := "unix"
		if !strings.HasPrefix(path, "/") {
			network = "tcp"
		}
		p, err := nbd.Serve(nbd.Options{Device: r, Network: network, Address: path, Logger: o.Log})
		if err != nil {
			return nil, err // not p: a nil pointer is no nil interface
		}
		return p, nil
	case fuse.Kind:
		// The mounts stand in FUSEDir; the daemon cleans it up at its start.
		p, err := fuse.Serve(fuse.Options{Device: r, Dir: FUSEDir(o.RunDir), Path: path, Log: o.Log})
		if err != nil {
			return nil, err
		}
		return p, nil
	case "ublk", "nbd":
		return nil, fmt.Errorf("provider %q is not in this build: set provider = \"fuse\" or \"nbd-server\"", kind)
	}
	return nil, fmt.Errorf("unknown provider %q", kind)
}

// FUSEDir is where FUSE providers keep their mounts below the run directory, for
// fuse.Cleanup.
func FUSEDir(run string) string { return filepath.Join(run, "fuse") }

func usable(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}

// stopProvider answers EffProviderStop.
func (r *Resource) stopProvider(p blockdev.Provider, op replicate.OpID, force bool) {
	ev := replicate.Event{Kind: replicate.EvProviderDown, Op: op}
	if p != nil {
		if force {
			r.tellCut(p)
		}
		err := p.Close(force)
		if err != nil && !force {
			// In use, or it cannot tell: it goes on serving.
			ev.Err, ev.Text = replicate.ErrBusy, err.Error()
			r.box.post(item{ev: ev})
			return
		}
		if err != nil {
			r.opts.Log.Warn("closing the provider left something behind", "path", p.Path(), "error", err)
		}
	}
	r.export.Store(nil)
	r.box.post(item{ev: ev})
}

// tellCut logs whose requests end in errors, before they do.
func (r *Resource) tellCut(p blockdev.Provider) {
	users, err := p.Users()
	if err != nil {
		users = []string{"unknown: " + err.Error()}
	}
	if len(users) > 0 {
		r.opts.Log.Warn("the device is taken away from those who use it: their requests end in errors", "path", p.Path(), "users", strings.Join(users, ", "))
	}
}
