package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hastd/cluster"
	frunner "hastd/cluster/fence/runner"
	crunner "hastd/cluster/runner"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/build"
	"hastd/cmd/internal/daemon"
	"hastd/cmd/internal/exit"
	"hastd/cmd/internal/metrics"
	"hastd/conf"
)

// server is everything that runs. It is the backend of the API and the source of
// the metrics.
type server struct {
	o       daemon.Setup
	hastd   conf.Hastd
	vipd    conf.Vipd
	hub     api.Hub
	control *daemon.Socket
	servers daemon.Servers
	ctx     context.Context // ends when the daemon stops
	cancel  context.CancelFunc
	groups  []*group // in the order of the configuration
	console crunner.Console
	fencer  atomic.Pointer[frunner.Fencer] // nil: toc is off
	peers   peers
	beats   atomic.Pointer[beats] // nil: none
	quorum  *quorum               // nil: quorum is off
	part    part
	began   chan struct{} // closed once everything runs: orders wait for it
	again   func() error  // puts another vipd in this one's place; nil: it cannot
	wg      sync.WaitGroup

	reloading sync.Mutex // one reload at a time
}

// stopTimeout bounds the end of everything but the groups, which have limits of
// their own.
const stopTimeout = 5 * time.Second

// start brings everything up. A group that cannot work says so in its status; only
// what makes the daemon useless or wrong is an error.
func start(o daemon.Setup, again func() error) (*server, error) {
	s, err := startWith(o, thisMachine())
	if err != nil {
		return nil, err
	}
	s.again = again
	s.startBeats()
	if s.quorum != nil {
		if s.beats.Load() == nil {
			return nil, errors.Join(exit.New(exit.Config, "the log says what is wrong with them", `quorum = "majority" needs heartbeats`), s.Stop())
		}
		s.quorum.start()
	}
	close(s.began)
	return s, nil
}

func startWith(o daemon.Setup, out outside) (*server, error) {
	hastd, vipd := o.Conf.Effective(o.Node)
	s := &server{o: o, hastd: hastd, vipd: vipd, console: out.console, servers: daemon.Servers{Log: o.Log}, began: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, w := range o.Conf.Warnings {
		o.Log.Warn(w)
	}
	var err error
	if s.control, err = daemon.ListenControl(about.Name, vipd.Control); err != nil {
		s.cancel()
		return nil, err
	}
	if s.majority() {
		if s.quorum, err = newQuorum(s); err != nil {
			s.cancel()
			s.control.Close()
			return nil, err
		}
	}
	s.part.recall(s)
	storage := newStorage(hastd.Control)
	for _, g := range o.Conf.Groups {
		if !slices.Contains(g.Nodes, o.Node.Name) {
			continue
		}
		u, err := newGroup(s, g, storage)
		if err != nil {
			s.cancel()
			s.control.Close()
			return nil, err
		}
		s.groups = append(s.groups, u)
	}
	// Before anything is done that another node could do, too.
	if err := s.arm(out); err != nil {
		s.cancel()
		s.control.Close()
		return nil, err
	}
	for _, u := range s.groups {
		s.wg.Go(func() { u.run(s.ctx) })
	}
	if len(o.Conf.ResourceOn(o.Node.Name)) > 0 {
		s.wg.Go(func() { s.guardHastd(s.ctx) })
	}
	s.servers.Serve(s.ctx, s.control, api.NewGroupHandler(s), 0)
	s.servers.ServeWeb(s.ctx, vipd.HTTP, daemon.Web(o.Log, metrics.NewGroupCollector(s), s.Alive))
	o.Log.Info("vipd runs", "node", o.Node.Name, "cluster", o.Conf.Cluster.Name, "groups", len(s.groups), "version", build.Read().String())
	return s, nil
}

// Stop takes all groups down at once, each within its own limits.
func (s *server) Stop() error {
	s.o.Log.Info("vipd stops: the groups go down")
	s.quorum.leaving()
	s.cancel()
	s.hub.Close()
	s.wg.Wait()
	var left []string
	for _, u := range s.groups {
		if !u.down.Load() {
			name := u.conf.Name
			if u.machine.Status().Frozen {
				name += " (it is frozen)"
			}
			left = append(left, name)
		}
	}
	if len(left) == 0 {
		s.disarm()
		s.quorum.leave()
	} else {
		// Nothing is handed over: the others wait for the lease, or for the watchdog, which
		// is not fed any more before the lease is renewed for the last time.
		s.abandon()
		s.quorum.parting()
	}
	s.quorum.stop()
	s.beats.Load().stop(nil) // the others have heard what is up and what is not
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	s.servers.Stop(ctx)
	s.control.Close()
	if len(left) > 0 {
		return exit.New(exit.Again, "the log above names the part and who uses it; the next vipd keeps what is up if this node may still have the group, else takes it down",
			"not everything went down: %s", strings.Join(left, ", "))
	}
	s.o.Log.Info("vipd stopped")
	return nil
}

// Summary is one line for systemctl status.
func (s *server) Summary() string {
	var words []string
	for _, u := range s.groups {
		words = append(words, u.conf.Name+" "+strings.ToLower(u.machine.Status().State.String()))
	}
	return fmt.Sprintf("%d groups: %s", len(s.groups), strings.Join(words, ", "))
}

// Alive says whether every group's machine still takes events. Votes that wait for a disk
// count as late as for the watchdog: who kills vipd for them has the machine reset.
func (s *server) Alive(within time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for _, u := range s.groups {
		if !u.machine.Alive(ctx) {
			return false
		}
	}
	return s.quorum == nil || time.Duration(s.quorum.silent.Load()) <= votesLimit
}

// The backend of the API.

// Node is this node's name.
func (s *server) Node() string { return s.o.Node.Name }

// Subscribe gives the events from now on.
func (s *server) Subscribe() (<-chan api.Event, func()) { return s.hub.Subscribe() }

func (s *server) event(kind, name, from, to, reason string) {
	s.hub.Publish(api.Event{Time: time.Now(), Node: s.o.Node.Name, Kind: kind, Name: name, Old: from, New: to, Reason: reason})
}

// Groups are the groups of this node.
func (s *server) Groups() []api.Group {
	list := []api.Group{}
	for _, u := range s.groups {
		list = append(list, u.status())
	}
	return list
}

// VIPs are their elections.
func (s *server) VIPs() []api.VIP {
	list := []api.VIP{}
	for _, u := range s.groups {
		list = append(list, u.vip())
	}
	return list
}

var orders = map[string]cluster.Order{
	"online": cluster.OrderOnline, "offline": cluster.OrderOffline, "switch": cluster.OrderSwitch,
	"freeze": cluster.OrderFreeze, "unfreeze": cluster.OrderUnfreeze, "clear": cluster.OrderClear,
}

// Order gives an operator's order to a group.
func (s *server) Order(ctx context.Context, name, order, part string) error {
	for _, u := range s.groups {
		if u.conf.Name == name {
			s.o.Log.Info("order", "group", name, "order", order, "part", part)
			return u.order(ctx, order, part)
		}
	}
	return errors.New("no such group") // the server asked before
}
