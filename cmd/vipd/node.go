package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"hastd/cluster"
	brunner "hastd/cluster/beat/runner"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
)

// part is whether this node takes part in the cluster, as persons ordered it. Such an
// order is forgotten when vipd is started again; that there was one is not.
type part struct {
	ordering sync.Mutex // held while an order begins

	mu      sync.Mutex
	state   string // "" as long as nobody ordered otherwise; stopping stopped aborted
	reason  string
	detail  string // what is waited for while it stops
	since   time.Time
	last    *api.NodeEnd
	took    []*group           // groups that the stop took offline
	end     context.CancelFunc // of the stop under way
	done    chan struct{}      // closed when it has ended
	started time.Time          // vipd
}

const (
	stopping = "stopping"
	stopped  = "stopped"
	aborted  = "aborted"
)

// endFile is where the last stop is noted, in the folder of the state.
const endFile = "last-stop"

// maxEndFile bounds it, in bytes.
const maxEndFile = 4 << 10

// recall reads what was noted of the last stop.
func (p *part) recall(s *server) {
	p.started = time.Now()
	f, err := os.Open(filepath.Join(s.vipd.State, endFile))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var last api.NodeEnd
	if err == nil {
		b := make([]byte, maxEndFile)
		n, _ := f.Read(b)
		f.Close()
		err = json.Unmarshal(b[:n], &last)
	}
	if err != nil {
		s.o.Log.Warn("what was noted of the last stop cannot be read", "reason", err)
		return
	}
	p.last = &last
}

// set changes the state, and notes a stop or an abort.
func (s *server) setPart(state, reason, who string) {
	p := &s.part
	p.mu.Lock()
	was := p.state
	p.state, p.reason, p.detail, p.since = state, reason, "", time.Now()
	if reason != "" && (p.last == nil || was == "" || p.last.Reason != reason) {
		p.last = &api.NodeEnd{Reason: reason, Who: who, Time: p.since}
		if err := p.note(s.vipd.State); err != nil {
			s.o.Log.Warn("the reason cannot be kept over a restart", "reason", err)
		}
	}
	p.mu.Unlock()
	if state == "" {
		state = "starting"
	}
	s.o.Log.Info("node "+s.Node()+": "+state, "reason", reason)
	s.event("node", s.Node(), was, state, reason)
}

