package planted

// clusterSim is the simulation of the whole cluster, which has oracles of its own.
const clusterSim = "test/sim/cluster/cmd/cluster"

var clusterOracles = []string{"cluster: kept", "cluster: live", "cluster: one", "cluster: split", "cluster: stopped"}

// The mistakes between views, leases, grants and replicas: what no part sees alone.
func init() {
	for _, b := range clusterBugs {
		b.Name = "cluster: " + b.Name
		if b.Test == "" {
			b.Sim = clusterSim
		}
		Bugs = append(Bugs, b)
	}
}

var clusterBugs = []Bug{
	// The machine looks at the lease too; what stood still since is for the shell.
	{Name: "the lease is not looked at before applications are told", Oracle: "one", Runs: 1000, Took: 3, Edits: []Edit{
		{"test/sim/lease.go", "	may := n.mayAnswer()\n", "	may := true\n"},
	}},
	{Name: "nobody looks at the lease before an answer", Oracle: "one", Runs: 400, Took: 1, Edits: []Edit{
		{"test/sim/lease.go", "	may := n.mayAnswer()\n", "	may := true\n"},
		{"replicate/grant.go", "	case !m.leased():\n		return \"no-lease\"\n", ""},
	}},
	{Name: "a status is of the last event", Test: "./replicate/runner -run TestAStatusKnowsThatTheLeaseIsOver", Edits: []Edit{
		{"replicate/runner/turn.go", "		evs = append(evs, replicate.Event{Kind: replicate.EvTick})\n", ""},
	}},
	{Name: "the hold ends at the proposal", Oracle: "kept", Runs: 400, Took: 16, Edits: []Edit{
		{"cluster/member/member.go", "			r.drop = true\n			m.views(view.Drop{Resource: r.name})\n", "			r.drop, r.want.Hold = true, false\n			m.views(view.Drop{Resource: r.name})\n"},
		{"replicate/grant.go", "		g.Hold = g.Hold || old.Hold\n", ""},
	}},
	{Name: "a primary holds for nobody", Oracle: "kept", Runs: 400, Took: 3, Edits: []Edit{
		{"replicate/grant.go", "	case m.grant.Hold && m.phase != linked:\n		return \"reconfiguration\" // a view without the peer ends it\n", ""},
	}},
	// In whole runs the owner's lease is over by the time that a later view is committed,
	// so these three are played without one's end.
	{Name: "a replica takes an owner of an older generation", Test: "./test/sim/cluster -run TestRefused/an_owner", Edits: []Edit{
		{"replicate/grant.go", "	case m.peer.Role == metadata.Primary && !g.PeerOwner && m.peer.Generation <= g.Generation:\n		return peer + \" is primary by an older view\"\n", ""},
		{"replicate/grant.go", "	case m.role != metadata.Primary && m.phase == linked && m.peer.Role == metadata.Primary && !g.PeerOwner:\n		m.hangUp(m.cfg.Peer + \" does not own \" + m.cfg.Resource + \" any more\")\n", ""},
	}},
	{Name: "another incarnation's confirmation counts", Test: "./test/sim/cluster -run TestRefused/another", Edits: []Edit{
		{"replicate/grant.go", "	case m.peer.Incarnation != g.Peer:\n		return peer + \" was started anew, and the cluster's view names the one before\"\n", ""},
		{"replicate/grant.go", "	case old != 0 && g.Peer != old:\n		m.hangUp(m.cfg.Peer + \" was started anew\")\n", ""},
	}},
	{Name: "a restarted hastd goes on before it is told a generation", Test: "./test/sim/cluster -run TestRefused/a_hastd", Edits: []Edit{
		{"replicate/grant.go", "	case !m.cfg.NeedLease:\n		return \"\"\n	case g.Generation == 0:", "	case !m.cfg.NeedLease || g.Generation == 0:\n		return \"\"\n	case false:"},
		{"replicate/grant.go", "	case m.peer.Generation == 0:", "	case false:"},
		{"replicate/grant.go", "	case m.peer.Incarnation != g.Peer:", "	case m.peer.Incarnation != g.Peer && m.peer.Generation != 0:"},
	}},
	{Name: "hastd takes a grant of an older generation", Test: "./test/sim/cluster -run TestRefused/a_grant", Edits: []Edit{
		{"replicate/grant.go", "	case g.Generation < old.Generation:\n", "	case false:\n"},
	}},
	{Name: "a peer is called in sync although it lacks what was acknowledged alone", Oracle: "kept", Runs: 400, Took: 3, Edits: []Edit{
		{"replicate/grant.go", "	case m.phase != linked && !m.grant.Hold:\n		m.syncedPeer = 0 // what is acknowledged from now on it lacks\n", ""},
	}},
	{Name: "hastd is not asked before a peer counts again", Oracle: "kept", Runs: 400, Took: 11, Edits: []Edit{
		{"cluster/member/member.go", "r.hold, r.want.Hold, r.want.Adding, r.retryAt = e.Number, true, e.Inc, 0", "r.want.Hold, r.retryAt = true, 0\n	m.views(view.Held{Resource: e.Resource, Number: e.Number, OK: true})"},
	}},
	{Name: "who gave a lease does not guard it", Oracle: "stopped", Runs: 400, Took: 25, Edits: []Edit{
		{"cluster/member/member.go", "			m.v.Guard(e.Node, e.At)\n			guarded = true\n", ""},
	}},
	{Name: "a lease counts from when it was confirmed", Oracle: "one", Runs: 1000, Took: 47, Edits: []Edit{
		{"cluster/lease/lease.go", "	at := r.sent + Instant(m.cfg.Lease)\n", "	at := m.now + Instant(m.cfg.Lease)\n"},
	}},
	{Name: "memsync parts from a peer that counts as in sync", Oracle: "split", Runs: 2000, Took: 642, Edits: []Edit{
		{"replicate/link.go", "			owed := received && m.cfg.NeedLease && m.grant.Hold\n", "			owed := received && false\n"},
	}},
	{Name: "hastd is not told again what it did not take", Oracle: "live", Runs: 400, Took: 1, Edits: []Edit{
		{"cluster/member/member.go", "		r.retryAt = m.now + view.Instant(retryEvery)\n", "		r.retryAt = 1 << 62\n"},
	}},
	// Found by whole runs once, and rare: tests of their own play them.
	{Name: "a demotion is refused although nobody is served any more", Test: "./replicate -run TestTranscriptDemoteOnFailingDisk", Edits: []Edit{
		{"replicate/roles.go", "			m.job.failed = func() { m.wait(draining, 0, func() { m.steppedDown(then) }) }\n", ""},
	}},
	{Name: "a disk that fails later has a demotion done once more", Test: "./replicate -run TestFailedLeaveStepsDownOnce", Edits: []Edit{
		{"replicate/roles.go", "				m.job.failed = nil\n				m.steppedDown(then)\n", "				m.steppedDown(then)\n"},
	}},
	{Name: "a hold stays granted after a no", Test: "./cluster/member -run TestRefusedQuestionLeavesNoHold", Edits: []Edit{
		{"cluster/member/member.go", "			r.want.Hold = r.holds\n", ""},
	}},
	{Name: "a question without an answer counts as refused", Test: "./cluster/member -run TestQuestionWithoutAnAnswerIsAskedAgain", Edits: []Edit{
		{"cluster/member/member.go", "	if asked && !ev.Lost {\n", "	if asked {\n"},
	}},
	{Name: "what a lease promises binds the views a step later", Test: "./cluster/member -run TestPromiseBindsAtOnce", Edits: []Edit{
		{"cluster/member/member.go", "			m.v.Guard(m.cfg.View.Self, e.At)\n			guarded = true\n", "			m.v.Guard(m.cfg.View.Self, e.At)\n			m.pass(m.v.Step(m.now, view.Tick{}))\n"},
	}},
	{Name: "a flush is answered for both, of what a lost primary may lack", Test: "./replicate -run TestFlushOfWhatWasWrittenAfterTheConnection", Edits: []Edit{
		{"replicate/request.go", "		m.unbacked = true\n	default:", "	default:"},
	}},
	{Name: "a stored proposal is left undecided", Test: "./cluster/member -run TestStoredProposalIsDecided", Edits: []Edit{
		{"cluster/view/steer.go", "m.st.Acc != nil && m.now >= m.accAt.add(undecided*m.cfg.Round)", "false"},
	}},
	{Name: "an owner that starts does not guard itself", Test: "./cluster/lease -run TestOwnerThatStartsGuardsItself", Edits: []Edit{
		{"cluster/lease/lease.go", " && (id != m.cfg.Self || ev.Stored)", " && id != m.cfg.Self"},
	}},
	{Name: "what hastd was only asked to hold counts as held once it starts again", Test: "./cluster/member -run TestLateNewsOfARestartIsNoHold", Edits: []Edit{
		{"cluster/view/learn.go", "Hold: h.hold}", "Hold: h.hold || h.awaited}"},
		{"cluster/view/learn.go", "		h.synced, h.drop = 0, false\n	}\n	if waits", "		h.hold, h.synced, h.drop = h.hold || h.awaited, 0, false\n	}\n	if waits"},
	}},
	{Name: "no hastd counts as one that holds", Test: "./cluster/member -run TestHastdThatIsGoneHoldsForNobody", Edits: []Edit{
		{"cluster/member/member.go", " && r.under.Adding == 0 {", " {"},
	}},
	{Name: "a hold that nobody knows of is not ended", Test: "./cluster/member -run TestHoldThatNobodyKnowsOfIsEnded", Edits: []Edit{
		{"cluster/member/member.go", "		m.views(view.Holds{Resource: r.name})\n", ""},
	}},
	{Name: "hastd that starts again takes a lease's return away", Test: "./cluster/member -run TestLeaseComesBackAlthoughStorageStartsAgain", Edits: []Edit{
		{"cluster/member/member.go", "	if v.Stamp.Index != 0 {\n", "	if v.Stamp.Index != 0 {\n		m.resume = 0\n"},
	}},
}
