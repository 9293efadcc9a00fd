package sim

import (
	"hastd/metadata"
	"hastd/replicate"
)

// operator is the person (or cluster manager) in front of the pair: at first one
// who does all kinds of things, later one who helps.
type operator struct {
	trouble  int64 // since when the pair is parted or refused
	victim   int
	attempts int
	lonely   int64 // since when nobody is primary
	tries    int
}

// minRate is the lowest max-rate that an operator sets, in bytes a second: healing
// is to end within healTime.
const minRate = 1 << 20

func (n *node) idleOrders() bool { return n.state == running && len(n.commands) == 0 }

func (n *node) role(r metadata.Role, force bool) *order {
	return n.command(replicate.Command{Kind: replicate.CmdRole, Role: r, Force: force})
}

// operate is one round of the careless operator.
func (w *World) operate() {
	if w.quiet {
		return
	}
	w.after(w.span(w.prof.OperatorGap/4, w.prof.OperatorGap*2), w.operate)
	w.oracleCommands()
	w.oracleFork()
	first := w.rng.IntN(2)
	primaries := 0
	var st [2]replicate.Status
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state == running {
			st[i] = n.status()
			w.cover.status(&st[i])
			if st[i].Role == metadata.Primary {
				primaries++
			}
		}
	}
	for k := range w.nodes {
		i := (first + k) % 2
		n := &w.nodes[i]
		if n.state != running && w.site != nil {
			continue // the host has other resources too
		}
		switch n.state {
		case off:
			if w.chance(0.5) {
				n.state = stopped
			}
			continue
		case stopped:
			switch {
			case w.chance(0.02) && w.prof.Enabled[faultDiskGone]:
				w.wipe(n)
			case w.chance(0.6):
				if n.speaks != present && w.chance(0.2) {
					w.installRelease()
				}
				n.start()
				if w.chance(0.9) {
					n.role(metadata.Secondary, false)
				}
			}
			continue
		}
		if !n.idleOrders() {
			continue
		}
		w.operateOn(n, &st[i], &st[1-i], primaries)
	}
}

func (w *World) operateOn(n *node, st, peer *replicate.Status, primaries int) {
	force := w.chance(0.25)
	if w.prof.Cautious {
		force = w.chance(0.03)
	}
	if w.prof.OnePrimary && w.peerOf(n).toBePrimary() {
		primaries++
	}
	if w.prof.Meddles && w.chance(0.3) {
		w.meddle(n, st)
		return
	}
	switch {
	case n.wipeNext && st.Role == metadata.Init && !n.opened:
		w.wipe(n)
	case st.Disk == "failed" && w.chance(0.3):
		n.app.close()
		n.role(metadata.Init, st.Role == metadata.Primary)
	case st.Role == metadata.Init:
		switch {
		case w.chance(0.01) && !n.opened && w.prof.Enabled[faultDiskGone]:
			w.wipe(n)
		case w.chance(0.6):
			n.role(metadata.Secondary, false)
		case primaries == 0 && w.chance(0.3):
			n.role(metadata.Primary, force)
		}
	case st.Connection == "refused" && w.strangers():
		if w.chance(0.3) {
			w.replace(n)
		}
	case st.Status == "split-brain" || st.Connection == "refused":
		switch {
		case w.chance(0.4):
			// leave it
		case st.Role == metadata.Primary:
			n.app.close()
			n.role(metadata.Secondary, w.chance(0.5))
		case w.chance(0.15):
			n.role(metadata.Primary, force)
		default:
			n.command(replicate.Command{Kind: replicate.CmdRecover})
		}
	case st.Suspended && w.chance(0.3):
		n.command(replicate.Command{Kind: replicate.CmdResume, WithError: w.chance(0.4)})
	case st.Connection == "standalone" && w.chance(0.4):
		n.command(replicate.Command{Kind: replicate.CmdConnect})
	case st.Role == metadata.Primary:
		switch x := w.rng.Float64(); {
		case x < 0.08:
			if w.chance(0.7) {
				n.app.close()
			}
			n.role(metadata.Secondary, w.chance(0.3))
		case x < 0.09:
			n.app.close()
			n.role(metadata.Init, true)
		case x < 0.11:
			n.command(replicate.Command{Kind: replicate.CmdDisconnect})
		case x < 0.12:
			n.command(replicate.Command{Kind: replicate.CmdReplaceConfig, Config: &replicate.Live{Suspend: w.prof.Suspend, MaxRate: w.span(minRate, 64<<20)}})
		case !n.app.opened && !n.app.manual:
			n.app.open()
		}
	case primaries == 0 && w.chance(0.5):
		n.role(metadata.Primary, force)
	case w.chance(0.02):
		if primaries == 0 || !w.prof.OnePrimary {
			n.role(metadata.Primary, force)
		}
	case w.chance(0.02):
		n.role(metadata.Init, false)
	case w.chance(0.02):
		n.command(replicate.Command{Kind: replicate.CmdDisconnect})
	case w.chance(0.005):
		n.command(replicate.Command{Kind: replicate.CmdShutdown})
	}
}

