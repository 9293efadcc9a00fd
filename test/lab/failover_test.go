package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// failoverPlan has every kind about equally often, in an order drawn from the seed.
func failoverPlan(n int, seed uint64, only string) []Failover {
	var kinds, plan []Failover
	for f := range FailoverKinds {
		if strings.HasPrefix(f.String(), only) {
			kinds = append(kinds, f)
		}
	}
	for i := range n {
		plan = append(plan, kinds[i%len(kinds)])
	}
	rand.New(rand.NewPCG(seed, 1)).Shuffle(n, func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	return plan
}

// failoverTable is what a run has to tell, by kind.
func failoverTable(all []FailoverResult) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "kind\ttimes\tpause min\tmedian\tmax\tserved min\tmedian\tmax\tpromoted median\tmax\toverlap max\tback max\tacked")
	for kind := range FailoverKinds {
		var pauses, served, promoted []time.Duration
		var overlap, back time.Duration
		acked := int64(0)
		for _, r := range all {
			if r.Kind == kind {
				pauses, served, promoted = append(pauses, r.Pause), append(served, r.Served), append(promoted, r.Promoted)
				overlap, back, acked = max(overlap, r.Overlap), max(back, r.Back), acked+r.Acked
			}
		}
		n := len(pauses)
		if n == 0 {
			continue
		}
		fmt.Fprintf(w, "%v\t%d", kind, n)
		for _, list := range [][]time.Duration{pauses, served} {
			slices.Sort(list)
			fmt.Fprintf(w, "\t%v\t%v\t%v", ms(list[0]), ms(list[n/2]), ms(list[n-1]))
		}
		slices.Sort(promoted)
		fmt.Fprintf(w, "\t%v\t%v\t%v\t%v\t%d\n", ms(promoted[n/2]), ms(promoted[n-1]), ms(overlap), ms(back), acked)
	}
	w.Flush()
	return b.String()
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// TestFailovers moves a group under load from node to node, by faults of every kind:
// nothing is lost, the replicas are equal at the end of each round, no client sees two
// nodes with the address for longer than it lives.
// LAB_FAILOVERS=50 LAB_ELECTION=vrrp LAB_SERVICE=fd77::100 LAB_SEED=7 LAB_FAULT='both f' choose
// others; LAB_STRICT=1 holds to the times.
func TestFailovers(t *testing.T) {
	runFailovers(t, Options{})
}

func runFailovers(t *testing.T, o Options) {
	rounds := int(envInt("LAB_FAILOVERS", 6))
	o.Group, o.LAN, o.Size, o.Seed = true, true, 32<<20, *seedFlag
	o.Election, o.Service = os.Getenv("LAB_ELECTION"), os.Getenv("LAB_SERVICE")
	l := newLab(t, o)
	f, err := StartFailovers(background(t), l, *seedFlag)
	must(t, err)
	defer f.Stop()
	var all []FailoverResult
	defer func() {
		t.Logf("seed %d, %s, service %s\n%s", *seedFlag, l.o.Election, l.o.Service, failoverTable(all))
	}()
	defer witnessPeak(t, l)
	for i, kind := range failoverPlan(rounds, *seedFlag, *kindFlag) {
		began := time.Now()
		res, err := f.Round(background(t), kind)
		t.Logf("round %d: %v from %v: pause %v, served after %v, promoted after %v, overlap %v, back after %v, %d writes, took %v",
			i+1, kind, res.From, ms(res.Pause), ms(res.Served), ms(res.Promoted), ms(res.Overlap), ms(res.Back), res.Acked, ms(time.Since(began)))
		must(t, err)
		all = append(all, res)
	}
}
