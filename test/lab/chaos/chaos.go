package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hastd/test/lab"
)

// Options describe a run.
type Options struct {
	Dir      string // everything below it; must exist, and let others pass through
	Programs lab.Programs
	Seed     uint64
	// Duration is after which no new fault begins. With Plan it does not count.
	Duration time.Duration
	// Plan are kinds by the beginning of their names, one after the other and
	// nothing beside them.
	Plan []string
	// Database is the size of its disk in bytes; default databaseSize.
	Database int64
	Log      io.Writer // what happens, a line each
}

// The disks, in bytes. The database's has room for what maxRows allows.
const (
	blocksSize   = 64 << 20
	databaseSize = 320 << 20
)

// run is a pair under abuse.
type run struct {
	o        Options
	rng      *rand.Rand
	lab      *lab.Lab
	blocks   *blocks
	db       *database
	services []*service // blocks first
	groups   *groups    // nil: none can be made
	rep      *Report
	began    time.Time
	parted   bool // in this round the nodes may have lost each other
}

// Run abuses a pair. The report is always there; with an error it ends with the
// fault that was not survived, and the folder has all logs.
func Run(ctx context.Context, o Options) (rep *Report, err error) {
	if o.Database == 0 {
		o.Database = databaseSize
	}
	rep = newReport(o)
	r := &run{o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x6368616f73)), rep: rep, began: time.Now()}
	defer func() {
		if err != nil && r.lab != nil {
			os.WriteFile(filepath.Join(o.Dir, "tails"), []byte(r.lab.Tails(200)), 0o600) // helps who looks
		}
		r.totals()
		if e := r.end(); e != nil {
			// What is left of a pair in which something hung is no news.
			r.say("ending: %v", e)
			if err == nil {
				err = e
			}
		}
		rep.finish(time.Since(r.began), err)
	}()
	if err := r.start(ctx); err != nil {
		return rep, fmt.Errorf("chaos: before any fault: %w", err)
	}
	for i := 0; ; i++ {
		var k *kind
		var c *condition
		if o.Plan != nil {
			if i == len(o.Plan) {
				return rep, nil
			}
			if k = find(o.Plan[i]); k == nil {
				return rep, fmt.Errorf("chaos: there is no fault %q", o.Plan[i])
			}
		} else {
			if time.Since(r.began) >= o.Duration {
				return rep, nil
			}
			k = r.draw()
			if r.rng.IntN(3) == 0 {
				c = r.beside()
			}
			if c != nil && (k.alone && c.parts || k.link && c.link || c.kind == k.name) {
				c = nil
			}
		}
		if err := r.round(ctx, i+1, k, c); err != nil {
			return rep, err
		}
	}
}

// find gives the kind whose name begins so.
func find(name string) *kind {
	i := slices.IndexFunc(kinds, func(k kind) bool { return strings.HasPrefix(k.name, name) })
	if i < 0 {
		return nil
	}
	return &kinds[i]
}

func (r *run) draw() *kind {
	all := 0
	for _, k := range kinds {
		all += k.weight
	}
	n := r.rng.IntN(all)
	for i := range kinds {
		if n -= kinds[i].weight; n < 0 {
			return &kinds[i]
		}
	}
	panic("chaos: weights do not add up")
}

