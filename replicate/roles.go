package replicate

import (
	"fmt"

	"hastd/metadata"
)

// job is the order being carried out; there is never more than one.
type job struct {
	command Command
	stage   stage
	until   Instant // of the stage; 0: no limit
	next    func()  // what the stage waits for is there
	needs   bool    // a durable change of the component is under way
	failed  func()  // what follows if the component fails meanwhile; nil: the order is refused
	leaving bool    // the node steps down: nothing new is begun with the peer
}

type stage uint8

const (
	running  stage = iota // something was asked for and will answer
	probing               // for a connection, at most until until
	asking                // for an answer of a peer that is connected
	settling              // for an agreement under way to end
	draining              // for application requests and sync to end
	quiet                 // for what the peer had asked of this node to end
)

// changing says whether the order is at a point where facts would not hold.
func (j *job) changing() bool { return j != nil && j.needs }

type providerState uint8

const (
	providerDown providerState = iota
	providerStarting
	providerUp
	providerStopping
)

func (m *Machine) onCommand(c *Command) {
	switch c.Kind {
	case CmdReplaceConfig:
		m.cfg.Live = *c.Config
		m.sync.budget = max(m.sync.budget, 0) // what moved without this cap is not owed to it
		m.finish(c, nil)
		return
	case CmdResume:
		m.onResume(c)
		return
	case CmdGrant:
		m.onGrant(c)
		return
	case CmdSuspend:
		m.onSuspend(c)
		return
	}
	if m.job != nil {
		m.finish(c, &Refusal{RefusedBusy, "another order for this resource is being carried out", "try again in a moment"})
		return
	}
	m.job = &job{command: *c}
	switch c.Kind {
	case CmdRole:
		m.toRole(c.Role)
	case CmdShutdown:
		m.job.command.Force = true
		m.toRole(metadata.Init)
	case CmdConnect:
		m.cmdConnect(false)
	case CmdDisconnect:
		m.cmdConnect(true)
	case CmdRecover:
		m.cmdRecover()
	default:
		m.done(&Refusal{RefusedInternal, "unknown order", ""})
	}
}

func (m *Machine) finish(c *Command, r *Refusal) {
	m.emit(Effect{Kind: EffAnswer, Command: c.ID, Refusal: r})
}

// done ends the order.
func (m *Machine) done(r *Refusal) {
	c := m.job.command
	m.job = nil
	m.finish(&c, r)
}

// wait lets the order wait for a stage.
func (m *Machine) wait(s stage, until Instant, next func()) {
	m.job.stage, m.job.until, m.job.next = s, until, next
}

// advanceJob goes on when what the order waits for is there.
func (m *Machine) advanceJob() {
	if m.job != nil && (m.job.stage == draining && (m.suspended != "" || m.tooLateAlone()) || m.cutting() && m.tooLateAlone()) {
		m.failHeld() // never acknowledged, and the provider is closed
	}
	for m.job != nil && m.job.stage != running && m.reached(m.job) {
		next := m.job.next
		m.job.stage, m.job.until, m.job.next = running, 0, nil
		next()
	}
}

// tooLateAlone: a primary that is stepping down lost its peer. It does not begin to go
// on alone for what was still under way, whose clients are gone: a raise would part
// it from a peer that is promoted now.
func (m *Machine) tooLateAlone() bool {
	return (m.steppingDown() || m.stopping()) && m.phase != linked && m.phase != agreeing && m.st != nil && !m.marks().Has(metadata.Raised)
}

func (m *Machine) reached(j *job) bool {
	switch j.stage {
	case probing:
		return m.phase == linked || m.now >= j.until || m.phase == lingering || m.disk != diskOpen ||
			m.phase == unlinked && (!m.wanted || m.now-m.downSince >= ProbeTime)
	case asking:
		return m.phase != linked || m.heard || m.now >= j.until
	case settling:
		return m.phase != greeting && m.phase != agreeing || j.until != 0 && m.now >= j.until
	case draining:
		return m.idle()
	case quiet:
		// A mark on its way to the state directory must land before the next opening
		// looks for it.
		return m.applying == 0 && m.marking == 0 && (!m.disk.usable() || m.diskOps == 0 && !m.st.Busy() && !m.st.Pending())
	}
	return false
}

