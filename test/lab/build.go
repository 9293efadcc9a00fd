package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Programs are the binaries that a lab runs.
type Programs struct{ Hastd, Vipd, Hastctl, Labdisk string }

// Build compiles the programs into dir. With race, the daemon checks itself for
// data races (and needs gcc).
func Build(dir string, race bool) (Programs, error) {
	p := Programs{filepath.Join(dir, "hastd"), filepath.Join(dir, "vipd"), filepath.Join(dir, "hastctl"), filepath.Join(dir, "labdisk")}
	for _, b := range []struct {
		out, pkg string
		race     bool
	}{{p.Hastd, "hastd/cmd/hastd", race}, {p.Vipd, "hastd/cmd/vipd", race}, {p.Hastctl, "hastd/cmd/hastctl", false}, {p.Labdisk, "hastd/test/lab/cmd/labdisk", false}} {
		args := []string{"build", "-o", b.out}
		env := append(os.Environ(), "CGO_ENABLED=0")
		if b.race {
			args, env = append(args, "-race"), append(os.Environ(), "CGO_ENABLED=1")
		}
		cmd := exec.Command("go", append(args, b.pkg)...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			return p, fmt.Errorf("lab: go build %s: %w\n%s", b.pkg, err, out)
		}
	}
	return p, nil
}
