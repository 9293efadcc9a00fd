package chaos

import (
	"errors"
	"syscall"

	"hastd/test/lab"
)

// groups bound memory: of the database, and of each daemon.
type groups struct {
	database *lab.Cgroup
	node     [2]*lab.Cgroup
	killed   map[*lab.Cgroup]int64 // what the kernel killed there, as far as it is noticed
}

func newGroups() (*groups, error) {
	g := &groups{killed: map[*lab.Cgroup]int64{}}
	for _, c := range []**lab.Cgroup{&g.database, &g.node[0], &g.node[1]} {
		made, err := lab.NewCgroup(0)
		if err != nil {
			return nil, errors.Join(err, g.remove())
		}
		*c = made
	}
	return g, nil
}

// each does something to every group; without groups it does nothing.
func (g *groups) each(do func(*lab.Cgroup) error) error {
	if g == nil {
		return nil
	}
	var errs []error
	for _, c := range []*lab.Cgroup{g.database, g.node[0], g.node[1]} {
		if c != nil {
			errs = append(errs, do(c))
		}
	}
	return errors.Join(errs...)
}

func (g *groups) remove() error { return g.each((*lab.Cgroup).Remove) }

func (g *groups) release() error {
	return g.each(func(c *lab.Cgroup) error { return c.SetLimit(0) })
}

func databaseGroup(g *groups) *lab.Cgroup { return g.database }

// outOfMemory says whether the kernel has killed somebody in a group since the
// last time it was asked.
func (g *groups) outOfMemory(which func(*groups) *lab.Cgroup) bool {
	if g == nil {
		return false
	}
	c := which(g)
	e, err := c.Events()
	if err != nil || e.OOMKills <= g.killed[c] {
		return false
	}
	g.killed[c] = e.OOMKills
	return true
}

// squeeze bounds a group's memory. What the kernel cannot take back at once it
// refuses (EBUSY): then as much as it can.
func squeeze(c *lab.Cgroup, bytes int64) (int64, error) {
	const steps, more = 16, 4 << 20
	var err error
	for range steps {
		if err = c.SetLimit(bytes); !errors.Is(err, syscall.EBUSY) {
			break
		}
		bytes += more
	}
	return bytes, err
}
