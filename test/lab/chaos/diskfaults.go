package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hastd/test/lab"
	"hastd/test/lab/disk"
)

const (
	// noticeLimit is how long a disk may err before it is given up. One that cannot
	// be read is not, as long as it can be written: the peer's copy repairs it.
	noticeLimit = 10 * time.Second
	// hangTimeout is the daemons' disk-timeout: a disk silent for so long has failed.
	hangTimeout = 8 * time.Second
)

// diskFails: the service goes on from the peer's copy, is moved there if it was
// not, and the disk comes back with what it held.
func (r *run) diskFails(ctx context.Context, op disk.Op) (string, error) {
	s, side := r.one(), lab.Side(r.rng.IntN(2))
	if op == disk.OpRead {
		// Only the blocks' load reads past all caches, and only where it runs.
		s = r.services[0]
		side = s.active
	}
	f := disk.Fault{Op: op, After: r.rng.IntN(20)}
	detail := fmt.Sprintf("%s on %v (primary: %v), after %d", s.resource(), side, side == s.active, f.After)
	d := r.lab.Nodes[side].Replica(s.resource()).Disk()
	return r.diskGoes(ctx, s, side, detail, false, op == disk.OpWrite, func() error { return d.Fail(f) }, d.Heal)
}

// diskHangs: it answers nothing for longer than a disk may.
func (r *run) diskHangs(ctx context.Context) (string, error) {
	s, side := r.one(), lab.Side(r.rng.IntN(2))
	detail := fmt.Sprintf("%s on %v (primary: %v)", s.resource(), side, side == s.active)
	d := r.lab.Nodes[side].Replica(s.resource()).Disk()
	return r.diskGoes(ctx, s, side, detail, true, true, d.Freeze, d.Thaw)
}

// diskGoes breaks a disk, waits until it is given up (which it must be, or may
// be), moves the service and takes the disk in again.
func (r *run) diskGoes(ctx context.Context, s *service, side lab.Side, detail string, hangs, must bool, breakIt, mendIt func() error) (string, error) {
	n := r.lab.Nodes[side]
	rep := n.Replica(s.resource())
	if err := breakIt(); err != nil {
		return detail, err
	}
	limit := noticeLimit
	if hangs {
		limit += hangTimeout
	}
	err := await(ctx, limit, "the disk is told as failed", func() (bool, error) {
		st, err := rep.Status()
		return err == nil && (st.Disk == "failed" || st.Disk == "diskless"), err
	})
	switch {
	case err != nil && must:
		return detail, err
	case err != nil:
		return detail + ", not given up", mendIt()
	}
	if err := r.hold(ctx, 300*time.Millisecond, 2*time.Second); err != nil {
		return detail, err
	}
	if s.active == side {
		if err := r.move(ctx, s, true); err != nil {
			return detail, err
		}
	}
	return detail, r.without(ctx, n, s, hangs, mendIt)
}

// without does something to a component while no daemon has it open.
func (r *run) without(ctx context.Context, n *lab.Node, s *service, hangs bool, do func() error) error {
	// A process with a request in a disk that hangs does not end, whatever it does:
	// then only the role is given up.
	if !hangs && len(r.on(n)) == 0 && r.rng.IntN(2) == 0 {
		if err := n.Stop(); err != nil {
			return err
		}
		return errors.Join(do(), n.Start())
	}
	role := func(to string) error {
		return await(ctx, promoteLimit, fmt.Sprintf("role %s of %s on %v", to, s.resource(), n.Side), func() (bool, error) {
			err := n.Replica(s.resource()).Role(to, false)
			no, ok := errors.AsType[*lab.Refusal](err)
			// (Busy, too, while what hung keeps the disk open.)
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
	return fmt.Sprintf("%s on %v", s.resource(), n.Side), r.without(ctx, n, s, false, func() error {
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
