package sim

// NamedSeed is a run that once found something. It is replayed by the tests for
// as long as the simulator draws the same run from it.
type NamedSeed struct {
	Seed  uint64
	Name  string
	Found string
}

// NamedSeeds are the runs that found something.
var NamedSeeds = []NamedSeed{}
