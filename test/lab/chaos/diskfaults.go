package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hastd/test/lab"
	"hastd/test/lab/disk"
)

// noticeLimit is how long a disk may err before it is given up. One that cannot be
// read is not, as long as it can be written: the peer's copy repairs it.
const noticeLimit = 10 * time.Second

// diskFails: the service goes on from the peer's copy, is moved there if it was
// not, and the disk comes back with what it held.
func (r *run) diskFails(ctx context.Context, op disk.Op) (string, error) {
	s, side := r.one(), lab.Side(r.rng.IntN(2))
	if op == disk.OpRead {
		// Only the blocks' load reads past all caches, and only where it runs.
		s = r.services[0]
		side = s.active
	}
	n := r.lab.Nodes[side]
	rep := n.Replica(s.resource())
	f := disk.Fault{Op: op, After: r.rng.IntN(20)}
	detail := fmt.Sprintf("%s on %v (primary: %v), after %d", s.resource(), side, side == s.active, f.After)
	if err := rep.Disk().Fail(f); err != nil {
		return detail, err
	}
	bad := func() bool {
		st, err := rep.Status()
		return err == nil && (st.Disk == "failed" || st.Disk == "diskless")
	}
	if err := await(ctx, noticeLimit, "the disk is told as failed", func() (bool, error) { return bad(), nil }); err != nil {
		if op == disk.OpWrite {
			return detail, err
		}
		return detail + ", not given up", rep.Disk().Heal()
	}
	if err := r.hold(ctx, 300*time.Millisecond, 2*time.Second); err != nil {
		return detail, err
	}
	if s.active == side {
		if err := r.move(ctx, s, true); err != nil {
			return detail, err
		}
	}
	return detail, r.without(ctx, n, s, rep.Disk().Heal)
}

// without does something to a component while no daemon has it open.
func (r *run) without(ctx context.Context, n *lab.Node, s *service, do func() error) error {
	if len(r.on(n)) == 0 && r.rng.IntN(2) == 0 {
		if err := n.Stop(); err != nil {
			return err
		}
		return errors.Join(do(), n.Start())
	}
	role := func(to string) error {
		return await(ctx, promoteLimit, fmt.Sprintf("role %s of %s on %v", to, s.resource(), n.Side), func() (bool, error) {
			err := n.Replica(s.resource()).Role(to, false)
			no, ok := errors.AsType[*lab.Refusal](err)
			return err == nil || ok && no.Code != lab.CodeBusy, err
		})
	}
	if err := role("init"); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return role("secondary")
}

// blank is the snapshot of a disk that nobody has written to.
const blank = "blank"

// diskReplaced puts an empty disk in, which gets everything from the peer.
func (r *run) diskReplaced(ctx context.Context) (string, error) {
	s := r.one()
	n := r.other(s)
	rep := n.Replica(s.resource())
	return fmt.Sprintf("%s on %v", s.resource(), n.Side), r.without(ctx, n, s, func() error {
		if err := rep.Disk().Restore(blank); err != nil {
			return err
		}
		return rep.Create()
	})
}

// mustRefuse asks a stale replica to be primary, without force.
func (r *run) mustRefuse(n *lab.Node, s *service) error {
	err := n.Replica(s.resource()).Role("primary", false)
	no, ok := errors.AsType[*lab.Refusal](err)
	switch {
	case err == nil:
		return fmt.Errorf("chaos: %v was promoted for %s without force, with half of a sync", n.Side, s.resource())
	case !ok:
		return err
	}
	r.rep.refused(no)
	return nil
}
