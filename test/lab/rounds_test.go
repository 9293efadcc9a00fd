package lab

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

var (
	roundsFlag = flag.Int("rounds", int(envInt("LAB_ROUNDS", 7)), "rounds of TestRounds; 56 are the contract")
	seedFlag   = flag.Uint64("seed", uint64(envInt("LAB_SEED", 1)), "seed of the lab's tests")
	kindFlag   = flag.String("fault", os.Getenv("LAB_FAULT"), "only this fault in TestRounds, by the beginning of its name")
)

func envInt(name string, def int64) int64 {
	if v, err := strconv.ParseInt(os.Getenv(name), 10, 64); err == nil {
		return v
	}
	return def
}

// faultPlan has every kind equally often, in an order drawn from the seed.
func faultPlan(n int, seed uint64, only string) []Fault {
	var kinds, plan []Fault
	for f := range FaultKinds {
		if strings.HasPrefix(f.String(), only) {
			kinds = append(kinds, f)
		}
	}
	for i := range n {
		plan = append(plan, kinds[i%len(kinds)])
	}
	rand.New(rand.NewPCG(seed, 0)).Shuffle(n, func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	return plan
}

// TestRounds is the contract on real processes: faults of every kind, at least
// 2,000 acknowledged writes in each round, every promise kept, both replicas
// identical at its end.
func TestRounds(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Seed: *seedFlag})
	r, err := StartRounds(background(t), RoundsOptions{Lab: l, Seed: *seedFlag, Acked: 2000})
	must(t, err)
	defer r.Stop()
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "round\tfault\tdetail\tacked\tflushes\tfailed\tunanswered\ttook")
	defer func() {
		w.Flush()
		t.Logf("seed %d (again: LAB_SEED=%d LAB_ROUNDS=%d)\n%s", *seedFlag, *seedFlag, *roundsFlag, table.String())
	}()
	for i, f := range faultPlan(*roundsFlag, *seedFlag, *kindFlag) {
		res, err := r.Round(background(t), f)
		verdict := res.Took.Round(time.Millisecond).String()
		if err != nil {
			verdict += "  FAILED"
		}
		fmt.Fprintf(w, "%d\t%v\t%s\t%d\t%d\t%d\t%d\t%s\n", i+1, f, res.Detail, res.Counts.Acked, res.Counts.Flushes, res.Counts.Failed, res.Counts.Unanswered, verdict)
		must(t, err)
	}
}

func TestFaultPlanHasEveryKind(t *testing.T) {
	count := map[Fault]int{}
	for _, f := range faultPlan(56, 3, "") {
		count[f]++
	}
	if len(count) != int(FaultKinds) {
		t.Fatal(count)
	}
	for f, n := range count {
		if n != 8 {
			t.Errorf("%v stands %d times among 56, want 8", f, n)
		}
	}
}
