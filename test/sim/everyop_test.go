package sim

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hastd/metadata"
	"hastd/replicate"
)

// Every operation of a disk once: in each tale the n-th operation of each node's
// disk fails, or is the last before the daemon, the power of the node or of both is
// gone, for every n. All oracles judge; and a disk that failed must be told of.
//
// The short form takes every n of every tale, and of what may happen there a third,
// drawn from -seed. SIM_EVERYOP=1 takes all of it, SIM_EVERYOP=20 in twenty worlds.

var everyCase = flag.String("everyop", "", "one case of TestEveryOperation, as a failure prints it")

// everyShare is which part of what may happen at an operation the short form takes.
const everyShare = 3

var everyModes = []replicate.Mode{replicate.Fullsync, replicate.Async, replicate.Memsync}

// everyCaseOf is one case.
type everyCaseOf struct {
	tale   int
	mode   replicate.Mode
	world  uint64 // its seed: up to the strike a case is what the undisturbed run was
	target target
	kind   stepKind
}

func (c *everyCaseOf) String() string {
	return fmt.Sprintf("%s/%s/%d/%c%d/%d", tales[c.tale].name, c.mode, c.world, 'A'+c.target.node, c.target.n, c.target.strike)
}

func (c *everyCaseOf) text() string {
	return fmt.Sprintf("%s, %s: operation %d of %c, a %s, %s", tales[c.tale].name, c.mode, c.target.n, 'A'+c.target.node, stepNames[c.kind], strikeNames[c.target.strike])
}

// play runs a tale, disturbed or not, and lets the pair come to order: by itself, or
// with the operator's help if a node says why it needs some.
func play(w *World, t *tale, mode replicate.Mode, seed uint64, at *target, trace *bytes.Buffer) (s *story, err error) {
	s = &story{w: w, everyop: everyop{target: at}}
	opt := Options{Seed: seed}
	if trace != nil {
		opt.Trace = trace
	}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case violationPanic:
			err = r.v
		case storyEnds:
			err = fmt.Errorf("the tale ends before its end: %s", r.why)
		default:
			err = fmt.Errorf("panic: %v at %s\n%s", r, panicPlace(string(debug.Stack())), debug.Stack())
		}
	}()
	w.reset(opt)
	w.scripted = true
	w.prof = Profile{Mode: mode, Sector: 512, DataSize: 2 << 20, Think: millisecond, DiskTime: 50 * microsecond, NetTime: 50 * microsecond, Hot: 16, OperatorGap: second}
	w.build()
	s.a, s.b = &w.nodes[0], &w.nodes[1]
	s.attach(w)
	t.before(s)
	s.on = true
	s.tell(t)
	s.on = false
	if at != nil && !s.hit {
		return s, fmt.Errorf("operation %d of %s never came", at.n, w.nodes[at.node].name)
	}
	if at != nil {
		s.aftermath()
	}
	s.fast()
	w.beginUnaided()
	for w.advance() {
	}
	return s, nil
}

func (s *story) fast() { s.a.hashTime, s.b.hashTime = 0, 0 }

// tell runs the tale; struck, it may end early.
func (s *story) tell(t *tale) {
	defer func() {
		if r := recover(); r != nil {
			if end, ok := r.(storyEnds); !ok || !s.hit {
				panic(r)
			} else {
				s.w.tracef("the tale ends: %s", end.why)
			}
		}
	}()
	t.then(s)
}

// hearTime is how long a node may take to tell of a failure.
const hearTime = 2 * second

// aftermath is what follows a strike before everything is mended.
func (s *story) aftermath() {
	w := s.w
	n := &w.nodes[s.target.node]
	if s.target.strike.fails() {
		for end := w.now + hearTime; w.now < end && !s.said(); {
			w.oracleCommands()
			w.after(10*millisecond, func() {})
			w.next()
		}
		if !s.said() {
			w.violate("told", "%s", s.silence())
		}
		w.oracleDirty("after a failure", false)
		return
	}
	if s.target.strike != failover {
		return
	}
	p := w.peerOf(n)
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(storyEnds); !ok {
				panic(r)
			}
		}
	}()
	s.until("the peer to notice", func() bool { return p.sess == nil })
	if p.state == running && p.idleOrders() && p.status().Role != metadata.Primary {
		s.promote(p) // or is refused, and then nothing is to be read
	}
	total := p.judge.sectors
	step := int(replicate.MaxRequest(keepdirty, extentSize)) / sectorSize
	for sec := 0; sec < total; sec += step {
		s.await(s.ask(p, replicate.ReqRead, 0, sec, min(step, total-sec)))
	}
	s.write(p, 3, 444)
	s.flush(p)
	w.oracleDirty("after a failover", false)
}

