package runner

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"hastd/blockdev"
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
	r.box.post(item{ev: ev, provider: p})
}

// serve starts the configured front end.
func (r *Resource) serve() (blockdev.Provider, error) {
	o := &r.opts
	kind := o.Provider
	if kind == "auto" || kind == "" {
		kind = "nbd-server"
		if usable("/dev/fuse") && usable("/dev/loop-control") {
			kind = "fuse"
		}
	}
	switch kind {
	case "nbd-server":
		network, address := "unix", o.ProviderPath
		if !strings.HasPrefix(address, "/") {
			network = "tcp"
		}
		p, err := nbd.Serve(nbd.Options{Device: r, Network: network, Address: address, Logger: o.Log})
		if err != nil {
			return nil, err // not p: a nil pointer is no nil interface
		}
		return p, nil
	case "fuse":
		return serveFUSE(r)
	case "ublk", "nbd":
		return nil, fmt.Errorf("provider %q is not in this build: set provider = \"fuse\" or \"nbd-server\"", kind)
	}
	return nil, fmt.Errorf("unknown provider %q", kind)
}

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
		err := p.Close(force)
		var busy *blockdev.InUseError
		switch {
		case errors.As(err, &busy):
			ev.Err, ev.Text = replicate.ErrBusy, err.Error()
			r.box.post(item{ev: ev})
			return
		case err != nil:
			r.opts.Log.Warn("closing the provider left something behind", "path", p.Path(), "error", err)
		}
	}
	r.export.Store(nil)
	r.box.post(item{ev: ev})
}