// stopping: an order closes the provider. cutting: by force, so that nobody who uses
// it goes on whatever comes of it.
func (m *Machine) stopping() bool { return m.job != nil && m.provider == providerStopping }
func (m *Machine) cutting() bool  { return m.stopping() && m.job.command.Force }

func (m *Machine) steppingDown() bool { return m.job != nil && m.job.leaving }

// idle says whether no application request and no sync is under way.
func (m *Machine) idle() bool {
	return len(m.queue) == 0 && len(m.active) == 0 && len(m.bySeq) == 0 && len(m.flushQueue) == 0 &&
		!m.round.running && m.sync.ops == 0 && !m.sync.ending() && m.phase != agreeing && m.phase != greeting && (!m.taking || m.unmarked)
}

// durably changes the superblock for the order and goes on when that is durable.
func (m *Machine) durably(change func(sb *metadata.Superblock), next func()) {
	if m.disk != diskOpen {
		m.done(&Refusal{RefusedIO, "the disk failed: " + m.diskText, ""})
		return
	}
	m.job.needs = true
	m.after(m.st.Update(change), func() {
		m.job.needs = false
		next()
	})
}

// jobFailed ends an order whose durable change will never come.
func (m *Machine) jobFailed(r *Refusal) {
	if m.job != nil && m.job.needs {
		m.job.needs = false
		if m.job.failed != nil {
			m.job.failed()
			return
		}
		m.done(r)
	}
}

func (m *Machine) toRole(to metadata.Role) {
	switch {
	case m.role == to && to == metadata.Init && m.disk == diskFailed:
		m.leave()
	case m.role == to && (to != metadata.Secondary || m.disk == diskOpen):
		m.done(nil)
	case m.role == metadata.Primary:
		m.demote(to)
	case to == metadata.Init:
		m.leave()
	case m.disk == diskOpen:
		m.promote()
	default:
		m.enter(to)
	}
}

// enter opens the component and looks for the peer.
func (m *Machine) enter(to metadata.Role) {
	if m.disk == diskFailed {
		m.leaveThen(func() { m.enter(to) })
		return
	}
	m.open(func(r *Refusal) {
		if m.job == nil {
			return
		}
		if r != nil {
			m.done(r)
			return
		}
		m.setRole(metadata.Secondary)
		m.downSince = m.now
		if m.marks().Has(metadata.AdminDisconnected) {
			m.word = standalone
		} else {
			m.connect(false)
		}
		if to == metadata.Primary {
			m.promote()
			return
		}
		m.done(nil)
	})
}

func (m *Machine) setRole(r metadata.Role) {
	if m.role == r {
		return
	}
	old := m.role
	m.role = r
	m.askUntil, m.sleptAt, m.awakeAt, m.overtaken, m.owed, m.halted = 0, 0, 0, false, false, false
	m.report(Report{Kind: ReportRole, Old: old.String(), New: r.String()})
}

func (m *Machine) connect(now bool) {
	m.wanted = true
	if m.word == standalone {
		m.word, m.wordReason = connecting, ""
	}
	m.emit(Effect{Kind: EffConnect, Now: now})
}

