package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hastd/blockdev/fuse"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/build"
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
	"hastd/cmd/internal/metrics"
	"hastd/conf"
	"hastd/replicate"
	"hastd/replicate/runner"
	"hastd/transport"
)

// server is everything that runs. It is the backend of the API and the source of
// the metrics.
type server struct {
	node  *conf.Node
	hastd conf.Hastd
	flags daemon.Flags
	log   *slog.Logger
	key   []byte       // nil: insecure, as configured
	began *conf.Config // what the process works by, whatever was read since
	hub   api.Hub

	control *daemon.Socket
	servers daemon.Servers
	ctx     context.Context // ends when the daemon stops
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	reloading sync.Mutex // one reload at a time

	mu       sync.RWMutex
	conf     *conf.Config
	units    []*unit // in the order of the configuration
	listener *transport.Listener
}

// Bounds of the daemon's stop, as a whole and for its parts.
const (
	stopTimeout   = 20 * time.Second
	relistenAfter = 2 * time.Second
)

// start brings everything up. Only what makes the daemon useless is an error: no
// control socket, no state directory, no key, a port that another program has.
func start(o daemon.Setup) (*server, error) {
	hastd, _ := o.Conf.Effective(o.Node)
	d := &server{node: o.Node, hastd: hastd, flags: o.Flags, log: o.Log, conf: o.Conf, began: o.Conf, servers: daemon.Servers{Log: o.Log}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	if err := d.prepare(); err != nil {
		d.cancel()
		return nil, err
	}
	maker := d.maker()
	for _, r := range o.Conf.ResourceOn(o.Node.Name) {
		d.units = append(d.units, maker.unit(r))
	}
	if err := d.listen(); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	for _, u := range d.units {
		wait := u.startAs()
		d.wg.Go(func() { wait(d.ctx, d.log) })
	}
	d.servers.Serve(d.ctx, d.control, api.NewHandler(d), 0)
	d.servers.ServeWeb(d.ctx, d.hastd.HTTP, d.web())
	d.armTOC()
	d.log.Info("hastd runs", "node", o.Node.Name, "cluster", o.Conf.Cluster.Name, "resources", len(d.units), "version", build.Read().String())
	return d, nil
}

// prepare takes the control socket first: it is what keeps two daemons apart.
func (d *server) prepare() error {
	for _, w := range d.conf.Warnings {
		d.log.Warn(w)
	}
	var err error
	if d.key, err = loadKey(d.conf); err != nil {
		return err
	}
	if d.control, err = daemon.ListenControl(about.Name, d.hastd.Control); err != nil {
		return err
	}
	if err := os.MkdirAll(d.hastd.State, 0o700); err != nil {
		d.control.Close()
		return &exit.Error{Code: exit.CantCreate, Text: fmt.Sprintf("state directory: %v", err), Hint: "run hastd as root, or choose another path for state", Err: err}
	}
	did, err := fuse.Cleanup(runner.FUSEDir(d.runDir()))
	for _, s := range did {
		d.log.Info("left by a daemon that was killed: " + s)
	}
	if err != nil {
		d.log.Warn("what a killed daemon left could not all be removed", "reason", err)
	}
	return nil
}

func loadKey(c *conf.Config) ([]byte, error) {
	if c.Cluster.KeyFile == "" {
		return nil, nil // the configuration says so, and its warnings tell of it
	}
	key, err := conf.LoadKey(c.Cluster.KeyFile)
	if err != nil {
		return nil, daemon.SecretError("key file", err)
	}
	return key, nil
}

// listen accepts peers on every address of the node. A node whose addresses are
// not there yet starts all the same and keeps trying.
func (d *server) listen() error {
	l, err := d.tryListen()
	switch {
	case err == nil:
		d.listener = l
		return nil
	case !errors.Is(err, syscall.EADDRNOTAVAIL):
		return exit.New(exit.CantCreate, "is another hastd or another program using the port? ss -ltnp shows it", "replication: %w", err)
	}
	d.log.Warn("no address of this node is there yet; it is tried again", "reason", err)
	d.wg.Go(func() {
		t := time.NewTicker(relistenAfter)
		defer t.Stop()
		for {
			select {
			case <-d.ctx.Done():
				return
			case <-t.C:
			}
			l, err := d.tryListen()
			if err == nil {
				d.log.Info("replication listens now")
				d.mu.Lock()
				d.listener = l
				d.mu.Unlock()
				return
			}
		}
	})
	return nil
}

func (d *server) tryListen() (*transport.Listener, error) {
	var addresses []string
	for _, a := range d.node.Addresses {
		addresses = append(addresses, net.JoinHostPort(a.String(), strconv.Itoa(d.hastd.Port)))
	}
	return transport.Listen(transport.ListenerOptions{
		Cluster: d.conf.Cluster.Name, Node: d.node.Name, Addresses: addresses, Lookup: d.lookup, Logger: d.log,
	})
}

// lookup finds the endpoint of a resource for a peer that connects.
func (d *server) lookup(resource, peer string) (*transport.Endpoint, error) {
	u := d.unit(resource)
	switch {
	case u == nil:
		return nil, fmt.Errorf("resource %s is not configured on node %s", resource, d.node.Name)
	case u.run == nil:
		return nil, fmt.Errorf("resource %s does not work on node %s", resource, d.node.Name)
	case u.peer != peer:
		return nil, fmt.Errorf("resource %s is mirrored by node %s with %s, not with %s", resource, d.node.Name, u.peer, peer)
	}
	if e := u.run.Endpoint(); e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("node %s has the lower id and connects itself: is the id of both nodes the same in both configurations?", d.node.Name)
}

func (d *server) unit(name string) *unit {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, u := range d.units {
		if u.name == name {
			return u
		}
	}
	return nil
}

func (d *server) all() []*unit {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return append([]*unit(nil), d.units...)
}

// Stop ends everything within stopTimeout: commands first, then all resources at
// once.
func (d *server) Stop() error {
	d.log.Info("hastd stops")
	d.cancel()
	d.hub.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	d.servers.Stop(ctx)
	d.wg.Wait()
	d.mu.RLock()
	listener := d.listener
	d.mu.RUnlock()
	if listener != nil {
		listener.Close()
	}
	units := d.all()
	errs := make([]error, len(units))
	var wg sync.WaitGroup
	for i, u := range units {
		wg.Go(func() { errs[i] = u.close(ctx) })
	}
	wg.Wait()
	d.control.Close()
	for i, err := range errs {
		if err != nil {
			d.log.Error("resource did not stop cleanly", "resource", units[i].name, "reason", err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return exit.New(exit.IO, "the next start resumes from what is on disk; look at the log above for the disk or process in the way", "not everything stopped cleanly: %w", err)
	}
	d.log.Info("hastd stopped")
	return nil
}

// The backend of the API.

func (d *server) Node() string { return d.node.Name }

// Samples is the source of the metrics; resources are asked at once, so that one
// that hangs costs the others nothing.
func (d *server) Samples(ctx context.Context) []metrics.Sample {
	units := d.all()
	samples := make([]metrics.Sample, len(units))
	var wg sync.WaitGroup
	for i, u := range units {
		wg.Go(func() { samples[i] = u.sample(ctx) })
	}
	wg.Wait()
	return samples
}

// statusTimeout bounds how long one resource may take to tell its status.
const statusTimeout = 3 * time.Second

func (d *server) Status(ctx context.Context) []api.Resource {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	resources := []api.Resource{}
	for _, s := range d.Samples(ctx) {
		resources = append(resources, s.Resource)
	}
	return resources
}

func (d *server) Resource(ctx context.Context, name string) (api.Resource, bool) {
	u := d.unit(name)
	if u == nil {
		return api.Resource{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	return u.sample(ctx).Resource, true
}

func (d *server) Command(ctx context.Context, name string, c replicate.Command) error {
	u := d.unit(name)
	if u == nil {
		return fs.ErrNotExist // the server asked for it before
	}
	return u.command(ctx, c)
}

func (d *server) Subscribe() (<-chan api.Event, func()) { return d.hub.Subscribe() }

// Summary is one line for systemctl status.
func (d *server) Summary() string {
	counts := map[string]int{}
	n := 0
	for _, r := range d.Status(context.Background()) {
		counts[r.Role]++
		n++
	}
	return fmt.Sprintf("%d resources: %d primary, %d secondary, %d init", n, counts["primary"], counts["secondary"], counts["init"])
}

// Alive says whether every resource that runs answers in time.
func (d *server) Alive(within time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for _, u := range d.all() {
		if u.run != nil {
			if _, err := u.run.Status(ctx); err != nil {
				return false
			}
		}
	}
	return true
}
