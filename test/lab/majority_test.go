package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestMajorityFailovers is TestFailovers where the cluster's view decides.
func TestMajorityFailovers(t *testing.T) {
	beside(t)
	runFailovers(t, Options{Majority: true, Witness: true})
}

// witnessMemory is what a witness may need.
const witnessMemory = 32 << 20

// witnessPeak wants that of the witness, if there is one, after all it saw.
func witnessPeak(t *testing.T, l *Lab) {
	if l.third == nil {
		return
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.third.cmd.Process.Pid))
	if err != nil {
		t.Error(err)
		return
	}
	var name string
	var peak int64
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "Name: %s", &name)
		fmt.Sscanf(line, "VmHWM: %d kB", &peak)
	}
	peak <<= 10
	t.Logf("the witness (%s) used %.1f MiB at most, over %d views", name, float64(peak)/(1<<20), strings.Count(l.WitnessLog(), "msg=membership"))
	if name != "vipd" || peak == 0 || peak > witnessMemory {
		t.Errorf("more than %d MiB, or it is no vipd", witnessMemory>>20)
	}
}
