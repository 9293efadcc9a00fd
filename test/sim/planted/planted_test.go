package planted

import (
	"flag"
	"os"
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
		has[b.Oracle] = true
		if limit := max(b.Runs, 400); b.Took < 1 || b.Took > limit {
			t.Errorf("planted bug %q: caught in run %d of at most %d", b.Name, b.Took, limit)
		}
	}
	for _, o := range Oracles {
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
		t.Run(b.Oracle+"/"+b.Name, func(t *testing.T) {
			r, err := Try(module, b)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Found() {
				t.Fatalf("oracle %s did not fire; others did in these runs first: %v", b.Oracle, r.First)
			}
			t.Logf("caught in run %d (%d when the table was written)", r.First[b.Oracle], b.Took)
		})
	}
}