// meddle gives orders that nothing calls for, some at the same time: a script gone wrong, or
// two persons.
func (w *World) meddle(n *node, st *replicate.Status) {
	for range 1 + w.rng.IntN(3) {
		switch w.rng.IntN(10) {
		case 0:
			w.eioOK = true
			n.command(replicate.Command{Kind: replicate.CmdSuspend})
		case 1, 2:
			n.command(replicate.Command{Kind: replicate.CmdResume})
		case 3:
			n.command(replicate.Command{Kind: replicate.CmdResume, WithError: true})
		case 4, 5:
			live := replicate.Live{Suspend: w.chance(0.3), LatencyTarget: replicate.Instant(w.span(int64(100*microsecond), int64(60*millisecond)))}
			if w.chance(0.7) {
				live.MaxRate = w.span(minRate, 64<<20)
			}
			n.command(replicate.Command{Kind: replicate.CmdReplaceConfig, Config: &live})
		case 6:
			if w.chance(0.2) && !w.diskFault {
				n.command(replicate.Command{Kind: replicate.CmdRecover})
			}
		case 7:
			n.command(replicate.Command{Kind: replicate.CmdConnect})
		case 8:
			if w.chance(0.3) {
				n.command(replicate.Command{Kind: replicate.CmdDisconnect})
			}
		case 9:
			if st.Role != metadata.Primary || w.chance(0.2) {
				w.eioOK = true
				n.command(replicate.Command{Kind: replicate.CmdShutdown})
			}
		}
	}
}

// toBePrimary says whether an order to promote the node is under way.
func (n *node) toBePrimary() bool {
	for _, o := range n.commands {
		if o.kind == replicate.CmdRole && o.role == metadata.Primary {
			return true
		}
	}
	return false
}

// strangers says whether the two replicas belong to different resources, so that
// one has to be made anew.
func (w *World) strangers() bool {
	a, b := &w.nodes[0].judge.sb, &w.nodes[1].judge.sb
	return a.Resuid != 0 && b.Resuid != 0 && a.Resuid != b.Resuid
}

// replace gives up a replica: to init, then created anew.
func (w *World) replace(n *node) {
	n.wipeNext = true
	n.app.close()
	n.role(metadata.Init, n.prov != provNone)
}

// wipe makes a replica anew: a new disk, and `hastctl create`.
func (w *World) wipe(n *node) {
	if n.state == running && (n.opened || len(n.ops) > len(n.freeOps)) {
		return
	}
	n.wipeNext = false
	n.moment(momentGiven)
	w.tracef("%s: replica created anew", n.name)
	if p := w.peerOf(n); n.judge.sbOK && (!p.consistent() || p.toldFailed || n.judge.sb.Marks.Has(metadata.Raised)) {
		w.restored = true // a person gave up the better replica, or the record of both
	}
	w.cover.fault("wipe")
	j := &n.judge
	n.disk.blank()
	j.sbOK = false
	n.create()
	n.forget()
	j.from, j.cut = 0, 0
	n.recovering, n.copied = false, false
}

