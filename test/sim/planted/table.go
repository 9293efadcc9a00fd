package planted

// Bugs are the mistakes that are planted.
var Bugs = []Bug{
	{Name: "acknowledge alone before the raise is durable", Oracle: "ack", Edits: []Edit{
		{"replicate/link.go", "	if !m.st.Durable(m.raiseAt) {\n		return false\n	}\n	m.alone = true", "	m.alone = true"},
	}},
	{Name: "acknowledge before the peer wrote", Oracle: "ack", Edits: []Edit{
		{"replicate/primary.go", "	case m.cfg.Mode == Fullsync || !m.sound():\n		return done", "	case !m.sound():\n		return done"},
	}},
	{Name: "answer a flush before the peer flushed", Oracle: "durable", Edits: []Edit{
		{"replicate/flush.go", "if m.cfg.Mode == Async && m.sound() {", "if m.sound() {"},
	}},
	{Name: "let extents leave the log with bits only in memory", Oracle: "dirty", Runs: 2000, Edits: []Edit{
		{"metadata/activity.go", " && s.stableCovers(sl.extent)", ""},
	}},
	{Name: "let extents leave the log although not flushed", Oracle: "dirty", Edits: []Edit{
		{"metadata/activity.go", "!sl.unflushed && sl.journal", "sl.journal"},
	}},
	{Name: "call blocks equal that the peer said differ", Oracle: "equal", Edits: []Edit{
		{"replicate/sync.go", "	if msg.Mask == 0 {\n		m.synced(r, r.mask)", "	if true {\n		m.synced(r, r.mask)"},
	}},
	{Name: "take the peer for behind although both wrote apart", Oracle: "overwrite", Edits: []Edit{
		{"replicate/verdict.go", "		return parted(10, p, s, \"both nodes wrote without each other\")", "		return behind(10, p, s, \"wrote too\")"},
		{"replicate/verdict.go", "	if !metadata.Agree(p.Lineage, s.Lineage) {\n		if", "	if false {\n		if"},
	}},
	{Name: "promote a stale replica without force", Oracle: "promote", Edits: []Edit{
		{"replicate/roles.go", "	case stale && !force:", "	case stale && !force && m.cfg.NeedLease:"},
	}},
	{Name: "read from a replica that is being copied to", Oracle: "reads", Edits: []Edit{
		{"replicate/primary.go", "	case m.sound():\n		return done\n	case m.phase == linked && !m.taking", "	case m.sound() || m.disk == diskOpen:\n		return done\n	case m.phase == linked && !m.taking"},
	}},
	{Name: "keep the body of a message", Oracle: "handles", Edits: []Edit{
		{"replicate/sync.go", "	m.release(r.data)\n	m.release(r.buf)\n", "	m.release(r.buf)\n"},
	}},
}