// say writes a line of what happens.
func (r *run) say(format string, args ...any) {
	if r.o.Log != nil {
		fmt.Fprintf(r.o.Log, "%8.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// start makes a pair in sync with both applications on it.
func (r *run) start(ctx context.Context) (err error) {
	o := lab.Options{
		Dir: r.o.Dir, Programs: r.o.Programs, Seed: r.o.Seed, Size: blocksSize, Device: r.o.Database,
		DiskTimeout: hangTimeout, ExtentSize: "1MiB", LogLevel: "info",
	}
	if r.groups, err = newGroups(); err != nil {
		r.rep.Skipped = append(r.rep.Skipped, "squeezed memory: "+err.Error())
	}
	if r.lab, err = lab.New(o); err != nil {
		return err
	}
	for _, n := range r.lab.Nodes {
		if r.groups != nil {
			n.Cgroup = r.groups.node[n.Side]
		}
		for _, name := range []string{lab.Resource, lab.DeviceResource} {
			if err := n.Replica(name).Disk().Snapshot(blank); err != nil {
				return err
			}
		}
	}
	dir := filepath.Join(r.o.Dir, "database")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var g *lab.Cgroup
	if r.groups != nil {
		g = r.groups.database
	}
	if r.db, err = newDatabase(dir, g, r.note); err != nil {
		return err
	}
	r.blocks = newBlocks(r.o.Seed)
	r.services = []*service{{app: r.blocks, active: lab.Alpha}, {app: r.db, active: lab.Alpha}}
	// The disks are all zeroes.
	if err := r.lab.CreateAndStart("--assume-clean"); err != nil {
		return err
	}
	if err := r.lab.AwaitConnected(syncLimit); err != nil {
		return err
	}
	for _, s := range r.services {
		if err := r.bring(ctx, s, lab.Alpha); err != nil {
			return err
		}
	}
	return r.judge(ctx)
}

func (r *run) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.rep.Notes = append(r.rep.Notes, text)
	r.say("%s", text)
}

// round lets a fault happen, another condition beside it, and wants all well again.
func (r *run) round(ctx context.Context, number int, k *kind, c *condition) error {
	ctx, cancel := context.WithTimeoutCause(ctx, faultLimit, fmt.Errorf("chaos: nothing moved within %v", faultLimit))
	defer cancel()
	began := time.Now()
	r.parted = c != nil && c.parts
	stops, failed := r.db.stops, r.blocks.failed()
	for _, s := range r.services {
		s.meter().start()
	}
	with, name := "", k.name
	var err error
	if c != nil {
		err = c.begin()
		with = ", with: " + c.name
		name += ", with " + c.kind
		r.rep.Beside[c.kind]++
	}
	detail := ""
	if err == nil {
		detail, err = k.do(r, ctx)
	}
	if c != nil {
		err = errors.Join(err, c.end())
	}
	if err == nil {
		err = r.revive(ctx)
	}
	if err == nil {
		err = r.complete(ctx)
	}
	for _, s := range r.services {
		if err == nil {
			err = s.progress(ctx)
		}
	}
	for i, s := range r.services {
		r.rep.pause(name, i, s.meter().stop())
	}
	judging := time.Now()
	if err == nil {
		err = r.judge(ctx)
	}
	if n := r.blocks.failed() - failed; err == nil && n > 0 {
		err = fmt.Errorf("chaos: %d requests to the blocks were answered with an error (%v)", n, r.blocks.load.LastError())
	}
	if said := r.db.complained(); err == nil && said != "" && r.db.stops == stops {
		err = fmt.Errorf("chaos: the database saw errors of its device: %s", said)
	}
	r.rep.Faults[name]++
	r.say("%3d  %s: %s%s  %v, of it %v to judge", number, k.name, detail, with, tenths(time.Since(began)), tenths(time.Since(judging)))
	if err != nil {
		return fmt.Errorf("fault %d, %s (%s%s): %w", number, k.name, detail, with, err)
	}
	return nil
}

func tenths(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }

// revive starts again what the kernel killed for want of memory. That nobody else
// has died is wanted.
func (r *run) revive(ctx context.Context) error {
	for _, n := range r.lab.Nodes {
		if n.Alive() {
			continue
		}
		if !r.groups.outOfMemory(func(g *groups) *lab.Cgroup { return g.node[n.Side] }) {
			return fmt.Errorf("chaos: hastd on %v has ended by itself:\n%s", n.Side, n.LogTail(40))
		}
		r.note("hastd on %v was killed for want of memory; restarted", n.Side)
		if _, err := r.crash(ctx, n, false, false); err != nil {
			return err
		}
	}
	if r.db.alive() {
		return nil
	}
	if !r.groups.outOfMemory(databaseGroup) {
		return fmt.Errorf("chaos: the database has ended by itself: %s", r.db.tail())
	}
	r.note("the database was killed for want of memory; restarted")
	if err := r.db.stop(ctx); err != nil {
		return err
	}
	return r.db.start(ctx, r.node(r.services[1]))
}

// judge asks each application for what must be there, and compares the replicas.
func (r *run) judge(ctx context.Context) error {
	for _, s := range r.services {
		err := s.check(ctx, func() error {
			if err := r.completeOf(ctx, s); err != nil {
				return err
			}
			st, err := r.node(s).Replica(s.resource()).Status()
			if err != nil {
				return err
			}
			if st.Provider == nil {
				return fmt.Errorf("chaos: %v has no provider: %v", s.active, st)
			}
			r.rep.ComparedBytes += st.Provider.Size
			return r.lab.CompareResource(s.resource(), st.Provider.Size)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", s.resource(), err)
		}
	}
	return nil
}

// totals fills the report's numbers.
func (r *run) totals() {
	if r.blocks != nil && r.blocks.led != nil {
		c := r.blocks.led.Counts()
		r.rep.Writes, r.rep.Flushes, r.rep.Unanswered = c.Acked, c.Flushes, c.Unanswered
		r.rep.Sectors = r.blocks.sectors
	}
	if r.db != nil {
		r.rep.Committed, r.rep.Unknown = r.db.clients.accounts.counts()
		r.rep.Checked, r.rep.BenchCommitted, r.rep.BenchRows = r.db.checked, r.db.bench.committed, r.db.rows
		r.rep.Checks, r.rep.AmChecks, r.rep.ChecksumRuns = r.db.checks, r.db.amcheck, r.db.sums
	}
}

// end ends everything. A frozen disk or daemon would keep it from ending.
func (r *run) end() error {
	var errs []error
	if r.lab != nil {
		errs = append(errs, r.lab.Network().Lose(0), r.lab.Network().Slow(0, 0))
		for _, n := range r.lab.Nodes {
			if n.Alive() {
				errs = append(errs, n.Thaw())
			}
			for _, name := range []string{lab.Resource, lab.DeviceResource} {
				d := n.Replica(name).Disk()
				errs = append(errs, d.Thaw(), d.Delay(0))
			}
		}
	}
	errs = append(errs, r.groups.release())
	for _, s := range r.services {
		errs = append(errs, s.end())
	}
	if r.lab != nil {
		for _, n := range r.lab.Nodes {
			if n.Alive() {
				errs = append(errs, n.Stop()) // in order: a killed one leaves its device
			}
		}
		errs = append(errs, r.sweep(), r.lab.Close())
	}
	return errors.Join(append(errs, r.groups.remove())...)
}
