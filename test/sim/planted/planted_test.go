package planted

import (
	"flag"
	"os"
	"slices"
	"testing"
)

var plantedFlag = flag.Bool("planted", false, "plant every bug and run the simulation on it (minutes)")

const module = "../../.."

// TestPlantedTextsMatch: every edit still applies to the sources of today.
func TestPlantedTextsMatch(t *testing.T) {
	for _, b := range Bugs {
		if err := Check(module, b); err != nil {
			t.Error(err)
		}
	}
}

// TestOraclesCovered: every oracle has a bug that it caught.
func TestOraclesCovered(t *testing.T) {
	has := map[string]bool{}
	for _, b := range Bugs {
		if b.Test != "" {
			if b.Oracle != "" || b.Runs != 0 || b.Took != 0 {
				t.Errorf("planted bug %q is for a test or for an oracle, not for both", b.Name)
			}
			continue
		}
		has[map[string]string{viewSim: "views: ", clusterSim: "cluster: "}[b.Sim]+b.Oracle] = true
		if b.Took < 1 || b.Took > b.Runs {
			t.Errorf("planted bug %q: caught in run %d of at most %d", b.Name, b.Took, b.Runs)
		}
	}
	for _, o := range slices.Concat(Oracles, viewOracles, clusterOracles) {
		if !has[o] {
			t.Errorf("no bug is planted for oracle %s", o)
		}
	}
}

// TestPlanted plants them all: go test ./test/sim/planted -planted -timeout 1h, or
// with SIM_PLANTED set.
func TestPlanted(t *testing.T) {
	if !*plantedFlag && os.Getenv("SIM_PLANTED") == "" {
		t.Skip("takes minutes: run it with -planted or SIM_PLANTED=1")
	}
	for _, b := range Bugs {
		t.Run(b.Name, func(t *testing.T) {
			r, err := Try(module, b)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Found() {
				t.Fatalf("%s said nothing; oracles spoke in these runs first: %v", b.Catcher(), r.First)
			}
			t.Logf("caught by %s; first runs by oracle: %v (run %d when the table was written)", b.Catcher(), r.First, b.Took)
		})
	}
}
