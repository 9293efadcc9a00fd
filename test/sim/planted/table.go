package planted

// Oracles are all words that World.violate is given, and panic.
var Oracles = []string{
	"ack", "bounds", "commands", "dirty", "durable", "equal", "errors", "false-split", "garbage", "handles", "live",
	"loss", "metadata", "overwrite", "panic", "promote", "protocol", "reads", "shell", "split",
}

// Bugs are the mistakes that are planted.
var Bugs = []Bug{
	{Name: "acknowledge alone before the raise is durable", Oracle: "ack", Took: 2, Edits: []Edit{
		{"replicate/link.go", "	if !m.st.Durable(m.raiseAt) {\n		return false\n	}\n	m.alone = true", "	m.alone = true"},
	}},
	{Name: "acknowledge before the peer wrote", Oracle: "ack", Took: 4, Edits: []Edit{
		{"replicate/primary.go", "	case m.cfg.Mode == Fullsync || !m.sound():\n		return done", "	case !m.sound():\n		return done"},
	}},
	{Name: "answer a flush before the peer flushed", Oracle: "durable", Took: 3, Edits: []Edit{
		{"replicate/flush.go", "if m.cfg.Mode == Async && m.sound() {", "if m.sound() {"},
	}},
	{Name: "let extents leave the log with bits only in memory", Oracle: "dirty", Runs: 2000, Took: 1, Edits: []Edit{
		{"metadata/activity.go", " && s.stableCovers(sl.extent)", ""},
	}},
	{Name: "let extents leave the log although not flushed", Oracle: "dirty", Took: 7, Edits: []Edit{
		{"metadata/activity.go", "!sl.unflushed && sl.journal", "sl.journal"},
	}},
	{Name: "call blocks equal that the peer said differ", Oracle: "equal", Took: 2, Edits: []Edit{
		{"replicate/sync.go", "	if msg.Mask == 0 {\n		m.synced(r, r.mask)", "	if true {\n		m.synced(r, r.mask)"},
	}},
	{Name: "take the peer for behind although both wrote apart", Oracle: "overwrite", Took: 9, Edits: []Edit{
		{"replicate/verdict.go", "		return parted(10, p, s, \"both nodes wrote without each other\")", "		return behind(10, p, s, \"wrote too\")"},
		{"replicate/verdict.go", "	if !metadata.Agree(p.Lineage, s.Lineage) {\n		if", "	if false {\n		if"},
	}},
	{Name: "promote a stale replica without force", Oracle: "promote", Took: 8, Edits: []Edit{
		{"replicate/roles.go", "	case stale && !force:", "	case stale && !force && m.cfg.NeedLease:"},
	}},
	{Name: "read from a replica that is being copied to", Oracle: "reads", Took: 16, Edits: []Edit{
		{"replicate/primary.go", "	case m.sound():\n		return done\n	case m.phase == linked && !m.taking", "	case m.sound() || m.disk == diskOpen:\n		return done\n	case m.phase == linked && !m.taking"},
	}},
	{Name: "keep the body of a message", Oracle: "handles", Took: 1, Edits: []Edit{
		{"replicate/sync.go", "	m.release(r.data)\n	m.release(r.buf)\n", "	m.release(r.buf)\n"},
	}},
	{Name: "an order waits for a commit of a failed disk", Oracle: "commands", Runs: 2000, Took: 82, Edits: []Edit{
		{"replicate/takeover.go", "	m.jobFailed(&Refusal{RefusedIO, \"the disk failed: \" + text, \"\"})\n", ""},
	}},
	{Name: "never look again at what waits for a range", Oracle: "live", Runs: 2000, Took: 562, Edits: []Edit{
		{"replicate/request.go", "	m.held.add(r, ^uint16(0))\n	m.retry = true\n", "	m.held.add(r, ^uint16(0))\n"},
	}},
	{Name: "call a split-brain a refusal", Oracle: "split", Runs: 2000, Took: 9, Edits: []Edit{
		{"replicate/agree.go", "	if v.Outcome == SplitBrain {\n		word = wordSplit\n", "	if v.Outcome == SplitBrain && v.Rule == 13 {\n		word = wordSplit\n"},
	}},
	{Name: "a target keeps its own history", Oracle: "false-split", Runs: 2000, Took: 8, Edits: []Edit{
		{"replicate/sync.go", "	sb.Remotecnt, sb.Lineage = source.Localcnt, source.Lineage\n", "	sb.Remotecnt = source.Localcnt\n"},
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
	{Name: "a checksum that leaves out what was added last", Oracle: "metadata", Runs: 2000, Took: 29, Edits: []Edit{
		{"metadata/superblock.go", "	le.PutUint32(b[12:], crc32.Checksum(b, castagnoli))\n", "	sum := crc32.Checksum(b, castagnoli)\n	if len(sb.Lineage) > 4 {\n		sum = crc32.Checksum(b[:192+24*4], castagnoli)\n	}\n	le.PutUint32(b[12:], sum)\n"},
	}},
	{Name: "call lost what this node has too", Oracle: "loss", Runs: 2000, Took: 491, Edits: []Edit{
		{"replicate/link.go", "	if m.sound() {\n		m.peerOnly, m.peerOnlyOld = false, false\n	}\n", ""},
		{"replicate/sync.go", "		m.peerOnly, m.peerOnlyOld = false, false // this node has a copy of everything now\n", ""},
	}},
	{Name: "take a late answer for a lie", Oracle: "protocol", Runs: 2000, Took: 31, Edits: []Edit{
		{"replicate/primary.go", "{ return seq != 0 && seq <= m.seq }", "{ return false }"},
	}},
	{Name: "a log copy that ends within a sector", Oracle: "shell", Took: 1, Edits: []Edit{
		{"metadata/log.go", "	n := (logHead + 4*len(extents) + PageSize - 1) / PageSize * PageSize\n", "	n := logHead + 4*len(extents)\n"},
	}},
	{Name: "begin a commit while one is under way", Oracle: "panic", Took: 1, Edits: []Edit{
		{"replicate/machine.go", "m.disk.usable() && !m.st.Busy() && m.st.Pending() {", "m.disk.usable() && m.st.Pending() {"},
	}},
}
