package replicate

// Machine is one resource on one node.
type Machine struct {
	cfg Config
}

// New makes a machine in role init.
func New(cfg Config) *Machine { return &Machine{cfg: cfg} }

// Step takes what happened, in order, and appends what must be done.
func (m *Machine) Step(now Instant, batch []Event, out []Effect) []Effect { return out }

// Deadline says when the machine wants an EvTick at the latest.
func (m *Machine) Deadline() (Instant, bool) { return 0, false }

// Status tells the present state.
func (m *Machine) Status(now Instant) Status { return Status{} }
