package lab

import "testing"

// TestMajorityFailovers is TestFailovers where the cluster's view decides.
func TestMajorityFailovers(t *testing.T) {
	beside(t)
	runFailovers(t, Options{Majority: true, Witness: true})
}
