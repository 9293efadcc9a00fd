package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hastd/test/lab"
)

// app is an application on a resource.
type app interface {
	resource() string
	// start begins on a node that is primary; stop ends at once, also when the
	// device is dead; leave ends in good order.
	start(ctx context.Context, n *lab.Node) error
	stop(ctx context.Context) error
	leave(ctx context.Context) error
	// settled: what was not answered so far is not under way any more.
	// powerLost: what no flush covers may be gone.
	settled()
	powerLost()
	alive() bool
	progress(ctx context.Context) error
	check(ctx context.Context, compare func() error) error
	meter() *meter
	end() error
}

// service is an application and where it is.
type service struct {
	app
	active lab.Side
}

func (r *run) node(s *service) *lab.Node  { return r.lab.Nodes[s.active] }
func (r *run) other(s *service) *lab.Node { return r.lab.Nodes[s.active.Other()] }

// on are the services of a node.
func (r *run) on(n *lab.Node) (mine []*service) {
	for _, s := range r.services {
		if s.active == n.Side {
			mine = append(mine, s)
		}
	}
	return mine
}

// promote makes a node primary for a service, without force, for as long as it
// takes. It never asks while the other node might serve.
func (r *run) promote(ctx context.Context, s *service, side lab.Side) error {
	n := r.lab.Nodes[side]
	peer := n.Side.Other()
	if p := r.lab.Nodes[peer]; p.Alive() {
		st, err := p.Replica(s.resource()).Status()
		if err != nil {
			return fmt.Errorf("chaos: whether %v serves %s is not known, so %v is not promoted: %w", peer, s.resource(), side, err)
		}
		if st.Role == "primary" {
			return fmt.Errorf("chaos: the operator was about to promote %v while %v is %v", side, peer, st)
		}
	}
	told := map[string]bool{}
	err := await(ctx, promoteLimit, fmt.Sprintf("%v becomes primary of %s", side, s.resource()), func() (bool, error) {
		err := n.Replica(s.resource()).Role("primary", false)
		if no, ok := errors.AsType[*lab.Refusal](err); ok && !told[no.Text] {
			told[no.Text] = true
			r.rep.refused(no)
			r.say("%v refuses %s: %s", side, s.resource(), no.Text)
		}
		return err == nil, err
	})
	if err != nil {
		return err
	}
	st, err := n.Replica(s.resource()).Status()
	if err != nil {
		return err
	}
	if st.Role != "primary" {
		return fmt.Errorf("chaos: %v said yes to being primary of %s and is %v", side, s.resource(), st)
	}
	if side != s.active {
		r.rep.Failovers++
	}
	s.active = side
	return nil
}

// bring promotes and starts the application.
func (r *run) bring(ctx context.Context, s *service, side lab.Side) error {
	if err := r.promote(ctx, s, side); err != nil {
		return err
	}
	return s.start(ctx, r.lab.Nodes[side])
}

// complete waits until both replicas of all resources are; a split-brain, which
// nothing here may cause, ends the waiting at once.
func (r *run) complete(ctx context.Context) error {
	for _, s := range r.services {
		if err := r.completeOf(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) completeOf(ctx context.Context, s *service) error {
	for _, n := range r.lab.Nodes {
		var last lab.Status
		err := await(ctx, syncLimit, fmt.Sprintf("%s is complete on %v", s.resource(), n.Side), func() (bool, error) {
			st, err := n.Replica(s.resource()).Status()
			if err != nil {
				return !n.Alive(), err
			}
			last = st
			return st.Status == "complete" || st.Status == "split-brain", nil
		})
		switch {
		case err != nil:
			return fmt.Errorf("%w; it is: %v", err, last)
		case last.Status == "split-brain":
			return fmt.Errorf("chaos: split-brain of %s, and no fault here explains it: %v", s.resource(), last)
		case last.Status != "complete":
			return fmt.Errorf("chaos: hastd on %v has ended while it was waited for", n.Side)
		}
	}
	return nil
}

// isComplete asks once.
func (r *run) isComplete() bool {
	for _, s := range r.services {
		for _, n := range r.lab.Nodes {
			if st, err := n.Replica(s.resource()).Status(); err != nil || st.Status != "complete" {
				return false
			}
		}
	}
	return true
}

// demote ends the primary's role; the device may be in use for a moment more.
func (r *run) demote(ctx context.Context, s *service) error {
	return await(ctx, promoteLimit, fmt.Sprintf("%v steps down from %s", s.active, s.resource()), func() (bool, error) {
		err := r.node(s).Replica(s.resource()).Role("secondary", false)
		if no, ok := errors.AsType[*lab.Refusal](err); ok && no.Code == lab.CodeBusy {
			return false, err
		}
		return err == nil, err
	})
}

// move is a planned switch. Once nobody writes both replicas can become complete,
// and only then the other one is promoted; unless there is one good copy only.
func (r *run) move(ctx context.Context, s *service, onlyCopyThere bool) error {
	err := s.leave(ctx)
	if err != nil && s.app == r.db && r.groups.outOfMemory(databaseGroup) {
		r.note("the database was killed for want of memory while it stopped: %v", err)
		err = s.stop(ctx)
	}
	if err != nil {
		return err
	}
	if err := r.demote(ctx, s); err != nil {
		return err
	}
	s.settled()
	if !onlyCopyThere {
		if err := r.completeOf(ctx, s); err != nil {
			return err
		}
	}
	return r.bring(ctx, s, s.active.Other())
}

// crash is what becomes of a node whose daemon or power goes, and of what ran
// there. With failover the other node takes over, if the pair was complete when
// it happened: else the other may lack what was acknowledged, and the services
// wait for this node, as they do without failover.
func (r *run) crash(ctx context.Context, n *lab.Node, power, failover bool) (detail string, err error) {
	detail = fmt.Sprintf("%v (%d services there)", n.Side, len(r.on(n)))
	if failover && (r.parted || !r.isComplete()) {
		failover = false
		detail += ", not complete: no failover"
	}
	mine := r.on(n)
	down, up := n.Kill, n.Start
	if power {
		down, up = n.PowerLoss, n.PowerUp
	}
	if err := down(); err != nil {
		return detail, err
	}
	for _, s := range mine {
		if err := s.stop(ctx); err != nil {
			return detail, err
		}
	}
	if failover {
		for _, s := range mine {
			s.settled()
			if err := r.bring(ctx, s, n.Side.Other()); err != nil {
				return detail, err
			}
		}
	}
	if err := r.hold(ctx, 300*time.Millisecond, 2*time.Second); err != nil {
		return detail, err
	}
	if err := up(); err != nil {
		return detail, err
	}
	if failover {
		return detail, nil
	}
	for _, s := range mine {
		s.settled()
		if power {
			s.powerLost()
		}
		if err := r.bring(ctx, s, n.Side); err != nil {
			return detail, err
		}
	}
	return detail, nil
}

// hold lets a fault last for a time between two.
func (r *run) hold(ctx context.Context, least, most time.Duration) error {
	return sleep(ctx, r.between(least, most))
}

func (r *run) between(least, most time.Duration) time.Duration {
	return least + time.Duration(r.rng.Int64N(int64(most-least)+1))
}