// help is one round of the operator who wants the pair whole.
func (w *World) help() {
	w.oracleCommands()
	w.oracleFork()
	if w.installRelease() {
		return
	}
	op := &w.op
	var st [2]replicate.Status
	primaries, ready := 0, true
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state != running && w.site != nil {
			return // the site brings the host back
		}
		switch n.state {
		case off:
			n.state = stopped
			ready = false
			continue
		case stopped:
			n.start()
			n.role(metadata.Secondary, false)
			ready = false
			continue
		}
		st[i] = n.status()
		if st[i].Role == metadata.Primary {
			primaries++
		}
		if !n.idleOrders() {
			ready = false
			continue
		}
		switch {
		case n.wipeNext && st[i].Role == metadata.Init && !n.opened:
			w.wipe(n)
			ready = false
		case st[i].Disk == "failed" && st[i].Role != metadata.Init:
			n.app.close()
			n.role(metadata.Init, st[i].Role == metadata.Primary)
			ready = false
		case st[i].Role == metadata.Init:
			n.role(metadata.Secondary, false)
			ready = false
		case st[i].Suspended && st[i].SuspendReason == "operator":
			n.command(replicate.Command{Kind: replicate.CmdResume})
			ready = false
		case st[i].Connection == "standalone":
			n.command(replicate.Command{Kind: replicate.CmdConnect})
			ready = false
		}
	}
	if !ready {
		return
	}
	a, b := &w.nodes[0], &w.nodes[1]
	if w.giveUpCopy() {
		return
	}
	parted := false
	for i := range st {
		parted = parted || st[i].Connection == "split-brain" || st[i].Connection == "refused" || st[i].Status == "split-brain"
	}
	if !parted {
		op.trouble = 0
	} else if op.trouble == 0 {
		op.trouble = w.now
	}
	patience := 1500 * millisecond
	if w.forked() {
		patience = splitTime + second // let both say so first
	}
	if parted && w.now-op.trouble > patience {
		op.trouble = w.now
		w.reconcile(a, b, &st, primaries)
		return
	}
	if primaries == 2 {
		b.app.close()
		b.role(metadata.Secondary, true)
		return
	}
	if primaries == 0 && !parted {
		w.choosePrimary(&st)
		return
	}
	op.lonely = 0
	for i := range st {
		if n := &w.nodes[i]; st[i].Role == metadata.Primary && !n.app.opened && !n.app.manual && n.prov == provUp {
			n.app.open()
		}
	}
}

func (w *World) choosePrimary(st *[2]replicate.Status) {
	op := &w.op
	if op.lonely == 0 {
		op.lonely, op.tries = w.now, 0
	}
	if w.now-op.lonely < second {
		return // let them meet
	}
	i := op.tries % 2
	if op.tries < 2 && st[i].Disk != "uptodate" && st[1-i].Disk == "uptodate" {
		i = 1 - i
	}
	op.tries++
	w.nodes[i].role(metadata.Primary, op.tries > 8)
}

// reconcile ends a split-brain or a refusal, by milder means first.
func (w *World) reconcile(a, b *node, st *[2]replicate.Status, primaries int) {
	op := &w.op
	victim := op.victim % 2
	if primaries == 1 {
		for i := range st {
			if st[i].Role == metadata.Primary {
				victim = 1 - i
			}
		}
	}
	if a.copied != b.copied {
		victim = 0
		if b.copied {
			victim = 1
		}
	}
	for i := range w.nodes {
		if x, y := &w.nodes[i].judge.sb, &w.nodes[1-i].judge.sb; x.Size > y.DataSize {
			victim = i // agreed with itself on more than the other can hold
		}
	}
	op.attempts++
	v := &w.nodes[victim]
	if w.strangers() || v.judge.sb.Size > w.peerOf(v).judge.sb.DataSize {
		w.replace(v)
		return
	}
	if st[victim].Role == metadata.Primary {
		v.app.close()
		v.role(metadata.Secondary, true)
		return
	}
	switch {
	case op.attempts%8 < 3:
		v.command(replicate.Command{Kind: replicate.CmdRecover})
	case op.attempts%8 < 5:
		op.victim++
		o := &w.nodes[1-victim]
		if st[1-victim].Role == metadata.Primary {
			o.app.close()
			o.role(metadata.Secondary, true)
			return
		}
		o.role(metadata.Primary, true)
	default:
		w.replace(v)
	}
}