func (p *part) note(dir string) error {
	b, err := json.Marshal(p.last)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, endFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// OrderNode carries out what a person orders of this node.
func (s *server) OrderNode(ctx context.Context, order string, req api.NodeRequest) error {
	if s.quorum == nil {
		return s.needsMajority("a node is no member of anything: hastctl group offline all takes its groups down")
	}
	if err := s.running(ctx); err != nil {
		return err
	}
	s.o.Log.Info("order", "node", s.Node(), "order", order, "who", req.Who, "bootstrap", req.Bootstrap, "others-are-down", req.OthersAreDown)
	switch order {
	case "stop":
		return s.stopNode(ctx, req.Who)
	case "start":
		return s.startNode(ctx, req)
	case "abort":
		return s.abortNode(req.Who)
	case "reinit":
		return s.reinitNode()
	}
	return s.restartNode()
}

// running waits until everything of vipd has begun.
func (s *server) running(ctx context.Context) error {
	select {
	case <-s.began:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stopNode takes everything down, hands over, and leaves the cluster.
func (s *server) stopNode(ctx context.Context, who string) error {
	done, err := s.beginStop(who)
	if err != nil || done == nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// beginStop gives what is closed when the stop has ended; nil: there is nothing to stop.
func (s *server) beginStop(who string) (<-chan struct{}, error) {
	p := &s.part
	p.ordering.Lock()
	defer p.ordering.Unlock()
	p.mu.Lock()
	state, done := p.state, p.done
	p.mu.Unlock()
	switch state {
	case stopped, aborted:
		return nil, nil
	case "":
		for _, u := range s.groups {
			if u.machine.Status().Frozen {
				return nil, exit.New(exit.Refused, "hastctl group unfreeze "+u.conf.Name, "group %s is frozen on node %s: it cannot be taken down", u.conf.Name, s.Node())
			}
		}
		work, end := context.WithCancel(s.ctx)
		done = make(chan struct{})
		p.mu.Lock()
		p.end, p.done = end, done
		p.mu.Unlock()
		s.setPart(stopping, api.ReasonStop, who)
		s.wg.Go(func() {
			defer close(done)
			defer end()
			s.stopWork(work)
		})
	}
	return done, nil
}

// againEvery is the time between two tries to take something down that is in use.
const againEvery = time.Second

// stopWork is all of a stop. Nothing of it ends before it is done, but by an abort.
func (s *server) stopWork(ctx context.Context) {
	s.quorum.leaving() // first: another node leads while services take their time
	var wg sync.WaitGroup
	for _, u := range s.groups {
		if u.machine.Status().Disabled {
			continue
		}
		s.part.mu.Lock()
		s.part.took = append(s.part.took, u)
		s.part.mu.Unlock()
		wg.Go(func() {
			s.untilDone(ctx, "group "+u.conf.Name, func() error { return u.machine.Order(ctx, cluster.OrderOffline) })
		})
	}
	wg.Wait()
	st := newStorage(s.hastd.Control)
	for _, name := range s.quorum.replicas() {
		wg.Go(func() {
			s.untilDone(ctx, "resource "+name, func() error {
				r, err := st.Replica(ctx, name)
				if err == nil && r.Role == "primary" {
					err = st.Role(ctx, name, "secondary", false)
				}
				if err != nil && st.Gone(err) {
					return nil
				}
				return err
			})
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	s.quorum.leave()
	s.partWays(nil)
	s.setPart(stopped, api.ReasonStop, "")
}

// partWays ends everything by which this node takes part.
func (s *server) partWays(why error) {
	s.quorum.stop()
	s.beats.Swap(nil).stop(why)
}

// untilDone tries until it is done, or ctx ends, and says meanwhile what is waited for.
func (s *server) untilDone(ctx context.Context, what string, do func() error) {
	told := ""
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return
		}
		text := what + ": " + err.Error()
		if text != told {
			told = text
			s.o.Log.Warn("the stop of this node waits", "reason", text)
		}
		s.part.mu.Lock()
		s.part.detail = text
		s.part.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(againEvery):
		}
	}
}

const (
	// abortLimit bounds what an abort waits for: that hastd took the orders.
	abortLimit = 2 * time.Second
	// abortPause is the time between two tries, while hastd carries out another order.
	abortPause = 20 * time.Millisecond
)

// forceDown demotes, as soon as an order under way has ended: the group's own, for one.
func forceDown(ctx context.Context, st *storage, resource string) error {
	for {
		err := st.Role(ctx, resource, "secondary", true)
		if err == nil || !st.Again(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(abortPause):
		}
	}
}

// abortNode ends everything at once: what applications have under way fails. The groups
// go down in their own time.
func (s *server) abortNode(who string) error {
	p := &s.part
	p.ordering.Lock()
	defer p.ordering.Unlock()
	p.mu.Lock()
	state, end, done := p.state, p.end, p.done
	p.mu.Unlock()
	if state == stopped || state == aborted {
		return nil
	}
	s.setPart(aborted, api.ReasonAbort, who)
	ctx, cancel := context.WithTimeout(context.Background(), abortLimit)
	defer cancel()
	st := newStorage(s.hastd.Control)
	var wg sync.WaitGroup
	for _, name := range s.quorum.replicas() {
		wg.Go(func() {
			_ = st.Fail(ctx, name) // refused unless it is suspended
			if err := forceDown(ctx, st, name); err != nil && !st.Gone(err) {
				s.o.Log.Error("a resource is not secondary yet", "resource", name, "reason", err)
			}
		})
	}
	if state == stopping {
		end()
		<-done
	}
	for _, u := range s.groups {
		if !u.machine.Status().Disabled {
			p.mu.Lock()
			if !slices.Contains(p.took, u) {
				p.took = append(p.took, u)
			}
			p.mu.Unlock()
			s.wg.Go(func() { _ = u.machine.Order(s.ctx, cluster.OrderOffline) })
		}
	}
	wg.Wait()
	s.partWays(nil)
	return nil
}

// startNode has this node take part again, and waits until a view names it.
func (s *server) startNode(ctx context.Context, req api.NodeRequest) error {
	if err := s.beginStart(req); err != nil {
		return err
	}
	if req.Bootstrap || req.OthersAreDown {
		if err := s.quorum.force(ctx, req); err != nil {
			return err
		}
	}
	return s.awaitJoined(ctx)
}

// beginStart begins to take part, if that was ended.
func (s *server) beginStart(req api.NodeRequest) error {
	p := &s.part
	p.ordering.Lock()
	defer p.ordering.Unlock()
	p.mu.Lock()
	state, took := p.state, p.took
	p.mu.Unlock()
	if _, failed := s.quorum.takesPart(); failed != nil {
		return exit.New(exit.Refused, "mend what it names, then start vipd again", "node %s gave up: %w", s.Node(), failed)
	}
	switch state {
	case stopping:
		return exit.New(exit.Refused, "wait for it, or end it with hastctl node abort", "node %s is stopping", s.Node())
	case stopped, aborted:
		if err := s.quorum.renew(); err != nil {
			return err
		}
		s.startBeats()
		if s.beats.Load() == nil {
			return exit.New(exit.Config, "the log says what is wrong with them", `quorum = "majority" needs heartbeats`)
		}
		s.quorum.start()
		s.setPart("", "", req.Who)
		for _, u := range took {
			if u.seat != nil || u.conf.Parallel {
				s.wg.Go(func() { _ = u.machine.Order(s.ctx, cluster.OrderOnline) })
			}
		}
		p.mu.Lock()
		p.took = nil
		p.mu.Unlock()
	}
	return nil
}

// awaitJoined waits until a view names this node.
func (s *server) awaitJoined(ctx context.Context) error {
	for {
		changed, st := s.quorum.run().Changed(), s.quorum.run().Status()
		if st.Up {
			return nil
		}
		select {
		case <-ctx.Done():
			n := s.NodeState()
			why := n.Detail
			if n.Reason != "" {
				why = fmt.Sprintf("%s: %s", n.Reason, why)
			}
			return exit.New(exit.Again, "it goes on; "+s.quorum.alone(), "node %s is %s: %s", s.Node(), n.State, why)
		case <-changed:
		}
	}
}

// restartNode ends vipd and starts it in its place, and leaves everything up: the next
// one adopts it, if it is a member and owner by then. Addresses live for the lease.
func (s *server) restartNode() error {
	p := &s.part
	p.mu.Lock()
	state := p.state
	p.mu.Unlock()
	if state != "" {
		return exit.New(exit.Refused, "hastctl node state tells more", "node %s is %s", s.Node(), state)
	}
	if s.again == nil {
		return exit.New(exit.Internal, "start vipd again", "this vipd cannot start itself again")
	}
	time.AfterFunc(answerTime, s.restart)
	return nil
}

// answerTime is how long a restart waits for its order to be answered.
const answerTime = 100 * time.Millisecond

// restart ends all but the groups and the process.
func (s *server) restart() {
	s.o.Log.Info("vipd starts itself again: the groups stay as they are")
	for _, u := range s.groups {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		if err := u.machine.Order(ctx, cluster.OrderFreeze); err != nil {
			s.o.Log.Warn("a group may be taken down", "group", u.conf.Name, "reason", err)
		}
		cancel()
	}
	s.cancel()
	s.hub.Close()
	s.wg.Wait()
	s.disarm()
	s.partWays(brunner.ErrBack)
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	s.servers.Stop(ctx)
	cancel()
	s.control.Close()
	err := s.again()
	s.o.Log.Error("vipd could not start itself again: start it", "reason", err)
	os.Exit(int(exit.Internal))
}
