package lab

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"hastd/test/lab/ledger"
	"hastd/test/lab/nbdclient"
)

// serviceLoad is a ledger's load that runs where the group's service runs: it begins
// when the group starts its service on a node, and lets go of the device when the
// group stops it.
type serviceLoad struct {
	l      *Lab
	led    *ledger.Ledger
	load   *ledger.Load
	on     atomic.Int32 // a Side, or nowhere
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	held bool // it rests whatever the service does
	err  error
}

const (
	nowhere = -1
	// serviceLook is the time between two looks where the service is.
	serviceLook = 5 * time.Millisecond
	// haltLimit bounds the end of requests once their connection is cut.
	haltLimit = 10 * time.Second
)

// startServiceLoad begins with the group online on a node.
func startServiceLoad(ctx context.Context, l *Lab, on *Node, seed uint64) (*serviceLoad, error) {
	c, err := on.NBD(ctx)
	if err != nil {
		return nil, err
	}
	size := c.Size
	c.Close()
	s := &serviceLoad{l: l, led: ledger.New(ledger.Options{Size: size, Seed: seed})}
	s.on.Store(int32(on.Side))
	ctx, s.cancel = context.WithCancel(ctx)
	s.load = ledger.Start(ctx, ledger.LoadOptions{Ledger: s.led, Connect: s.connect, Seed: seed, Workers: 4, MaxIO: 32 << 10, Pace: 2 * time.Millisecond})
	s.wg.Go(func() { s.follow(ctx) })
	return s, nil
}

// stop ends it.
func (s *serviceLoad) stop() {
	s.cancel()
	s.load.Stop()
	s.wg.Wait()
}

func (s *serviceLoad) connect(ctx context.Context) (*nbdclient.Client, error) {
	if on := s.on.Load(); on != nowhere {
		return s.l.Nodes[on].NBD(ctx)
	}
	return nil, errors.New("the service is nowhere")
}

// follow moves the load with the service.
func (s *serviceLoad) follow(ctx context.Context) {
	var was [2]bool
	for i, n := range s.l.Nodes {
		was[i] = n.HasApp()
	}
	tick := time.NewTicker(serviceLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, n := range s.l.Nodes {
			is := n.HasApp()
			switch on := s.on.Load(); {
			case is && !was[i]:
				s.move(ctx, n.Side)
			case !is && was[i] && on == int32(i):
				s.halt(ctx)
			}
			was[i] = is
		}
	}
}

func (s *serviceLoad) halt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, haltLimit)
	defer cancel()
	if err := s.load.Halt(ctx); err != nil {
		s.mu.Lock()
		s.err = errors.Join(s.err, err)
		s.mu.Unlock()
	}
}

// move is a service that was started: the node was promoted for it, so what other
// nodes were asked and did not answer is over.
func (s *serviceLoad) move(ctx context.Context, to Side) {
	s.halt(ctx)
	if s.on.Swap(int32(to)) != int32(to) {
		s.led.Settle()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held {
		s.load.Resume()
	}
}

// rest and goOn hold the load whatever the service does.
func (s *serviceLoad) rest(ctx context.Context) error {
	s.mu.Lock()
	s.held = true
	err := s.err
	s.mu.Unlock()
	return errors.Join(err, s.load.Pause(ctx))
}

func (s *serviceLoad) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = false
	s.load.Resume()
}

// halted has the load let go of the device, too: nothing is under way.
func (s *serviceLoad) halted(ctx context.Context) error { return s.load.Halt(ctx) }

// powerLost says that the only caches which had what was acknowledged lost it: what no
// flush covers may be gone.
func (s *serviceLoad) powerLost(ctx context.Context) error {
	if err := s.rest(ctx); err != nil {
		return err
	}
	defer s.goOn()
	if err := s.halted(ctx); err != nil {
		return err
	}
	s.led.Settle()
	s.led.PowerLost()
	return nil
}

// judge wants both replicas equal and nothing lost.
func (s *serviceLoad) judge(ctx context.Context) error {
	if err := s.rest(ctx); err != nil {
		return err
	}
	defer s.goOn()
	if err := s.load.Flush(ctx); err != nil {
		return err
	}
	if err := s.l.AwaitComplete(syncLimit); err != nil {
		return err
	}
	if err := s.l.CompareReplicas(s.led.Size()); err != nil {
		return err
	}
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	rep, err := s.led.Check(c, true)
	if err != nil {
		return err
	}
	return rep.Err()
}
