package sim

// Invariant 9 and liveness: every order is answered in time; once faults stop, the
// pair becomes complete by itself or says why a person is needed (heal.go), and
// complete in any case once the operator helps (run.go).

// answerTime is how long an order may take: the bounds of probing, of agreement,
// of a silent peer and of slow disks, and some.
const answerTime = 40 * second

func (w *World) oracleCommands() {
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.state != running {
			continue
		}
		for _, o := range n.commands {
			if n.frozen() {
				o.at = n.thaw
			}
			if w.now-o.at > answerTime {
				w.violate("commands", "%s: command %d (kind %d, role %s, force %v) is not answered after %ds", n.name, o.id, o.kind, o.role, o.force, answerTime/second)
			}
		}
	}
}