// promote makes a secondary primary: first whatever word of the peer can be had.
func (m *Machine) promote() {
	if r := m.noLease(); r != nil {
		m.done(r)
		return
	}
	switch {
	case m.phase == linked && (m.peer.Role == metadata.Primary || !m.sound()):
		// It may have died without a word, or stepped down a moment ago; and what this
		// replica lacks can be had from a peer that is there only.
		m.heard = false
		m.send(Msg{Kind: MsgProbe})
		m.wait(asking, m.now+ProbeTime, func() {
			if m.phase == linked && !m.heard {
				m.hangUp(fmt.Sprintf("%s gave no sign of life for %v s", m.cfg.Peer, int64(ProbeTime/Second)))
			}
			m.settleThenPromote()
		})
		return
	case m.wanted && m.phase != linked:
		if m.peerAnswers || m.word == wordSplit || m.word == wordRefused {
			m.downSince = m.now // what it said last may have changed
		}
		m.connectAnew()
	}
	until := m.now + ProbeTime
	if m.cfg.NeedLease && m.grant.Peer == 0 {
		until = m.now // the view knows that the peer is gone
	}
	if m.phase == unlinked { // its silence counts from when it began
		until = max(m.now, min(until, m.downSince+ProbeTime))
	}
	m.wait(probing, until, m.settleThenPromote)
}

// noLease refuses a promotion that the cluster's view does not allow, or no longer: it is
// asked again after every wait of one.
func (m *Machine) noLease() *Refusal {
	if !m.cfg.NeedLease || m.leased() {
		return nil
	}
	return &Refusal{RefusedPolicy, "promotion refused: quorum is \"majority\" and this node holds no lease", "vipd passes on what the cluster decided: hastctl cluster status tells more"}
}

// connectAnew lets both sides judge again at once: something changed here.
func (m *Machine) connectAnew() {
	if m.phase == lingering {
		since := m.downSince
		m.hangUp("judging anew")
		m.downSince = since
	}
	if m.phase == unlinked {
		m.emit(Effect{Kind: EffConnect, Now: true})
	}
}

// settleThenPromote lets an agreement under way end first, but not for ever.
func (m *Machine) settleThenPromote() {
	m.wait(settling, m.now+ProbeTime, func() {
		if m.phase == greeting || m.phase == agreeing {
			m.hangUp("the agreement takes too long for a promotion")
		}
		m.decidePromotion()
	})
}

// decidePromotion is the rule of section 8.
func (m *Machine) decidePromotion() {
	if m.disk != diskOpen {
		m.done(&Refusal{RefusedIO, "the disk failed: " + m.diskText, ""})
		return
	}
	if r := m.promotionRefusal(m.job.command.Force); r != nil {
		m.done(r)
		return
	}
	m.wait(quiet, 0, m.performPromotion)
}

func (m *Machine) promotionRefusal(force bool) *Refusal {
	sb, up := m.st.Super(), m.phase == linked
	peer := m.cfg.Peer
	forceHint := "if this node's data is the best there is: hastctl role primary --force " + m.cfg.Resource
	refuse := func(text, hint string) *Refusal { return &Refusal{RefusedPolicy, "promotion refused: " + text, hint} }
	stale := sb.Marks.Has(metadata.Inconsistent | metadata.Outdated)
	if r := m.noLease(); r != nil {
		return r
	}
	switch {
	case up && m.peer.Role == metadata.Primary:
		return refuse(peer+" is primary", "run hastctl role secondary "+m.cfg.Resource+" on "+peer+" first")
	case up && sb.Resuid == 0 && m.peer.Resuid != 0:
		return refuse("this replica is new and "+peer+" has data", "promote "+peer+", and this replica is filled from it")
	case up && m.peerDisk == "uptodate":
		return nil // whatever this replica is, the peer's can be read
	case stale && up && !force:
		return refuse(fmt.Sprintf("this replica is %s, and that of %s is %s", sb.Marks&marked, peer, m.peerDisk), forceHint)
	case stale && !force:
		return refuse(fmt.Sprintf("this replica is %s and %s is not connected", sb.Marks&marked, peer), "bring "+peer+" back, or "+forceHint)
	case force:
		return nil
	case m.leased() && sb.Resuid != 0:
		return nil // by the view this replica has everything: the peer need not be asked
	case m.word == wordSplit:
		return refuse("split-brain: "+m.wordReason, m.wordHint)
	case sb.Resuid == 0 && !up:
		return refuse("this replica is new and "+peer+" cannot be asked whether it has data", "start "+peer+", or, if it has none: hastctl role primary --force "+m.cfg.Resource)
	case m.unclean && !up:
		return refuse("this node was not stopped cleanly while secondary and "+peer+" cannot be asked whether it went on alone", "bring "+peer+" back, or "+forceHint)
	}
	return nil
}