// everyPlan plays all tales undisturbed, and lists the cases.
func everyPlan(t *testing.T, full bool, seed uint64) (cases []everyCaseOf, ops int) {
	rng := rand.New(rand.NewPCG(seed, 0x6576657279))
	w := NewWorld()
	for i := range tales {
		for _, mode := range everyModes {
			if mode == replicate.Memsync && !tales[i].memsync {
				continue
			}
			s, err := play(w, &tales[i], mode, seed, nil, nil)
			if err != nil {
				t.Errorf("%s, %s, undisturbed in world %d: %v", tales[i].name, mode, seed, err)
				w = NewWorld()
				continue
			}
			for node, steps := range s.steps {
				ops += len(steps)
				for n, k := range steps {
					at := rng.IntN(everyShare)
					for st := range strikes {
						if !st.suits(k) {
							continue
						}
						if at++; full || k.opens() || at%everyShare == 0 {
							cases = append(cases, everyCaseOf{i, mode, seed, target{node, n + 1, st}, k})
						}
					}
				}
			}
		}
	}
	return cases, ops
}

// opens: of the reads of opening there are few.
func (k stepKind) opens() bool { return k >= stepSuperRead }

func TestEveryOperation(t *testing.T) {
	began := time.Now()
	seed, worlds := uint64(1), 1
	if *seedFlag != 0 {
		seed = *seedFlag
	}
	full := *everyCase != ""
	if env := os.Getenv("SIM_EVERYOP"); env != "" {
		n, err := strconv.Atoi(env)
		if err != nil || n < 1 {
			t.Fatalf("SIM_EVERYOP=%s is not a number of worlds", env)
		}
		full, worlds = true, n
	}
	if *everyCase != "" {
		parts := strings.Split(*everyCase, "/")
		if len(parts) == 5 {
			seed, _ = strconv.ParseUint(parts[2], 10, 64)
		}
	}
	var cases []everyCaseOf
	ops := 0
	for i := range worlds {
		c, n := everyPlan(t, full, seed+uint64(i))
		cases, ops = append(cases, c...), ops+n
	}
	if *everyCase != "" {
		replayCase(t, cases)
		return
	}
	if testing.Short() {
		kept := cases[:0]
		for i := 0; i < len(cases); i += 8 {
			kept = append(kept, cases[i])
		}
		cases = kept
	}
	failures, byStrike := playAll(cases)
	for what, list := range failures {
		sort.Strings(list)
		first, _, _ := strings.Cut(list[0], "  (")
		t.Errorf("%s: %d cases, of them:\n  %s\nreplay: go test ./test/sim -run TestEveryOperation -everyop '%s'", what, len(list), strings.Join(list[:min(len(list), 12)], "\n  "), first)
	}
	var kinds []string
	ran := 0
	for s, n := range byStrike {
		ran += n
		kinds = append(kinds, fmt.Sprintf("%d %s", n, strikeNames[s]))
	}
	t.Logf("%d cases of (tale, mode, node, n, what happens) over %d operations of %d tales in %.1fs: %s", ran, ops, len(tales), time.Since(began).Seconds(), strings.Join(kinds, "; "))
}

// replayCase shows one case with everything that happens.
func replayCase(t *testing.T, cases []everyCaseOf) {
	for i := range cases {
		c := &cases[i]
		if c.String() != *everyCase {
			continue
		}
		var trace bytes.Buffer
		_, err := play(NewWorld(), &tales[c.tale], c.mode, c.world, &c.target, &trace)
		os.Stdout.Write(trace.Bytes())
		t.Log(c.text())
		if err != nil {
			t.Error(err)
		}
		return
	}
	t.Fatalf("there is no case %q", *everyCase)
}

// playAll plays cases on two goroutines, each with a world of its own.
func playAll(cases []everyCaseOf) (failures map[string][]string, byStrike [strikes]int) {
	var next atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	failures = map[string][]string{}
	for range min(2, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			w := NewWorld()
			var counts [strikes]int
			for {
				i := int(next.Add(1)) - 1
				if i >= len(cases) {
					break
				}
				c := &cases[i]
				_, err := play(w, &tales[c.tale], c.mode, c.world, &c.target, nil)
				counts[c.target.strike]++
				if err == nil {
					continue
				}
				w = NewWorld()
				what, text := err.Error(), ""
				if v, ok := err.(*Violation); ok {
					what, text = "oracle "+v.Oracle, ": "+v.Text
				}
				mu.Lock()
				failures[what] = append(failures[what], c.String()+"  ("+c.text()+")"+text)
				mu.Unlock()
			}
			mu.Lock()
			for k, v := range counts {
				byStrike[k] += v
			}
			mu.Unlock()
		})
	}
	wg.Wait()
	return failures, byStrike
}
