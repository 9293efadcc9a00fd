package planted

// Oracles are all words that World.violate is given, and panic.
var Oracles = []string{
	"ack", "bounds", "commands", "dirty", "durable", "epoch", "equal", "errors", "false-split", "garbage", "handles", "live",
	"loss", "metadata", "overwrite", "panic", "promote", "protocol", "quiet", "reads", "shell", "sleeper", "split",
}

// Bugs are the mistakes that are planted.
var Bugs = []Bug{
	{Name: "acknowledge alone before the raise is durable", Oracle: "ack", Runs: 400, Took: 2, Edits: []Edit{
		{"replicate/link.go", "	if !m.st.Durable(m.raiseAt) {\n		return false\n	}\n	m.alone = true", "	m.alone = true"},
	}},
	{Name: "acknowledge before the peer", Oracle: "ack", Runs: 400, Took: 4, Edits: []Edit{
		{"replicate/primary.go", "	case m.cfg.Mode == Fullsync || !m.sound():\n		return done", "	case !m.sound():\n		return done"},
	}},
	{Name: "acknowledge a flush before the peer flushed", Oracle: "durable", Runs: 400, Took: 5, Edits: []Edit{
		{"replicate/flush.go", "if m.cfg.Mode == Async && m.sound() {", "if m.sound() {"},
	}},
	{Name: "let extents leave the log with bits only in memory", Oracle: "dirty", Runs: 2000, Took: 1, Edits: []Edit{
		{"metadata/activity.go", " && s.stableCovers(sl.extent)", ""},
	}},
	{Name: "evict an activity-log extent without flush", Oracle: "dirty", Runs: 400, Took: 7, Edits: []Edit{
		{"metadata/activity.go", "!sl.unflushed && sl.journal", "sl.journal"},
	}},
	{Name: "call blocks equal that the peer said differ", Oracle: "equal", Runs: 400, Took: 2, Edits: []Edit{
		{"replicate/sync.go", "	if msg.Mask == 0 {\n		m.synced(r, r.mask)", "	if true {\n		m.synced(r, r.mask)"},
	}},
	{Name: "take the peer for behind although both wrote apart", Oracle: "overwrite", Runs: 400, Took: 9, Edits: []Edit{
		{"replicate/verdict.go", "		return parted(10, p, s, \"both nodes wrote without each other\")", "		return behind(10, p, s, \"wrote too\")"},
		{"replicate/verdict.go", "	if !metadata.Agree(p.Lineage, s.Lineage) {\n		if", "	if false {\n		if"},
	}},
	{Name: "promote a stale replica without force", Oracle: "promote", Runs: 400, Took: 8, Edits: []Edit{
		{"replicate/roles.go", "	case stale && !force:", "	case stale && !force && m.cfg.NeedLease:"},
	}},
	{Name: "read from a replica that is being copied to", Oracle: "reads", Runs: 400, Took: 16, Edits: []Edit{
		{"replicate/primary.go", "	case m.sound():\n		return done\n	case m.phase == linked && !m.taking", "	case m.sound() || m.disk == diskOpen:\n		return done\n	case m.phase == linked && !m.taking"},
	}},
	{Name: "keep the body of a message", Oracle: "handles", Runs: 400, Took: 1, Edits: []Edit{
		{"replicate/sync.go", "	m.release(r.data)\n	m.release(r.buf)\n", "	m.release(r.buf)\n"},
	}},
	{Name: "an order waits for a commit of a failed disk", Oracle: "commands", Runs: 2000, Took: 82, Edits: []Edit{
		{"replicate/takeover.go", "	m.jobFailed(&Refusal{RefusedIO, \"the disk failed: \" + text, \"\"})\n", ""},
	}},
	{Name: "a sync that never goes on after a block that could not be read", Oracle: "live", Runs: 2000, Took: 49, Edits: []Edit{
		{"replicate/sync.go", "	m.sync.rests = m.now + retrySync\n", "	m.sync.rests = m.now + 1<<60\n"},
	}},
	{Name: "never look again at what waits for a range", Oracle: "commands", Runs: 4000, Took: 1437, Edits: []Edit{
		{"replicate/request.go", "	m.held.add(r, ^uint16(0))\n	m.retry = true\n", "	m.held.add(r, ^uint16(0))\n"},
	}},
	{Name: "call a split-brain a refusal", Oracle: "split", Runs: 2000, Took: 9, Edits: []Edit{
		{"replicate/agree.go", "	if v.Outcome == SplitBrain {\n		word = wordSplit\n", "	if v.Outcome == SplitBrain && v.Rule == 13 {\n		word = wordSplit\n"},
	}},
	{Name: "take the counters without the lineage", Oracle: "false-split", Runs: 2000, Took: 8, Edits: []Edit{
		{"replicate/sync.go", "	sb.Remotecnt, sb.Lineage = source.Localcnt, source.Lineage\n", "	sb.Remotecnt = source.Localcnt\n"},
	}},
	{Name: "go on alone at once after having stood still", Oracle: "sleeper", Runs: 4000, Took: 49, Edits: []Edit{
		{"replicate/link.go", "	m.askFirst()\n", ""},
	}},
	{Name: "go on alone before the agreement that follows a promotion", Test: "./replicate -run TestWriteRightAfterAPromotion", Edits: []Edit{
		{"replicate/link.go", "m.renewing() || ", ""},
	}},
	{Name: "leave a window behind a write that was failed", Test: "./replicate -run TestDemotionWithAWindow", Edits: []Edit{
		{"replicate/primary.go", "	m.queue, m.retry = kept, true //", "	m.queue = kept //"},
	}},
	{Name: "count on a raise that a failed write will not bring", Test: "./replicate -run TestFlushOfWhatOnlyThisNodeShows", Edits: []Edit{
		{"replicate/request.go", "		m.unbacked = true\n	default:", "		m.unbacked = m.unbacked || !r.kind.ofPrimary()\n	default:"},
	}},
	{Name: "seek room in the log where there is none", Test: "./metadata -run TestSpillMakesRoom", Edits: []Edit{
		{"metadata/activity.go", " && !s.evictable(sl)", ""},
	}},
	{Name: "keep the payload of applied writes", Oracle: "bounds", Runs: 2000, Took: 36, Edits: []Edit{
		{"replicate/secondary.go", "	m.release(r.buf)\n	m.applying--\n", "	m.applying--\n"},
	}},
	{Name: "fail what waits when the peer is lost", Oracle: "errors", Runs: 2000, Took: 10, Edits: []Edit{
		{"replicate/link.go", "		m.report(Report{Kind: ReportSuspended, Old: old, New: why})\n", "		m.report(Report{Kind: ReportSuspended, Old: old, New: why})\n		m.failHeld()\n"},
	}},
	{Name: "forget which copied blocks are zeroes", Oracle: "garbage", Runs: 2000, Took: 11, Edits: []Edit{
		{"replicate/sync.go", "Mask: msg.Mask, Zeroes: msg.Zeroes, Buf: r.buf})", "Mask: msg.Mask, Buf: r.buf})"},
	}},
	{Name: "a checksum that leaves out what was added last", Oracle: "metadata", Runs: 2000, Took: 20, Edits: []Edit{
		{"metadata/superblock.go", "	le.PutUint32(b[12:], crc32.Checksum(b, castagnoli))\n", "	sum := crc32.Checksum(b, castagnoli)\n	if len(sb.Lineage) > 4 {\n		sum = crc32.Checksum(b[:192+24*4], castagnoli)\n	}\n	le.PutUint32(b[12:], sum)\n"},
	}},
	{Name: "call lost what this node has too", Oracle: "loss", Runs: 5000, Took: 1266, Edits: []Edit{
		{"replicate/link.go", "	if m.sound() {\n		m.peerOnly, m.peerOnlyOld = false, false\n	}\n", ""},
		{"replicate/sync.go", "		m.peerOnly, m.peerOnlyOld = false, false // this node has a copy of everything now\n", ""},
	}},
	{Name: "take a late answer for a lie", Oracle: "protocol", Runs: 2000, Took: 31, Edits: []Edit{
		{"replicate/primary.go", "{ return seq != 0 && seq <= m.seq }", "{ return false }"},
	}},
	{Name: "a log copy that ends within a sector", Oracle: "shell", Runs: 400, Took: 1, Edits: []Edit{
		{"metadata/log.go", "	n := (logHead + 4*len(extents) + PageSize - 1) / PageSize * PageSize\n", "	n := logHead + 4*len(extents)\n"},
	}},
	{Name: "begin a commit while one is under way", Oracle: "panic", Runs: 400, Took: 1, Edits: []Edit{
		{"replicate/machine.go", "m.disk.usable() && !m.st.Busy() && m.st.Pending() {", "m.disk.usable() && m.st.Pending() {"},
	}},

	// Flushes. The simulation's own disks stand for the shell's commit; there the
	// mistake is to act before the commit ended. The shell's is shown by tests.
	{Name: "skip the metadata flush: act once a commit has begun", Oracle: "ack", Runs: 100, Took: 1, Edits: []Edit{
		{"metadata/store.go", "{ return commit <= s.durable }", "{ return commit <= s.prepared }"},
	}},
	{Name: "skip the metadata flush: end a commit without one", Test: "./replicate/runner -run TestCommitEndsWithAFlush", Edits: []Edit{
		{"replicate/runner/keeper.go", "	return c.Flush()\n", "	return nil\n"},
	}},
	{Name: "skip the flush of a component", Test: "./blockdev -run TestComponentFlush", Edits: []Edit{
		{"blockdev/component.go", "		err := unix.Fdatasync(c.fd)\n", "		var err error\n"},
	}},
	{Name: "step down without a flush", Oracle: "durable", Runs: 200, Took: 54, Edits: []Edit{
		{"replicate/roles.go", "			clean(m.roundsDone >= number) // both flushed; alone, the mark still tells what only this node has\n		})\n		m.startRound()\n", "			clean(true)\n		})\n		_ = number\n"},
	}},

	// The dirty map and the log.
	{Name: "clear a bit after a partial write", Oracle: "equal", Runs: 300, Took: 17, Edits: []Edit{
		{"replicate/primary.go", "metadata.Covered(r.off, r.length); n > 0", "metadata.Touched(r.off, r.length); n > 0"},
	}},
	{Name: "clear bits before the target flushed", Oracle: "durable", Runs: 600, Took: 31, Edits: []Edit{
		{"replicate/sync.go", "	case s.phase == syncFlushing && !m.steppingDown() && m.roundsDone >= s.needRound:\n", "	case s.phase == syncFlushing && !m.steppingDown():\n"},
	}},
	{Name: "mark only in-flight requests at peer loss", Oracle: "equal", Runs: 600, Took: 15, Edits: []Edit{
		{"replicate/link.go", "		m.st.Lose()\n", "		for _, r := range m.active {\n			if r.kind.logged() {\n				m.st.Dirty.Set(metadata.Touched(r.off, r.length))\n			}\n		}\n"},
	}},
	{Name: "forget what the log says when opening", Oracle: "dirty", Runs: 100, Took: 1, Edits: []Edit{
		{"metadata/store.go", "		s.Dirty.Set(Block(e)*per, per)\n		s.Persist(", "		_ = per\n		s.Persist("},
	}},

	// Order.
	{Name: "reorder overlapping writes", Oracle: "equal", Runs: 300, Took: 17, Edits: []Edit{
		{"replicate/request.go", "	return (r.kind.writes() || s.kind.writes()) && r.overlaps(s)\n", "	return r.kind.writes() != s.kind.writes() && r.overlaps(s)\n"},
	}},
	{Name: "swap the two durable writes at sync end", Oracle: "overwrite", Runs: 8000, Took: 3119, Edits: []Edit{
		{"replicate/sync.go", "	commit := m.st.Update(func(sb *metadata.Superblock) { m.settleSource(sb, m.peer.Localcnt) })\n	m.afterLinked(commit, func() {\n", "	m.afterLinked(0, func() {\n"},
		{"replicate/sync.go", "			m.settleTarget(sb, c)\n		}\n		sb.Pair, sb.PairPrev = s.pair, 0", "			m.settleTarget(sb, c)\n		} else {\n			m.settleSource(sb, c.Localcnt)\n		}\n		sb.Pair, sb.PairPrev = s.pair, 0"},
	}},

	// Connections. A message of an older agreement cannot arrive while both daemons
	// are honest: a session's streams keep their order, a renegotiation begins only when
	// nothing is under way, and the shell tells nothing of a session that ended. The
	// checks are the second of two locks; a test speaks to the machine directly.
	{Name: "drop the connection-number check", Test: "./test/sim -run TestScenarioWordOfAnOlderAgreement", Edits: []Edit{
		{"replicate/link.go", "	if msg.Conn != m.conn || m.phase == lingering {\n", "	if m.phase == lingering {\n"},
	}},
	{Name: "take messages of another session", Test: "./test/sim -run TestScenarioWordOfAnOlderAgreement", Edits: []Edit{
		{"replicate/link.go", "	if ev.Session != m.session || m.session == 0 {\n", "	if m.session == 0 {\n"},
	}},
	{Name: "tell the facts while an earlier connection's requests run", Oracle: "quiet", Runs: 2000, Took: 1, Edits: []Edit{
		{"replicate/agree.go", "		if m.applying > 0 || m.disk.usable()", "		if m.disk.usable()"},
	}},
	// Harmless alone, as the facts wait for what would be answered late.
	{Name: "answer what an earlier connection asked", Test: "./test/sim -run TestScenarioSlowDiskAcrossConnections", Edits: []Edit{
		{"replicate/agree.go", "		if m.applying > 0 || m.disk.usable()", "		if m.disk.usable()"},
		{"replicate/secondary.go", "	stale := r.orphan || m.phase != linked || r.conn != m.conn\n", "	stale := m.phase != linked\n"},
	}},
	// Harmless alone: an honest primary always names an epoch above both. The primary's
	// half alone is a protocol error to the secondary, so the two are planted together
	// and apart.
	{Name: "drop the epoch check, and forget the peer's epoch", Oracle: "epoch", Runs: 2000, Took: 50, Edits: []Edit{
		{"replicate/agree.go", "	case b.Epoch.Less(m.mine.Epoch) || b.Pair == 0:\n", "	case b.Pair == 0:\n"},
		{"replicate/agree.go", "max(sb.Epoch.Number, m.peer.Epoch.Number) + 1", "sb.Epoch.Number + 1"},
	}},
	{Name: "forget the peer's epoch", Oracle: "protocol", Runs: 2000, Took: 50, Edits: []Edit{
		{"replicate/agree.go", "max(sb.Epoch.Number, m.peer.Epoch.Number) + 1", "sb.Epoch.Number + 1"},
	}},
	{Name: "ignore the instance id", Oracle: "durable", Runs: 2000, Took: 193, Edits: []Edit{
		{"replicate/link.go", "	m.seq = 0\n	if m.sound() {\n", "	m.seq = 0\n	m.peerInstance = m.peer.Instance\n	if m.sound() {\n"},
	}},

	{Name: "the peer loses what failed and was read, and nobody is told", Test: "./replicate -run TestWriteThatEndedInAnErrorIsNotReadHereAlone", Edits: []Edit{
		{"replicate/primary.go", "		m.peerOnly = true // it may be read from now on, as if it had been acknowledged\n", ""},
	}},
	{Name: "forget what failed and was read when the disk fails too", Test: "./replicate -run TestWriteThatFailedAndWasReadIsLostWithTheDisk", Edits: []Edit{
		{"replicate/link.go", "			shown = shown || !owed && r.broken && r.at < 0\n", "			shown = shown || false\n"},
	}},
	{Name: "resume by what held before a standstill", Test: "./replicate -run TestResumeAfterAStandstillIsAboutTheLease", Edits: []Edit{
		{"replicate/roles.go", "	m.suspension() // it may have begun while this process stood still\n", ""},
	}},
	{Name: "let go at once of what failed on a bad replica", Test: "./replicate -run TestWriteThatEndedInAnErrorIsNotReadHereAlone", Edits: []Edit{
		{"replicate/primary.go", "	if !r.broken || m.sound() {\n		m.unlock(r)\n	}\n", "	m.unlock(r)\n"},
	}},

	// Counters and marks.
	{Name: "forget to raise localcnt for a flush", Oracle: "durable", Runs: 600, Took: 24, Edits: []Edit{
		{"replicate/flush.go", "	if !r.backed && m.unbacked && len(r.askers) > 0 && !m.mayAnswerAlone() {\n		return\n	}\n", ""},
	}},
	{Name: "raise once too rarely after a sync", Oracle: "overwrite", Runs: 600, Took: 17, Edits: []Edit{
		{"replicate/sync.go", "	sb.Marks &^= metadata.Raised | metadata.Outdated | metadata.Forced | metadata.AssumeClean\n	if m.role", "	sb.Marks &^= metadata.Outdated | metadata.Forced | metadata.AssumeClean\n	if m.role"},
	}},
	// Alone it does no harm that a run shows: until the victim is a good replica again,
	// the verdict looks at its mark and not at the counters, and the sync's end takes
	// the winner's mark away as well. The rule is held to by a scenario.
	{Name: "raise once too rarely after recovery", Test: "./test/sim -run TestScenarioWinnerRaisesMidRecovery", Edits: []Edit{
		{"replicate/agree.go", "	sb.Remotecnt = m.peer.Localcnt\n	sb.Marks &^= metadata.Raised\n", "	sb.Remotecnt = m.peer.Localcnt\n"},
	}},
	{Name: "raise once too rarely after recovery, and after its sync", Test: "./test/sim -run TestScenarioWinnerRaisesAgain", Edits: []Edit{
		{"replicate/agree.go", "	sb.Remotecnt = m.peer.Localcnt\n	sb.Marks &^= metadata.Raised\n", "	sb.Remotecnt = m.peer.Localcnt\n"},
		{"replicate/sync.go", "	sb.Marks &^= metadata.Raised | metadata.Outdated | metadata.Forced | metadata.AssumeClean\n	if m.role", "	sb.Marks &^= metadata.Outdated | metadata.Forced | metadata.AssumeClean\n	if metadata.Agree(m.mine.Lineage, m.peer.Lineage) {\n		sb.Marks &^= metadata.Raised\n	}\n	if m.role"},
	}},
	{Name: "ignore inconsistent: take such a replica for sound", Oracle: "reads", Runs: 600, Took: 30, Edits: []Edit{
		{"replicate/component.go", "!m.marks().Has(metadata.Inconsistent|metadata.Outdated)", "!m.marks().Has(metadata.Outdated)"},
	}},
	{Name: "ignore inconsistent in the verdict", Oracle: "durable", Runs: 2000, Took: 181, Edits: []Edit{
		{"replicate/verdict.go", "	for _, x := range [][2]*Facts{{p, s}, {s, p}} {\n		if m :=", "	for _, x := range [][2]*Facts{} {\n		if m :="},
		{"replicate/verdict.go", "const marked = metadata.Inconsistent | metadata.Outdated", "const marked = metadata.Outdated"},
		{"replicate/verdict.go", "		case f.Marks.Has(metadata.Inconsistent):\n			return 2\n", ""},
	}},
	{Name: "forget to set crashed-primary", Oracle: "ack", Runs: 100, Took: 1, Edits: []Edit{
		{"replicate/request.go", "		r.commit = max(r.commit, m.markCrashed())\n", ""},
	}},
	// In fullsync and memsync nothing that was acknowledged and flushed is only on the
	// crashed primary; in async the random runs' oracle cannot tell this loss from what
	// async gives up by a failover.
	{Name: "ignore crashed-primary in the verdict", Test: "./test/sim -run TestScenario/row_14", Edits: []Edit{
		{"replicate/verdict.go", "	pc, sc := p.Marks.Has(metadata.CrashedPrimary), s.Marks.Has(metadata.CrashedPrimary)\n", "	pc, sc := false, false\n"},
	}},
}