func (m *Machine) performPromotion() {
	if m.disk != diskOpen || m.phase == greeting || m.phase == agreeing {
		m.settleThenPromote() // something happened meanwhile: decide anew
		return
	}
	if r := m.promotionRefusal(m.job.command.Force); r != nil {
		m.done(r)
		return
	}
	up := m.phase == linked
	forced := m.marks().Has(metadata.Inconsistent|metadata.Outdated) && !(up && m.peerDisk == "uptodate")
	if up && m.peer.Role == metadata.Primary {
		m.done(m.promotionRefusal(true))
		return
	}
	m.durably(func(sb *metadata.Superblock) {
		if sb.Resuid == 0 {
			sb.Resuid = metadata.ID(m.cfg.Random())
			sb.Lineage = sb.Lineage.Add(m.generation())
		}
		if sb.Size == 0 {
			sb.Size = sb.DataSize
			if up {
				sb.Size = min(sb.Size, m.peer.DataSize)
				sb.SectorSize = max(sb.SectorSize, m.peer.SectorSize)
			}
		}
		if forced {
			sb.Localcnt++
			sb.Lineage = sb.Lineage.Add(m.generation())
			sb.Marks = sb.Marks&^(metadata.Inconsistent|metadata.Outdated) | metadata.Forced | metadata.Raised
		}
		sb.PrevRole = metadata.Primary
		last := sb.Epoch
		if m.peerKnown && last.Less(m.peer.Epoch) {
			last = m.peer.Epoch
		}
		sb.Epoch = metadata.Epoch{Number: last.Number + 1, Node: m.cfg.NodeID}
	}, func() {
		refusal := m.noLease()
		if up && !m.sound() && !m.peerSound() {
			refusal = &Refusal{RefusedBusy, "promotion refused: " + m.cfg.Peer + " was lost meanwhile, and this replica is " + m.diskWord(), "try again"}
		}
		if refusal != nil {
			m.hangUp("the promotion was not completed") // facts changed by it; the peer is to hear them
			m.durably(func(sb *metadata.Superblock) { sb.PrevRole = metadata.Secondary }, func() { m.done(refusal) })
			return
		}
		if forced {
			m.report(Report{Kind: ReportForced, Reason: "promoted by force although its data may be old or incomplete"})
		}
		m.opened, m.alone, m.agreed = false, false, metadata.Epoch{}
		m.badDisk, m.marked, m.lossy = false, false, false
		m.peerOnly, m.peerOnlyOld = false, false
		m.resumed, m.failing = false, false
		if up {
			m.agreed = m.st.Super().Epoch // the peer was there, and not primary
		}
		m.setRole(metadata.Primary)
		if m.phase == linked {
			m.renegotiate("promotion")
		}
		m.startProvider()
	})
}

func (m *Machine) startProvider() {
	sb := m.st.Super()
	m.provider = providerStarting
	m.fly(Effect{Kind: EffProviderStart, Size: sb.Bytes(), SectorSize: sb.SectorSize}, func(ev *Event) {
		if ev.Err == OK {
			m.provider = providerUp
			m.done(nil)
			return
		}
		m.provider = providerDown
		text := "the provider could not be started: " + ev.Text
		m.stepDown(metadata.Secondary, func() { m.done(&Refusal{RefusedIO, text, ""}) })
	})
}

// demote closes the provider, then steps down.
func (m *Machine) demote(to metadata.Role) {
	stopped := func() {
		m.provider = providerDown
		m.stepDown(to, func() {
			if to == metadata.Init {
				m.leave()
				return
			}
			m.done(nil)
		})
	}
	if m.provider == providerDown {
		stopped()
		return
	}
	m.provider = providerStopping
	m.fly(Effect{Kind: EffProviderStop, Force: m.job.command.Force}, func(ev *Event) {
		if ev.Err != OK {
			m.provider = providerUp
			m.done(&Refusal{RefusedBusy, ev.Text, "stop what uses it, or cut it with hastctl role " + to.String() + " --force " + m.cfg.Resource})
			m.thaw() // what was held in case it steps down
			return
		}
		stopped()
	})
}

// stepDown ends what is under way, flushes both replicas and gives up the role.
func (m *Machine) stepDown(to metadata.Role, then func()) {
	m.job.leaving = true
	m.wait(draining, 0, func() {
		if m.disk != diskOpen {
			m.steppedDown(then)
			return
		}
		clean := func(ok bool) {
			if m.disk != diskOpen {
				m.steppedDown(then)
				return
			}
			// Nobody is served any more: that the disk cannot say so keeps no role.
			m.job.failed = func() { m.wait(draining, 0, func() { m.steppedDown(then) }) }
			m.durably(func(sb *metadata.Superblock) {
				sb.PrevRole = metadata.Secondary
				if ok {
					sb.Marks &^= metadata.CrashedPrimary
				}
			}, func() {
				m.job.failed = nil
				m.steppedDown(then)
			})
		}
		if m.suspended != "" {
			clean(false)
			return
		}
		m.round.wanted = true
		number := m.rounds + 1
		m.wait(draining, 0, func() {
			clean(m.roundsDone >= number) // both flushed; alone, the mark still tells what only this node has
		})
		m.startRound()
	})
}

func (m *Machine) steppedDown(then func()) {
	m.stopSync("the node stepped down")
	m.round.wanted = false
	if m.phase == linked {
		if m.st != nil && m.disk.usable() {
			for _, c := range m.sync.copied {
				m.st.Dirty.OrWord(c.word, c.mask)
			}
			m.sync.copied = m.sync.copied[:0]
		}
		m.send(Msg{Kind: MsgRole, Control: &RoleChange{Role: metadata.Secondary}})
	}
	m.suspended, m.failing, m.resumed = "", false, false
	m.setRole(metadata.Secondary)
	switch {
	case m.disk == diskFailed:
		// As a secondary whose disk fails: nothing can be agreed with it, and a
		// primary holds everything for as long as it tries.
		m.secondaryDiskFailed()
	case m.wanted && m.phase != linked:
		m.connectAnew()
	}
	then()
}

// leave parts from the peer and closes the component.
func (m *Machine) leave() {
	m.leaveThen(func() { m.done(nil) })
	m.setRole(metadata.Init)
}

func (m *Machine) leaveThen(then func()) {
	m.disconnect("the resource is being put to init on " + m.cfg.Node)
	m.wait(quiet, 0, func() {
		if m.disk != diskOpen {
			m.closeDisk(then)
			return
		}
		// What both replicas flushed needs no comparing when this one is opened again.
		m.st.Reclaim(m.st.Log.Capacity())
		m.durably(func(sb *metadata.Superblock) { sb.PrevRole = metadata.Init }, func() { m.closeDisk(then) })
	})
}

func (m *Machine) disconnect(reason string) {
	session := m.session
	m.wanted = false
	m.linkLost(reason)
	m.word, m.wordReason, m.wordHint = standalone, "", ""
	m.emit(Effect{Kind: EffDisconnect, Session: session, Stop: true, Text: reason})
}

// cmdConnect parts from the peer for good, or ends that.
func (m *Machine) cmdConnect(apart bool) {
	if m.role == metadata.Init || m.disk != diskOpen {
		m.done(&Refusal{RefusedPolicy, "the resource is not in use on " + m.cfg.Node + " (role " + m.role.String() + ")", "run hastctl role secondary " + m.cfg.Resource + " first"})
		return
	}
	if !apart {
		m.durably(func(sb *metadata.Superblock) { sb.Marks &^= metadata.AdminDisconnected }, func() {
			m.connect(true)
			m.done(nil)
		})
		return
	}
	m.wait(settling, 0, func() {
		m.durably(func(sb *metadata.Superblock) { sb.Marks |= metadata.AdminDisconnected }, func() {
			m.disconnect("disconnected by an administrator on " + m.cfg.Node)
			m.done(nil)
		})
	})
}

// cmdRecover gives up this node's data: the first step of a recovery.
func (m *Machine) cmdRecover() {
	switch {
	case m.role == metadata.Primary:
		m.done(&Refusal{RefusedPolicy, "this node is primary: its data is in use", "run hastctl role secondary " + m.cfg.Resource + " first"})
	case m.role == metadata.Init || m.disk != diskOpen:
		m.done(&Refusal{RefusedPolicy, "the resource is not in use on " + m.cfg.Node, "run hastctl role secondary " + m.cfg.Resource + " first"})
	case m.word == wordRefused && m.verdict.Rule != 11 && m.verdict.Rule != 14 && !m.job.command.Force:
		m.done(&Refusal{RefusedPolicy, "giving up this node's data would not help: " + m.wordReason, m.wordHint})
	case m.word != wordSplit && m.word != wordRefused && !m.job.command.Force:
		m.done(&Refusal{RefusedPolicy, "there is nothing to recover from: the connection is " + connWords[m.word], "see hastctl status " + m.cfg.Resource})
	default:
		m.wait(settling, 0, func() {
			if m.phase == linked && !m.job.command.Force { // the agreement that this waited for
				m.done(&Refusal{RefusedPolicy, "there is nothing to recover from any more: the connection is " + connWords[m.word], "see hastctl status " + m.cfg.Resource})
				return
			}
			m.durably(func(sb *metadata.Superblock) {
				sb.Marks = sb.Marks&^(metadata.Raised|metadata.Forced) | metadata.Inconsistent
			}, func() {
				m.hangUp("recovery begins")
				m.word, m.wordReason, m.wordHint = connecting, "this node's data was given up; waiting for "+m.cfg.Peer, ""
				m.connect(true)
				m.done(nil)
			})
		})
	}
}

// onSuspend holds what applications ask from now on: this node is primary where it must
// not be, and what it acknowledged would only be lost.
func (m *Machine) onSuspend(c *Command) {
	if m.role != metadata.Primary {
		m.finish(c, &Refusal{RefusedPolicy, m.cfg.Node + " is not primary: nothing is served here", ""})
		return
	}
	m.halted = true
	m.suspension()
	m.finish(c, nil)
}

func (m *Machine) onResume(c *Command) {
	m.suspension() // it may have begun while this process stood still
	if m.suspended == "" {
		m.finish(c, &Refusal{RefusedPolicy, "nothing is suspended", ""})
		return
	}
	if m.suspended == "operator" && !c.WithError {
		m.halted = false
		m.suspension() // there may be another reason
		m.finish(c, nil)
		return
	}
	if c.WithError {
		m.failing = true
		m.failHeld()
		m.finish(c, nil)
		return
	}
	if why := m.withheld(); why != "" {
		m.finish(c, &Refusal{RefusedPolicy, "the cluster has not decided that this node goes on (" + why + ")", "vipd passes on what the cluster decided: hastctl cluster status tells more"})
		return
	}
	if !m.sound() {
		m.finish(c, &Refusal{RefusedPolicy, "this node has no good replica to go on with alone (" + m.suspended + ")",
			"bring " + m.cfg.Peer + " back, or let what waits fail with hastctl resume --error " + m.cfg.Resource})
		return
	}
	m.resumed = true
	m.suspension()
	m.finish(c, nil)
}
