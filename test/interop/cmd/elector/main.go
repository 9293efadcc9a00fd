// Elector takes part in an election with carp/runner and holds addresses with
// carp/vip, for the tests of both: what vipd does, without storage. It says what
// happens on its standard output, one JSON object a line, and takes orders on its
// standard input: "stats", "fit", "unfit", "demote N", "take", "resign"; with -appointed
// "appoint", "appoint DURATION" and "dismiss" as well. With -external there is no
// election: the addresses are up until it ends, or, with -appointed too, for as long as
// it is appointed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hastd/carp"
	"hastd/carp/runner"
	"hastd/carp/vip"
)

// node is the program: elections come in, addresses go up and down.
type node struct {
	run  *runner.Runner // nil: no election
	keep *vip.Keeper
	log  *slog.Logger
	wake chan struct{}

	mu     sync.Mutex
	master bool
	active string
	out    *json.Encoder

	wrongful atomic.Bool
	until    atomic.Int64 // boot time at which the appointment ends; 0: it has no end
}

// boot is the time since this machine started.
func boot() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// left is how much longer an appointed node may hold the addresses.
func (n *node) left() time.Duration {
	until := n.until.Load()
	if until == 0 {
		return time.Hour
	}
	return time.Duration(until) - boot()
}

func (n *node) say(event string, more ...any) {
	line := map[string]any{"event": event}
	for i := 0; i < len(more); i += 2 {
		line[more[i].(string)] = more[i+1]
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.out.Encode(line)
}

func (n *node) set(change func()) {
	n.mu.Lock()
	change()
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// follow makes the addresses as the election wants them, until ctx ends.
func (n *node) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			n.say("down", "error", text(n.keep.Down()))
			return
		case <-n.wake:
		}
		n.mu.Lock()
		master, active := n.master, n.active
		n.mu.Unlock()
		if !master || active == "" {
			n.say("down", "error", text(n.keep.Down()))
			continue
		}
		err := n.keep.Up(ctx, active)
		n.say("up", "on", active, "error", text(err))
		if n.run == nil {
			continue
		}
		var taken *vip.Conflict
		if errors.As(err, &taken) {
			n.run.Tell(ctx, carp.Event{Kind: carp.EvStanding, Reason: err.Error()})
		} else if err != nil {
			n.run.Tell(ctx, carp.Event{Kind: carp.EvResign, Reason: err.Error()})
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// orders are read until the input ends.
func (n *node) orders(ctx context.Context) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		word, rest, _ := strings.Cut(in.Text(), " ")
		ev := carp.Event{Reason: "order"}
		switch word {
		case "stats":
			n.say("stats", "stats", n.run.Stats(), "state", n.run.State().String())
			continue
		case "fit":
			ev.Kind, ev.Fit = carp.EvStanding, true
		case "unfit":
			ev.Kind = carp.EvStanding
		case "demote":
			d, _ := strconv.Atoi(rest)
			ev.Kind, ev.Fit, ev.Demotion = carp.EvStanding, true, uint8(d)
		case "wrongful", "rightful":
			n.wrongful.Store(word == "wrongful")
			continue
		case "take":
			ev.Kind = carp.EvTake
		case "resign":
			ev.Kind = carp.EvResign
		case "appoint":
			ev.Kind, ev.Up = carp.EvAppoint, true
			if d, err := time.ParseDuration(rest); err == nil {
				ev.Until = carp.Instant(boot() + d)
			}
			n.until.Store(int64(ev.Until))
		case "dismiss":
			ev.Kind = carp.EvAppoint
		}
		if n.run != nil {
			n.run.Tell(ctx, ev)
		}
	}
}

func run() error {
	proto := flag.String("proto", "carp", "carp or vrrp")
	id := flag.Uint("id", 1, "vhid or VRID")
	pass := flag.String("pass", "", "password")
	address := flag.String("addr", "", "service addresses with their prefix lengths, with commas; none: only the election")
	interfaces := flag.String("if", "", "interfaces, with commas")
	peers := flag.String("peers", "", "unicast peers, with commas")
	nodes := flag.String("nodes", "", "other nodes of the cluster, with commas")
	advbase := flag.Uint("advbase", 1, "seconds")
	advskew := flag.Uint("advskew", 0, "256ths of a second")
	priority := flag.Uint("priority", 100, "of VRRP")
	interval := flag.Duration("interval", time.Second, "of VRRP")
	preempt := flag.Bool("preempt", false, "preempt a lesser master")
	appointed := flag.Bool("appointed", false, "be master by order alone")
	external := flag.Bool("external", false, "no election: hold the addresses from the start")
	lifetime := flag.Duration("lifetime", 0, "of addresses; 0: the master-down time")
	flag.Parse()

	level := slog.NewTextHandler(os.Stderr, nil)
	n := &node{log: slog.New(level), wake: make(chan struct{}, 1), out: json.NewEncoder(os.Stdout)}
	var prefixes []netip.Prefix
	var addrs []netip.Addr
	for _, a := range strings.FieldsFunc(*address, func(r rune) bool { return r == ',' }) {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return err
		}
		prefixes, addrs = append(prefixes, p), append(addrs, p.Addr())
	}
	o := runner.Options{
		Group: "g", ID: uint8(*id), Password: []byte(*pass), Addresses: addrs, Interfaces: strings.Split(*interfaces, ","), Log: n.log,
		Election: carp.Config{
			Advbase: uint8(*advbase), Advskew: uint8(*advskew), Priority: uint8(*priority),
			Interval: carp.Duration(*interval), DeadRatio: 3, Preempt: *preempt, Appointed: *appointed,
		},
		Changed: func(from, to carp.State, reason string) {
			n.say("state", "from", from.String(), "to", to.String(), "reason", reason)
			n.set(func() { n.master = to == carp.Master })
		},
		Announce: func(reason string) {
			n.say("announce", "reason", reason)
			n.keep.Announce()
		},
		Active: func(name string) {
			n.say("active", "on", name)
			n.set(func() { n.active = name })
		},
	}
	down := time.Duration(3**advbase)*time.Second + time.Duration(*advskew)*time.Second/256
	if *proto == "vrrp" {
		o.Protocol = runner.VRRP
		down = 3**interval + time.Duration(256-*priority)**interval/256
	}
	if *lifetime != 0 {
		down = *lifetime
	}
	for into, list := range map[*[]netip.Addr]string{&o.Peers: *peers, &o.Nodes: *nodes} {
		for _, p := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
			a, err := netip.ParseAddr(p)
			if err != nil {
				return err
			}
			*into = append(*into, a)
		}
	}
	v := vip.Options{
		Group: "g", Addresses: prefixes, Interfaces: o.Interfaces, Lifetime: down, Log: n.log,
		Lost:  func(p netip.Prefix) { n.say("lost", "address", p.String()) },
		Taken: func(c *vip.Conflict) { n.say("taken", "address", c.Address.String()) },
	}
	if *appointed {
		o.Heard = func(a carp.Advert) { n.say("heard", "address", a.From.String()) }
	}
	if !*external {
		n.run = runner.New(o)
		v.Ours, v.Rightful = n.run.Ours, func() bool { return n.run.Rightful() && !n.wrongful.Load() }
	}
	if *appointed {
		v.Until = n.left
	}
	n.keep = vip.New(v)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// What a run that crashed left is taken down, or adopted by the kernel's lifetime.
	if err := n.keep.Down(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { n.follow(ctx) })
	go n.orders(ctx) // ends with the process: a read of the standard input does not end otherwise
	if n.run == nil {
		n.set(func() { n.master, n.active = true, o.Interfaces[0] })
		wg.Wait()
		return nil
	}
	go n.run.Tell(ctx, carp.Event{Kind: carp.EvStanding, Fit: true})
	err := n.run.Run(ctx)
	stop()
	wg.Wait()
	n.say("end", "error", text(err))
	return err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "elector:", err)
		os.Exit(1)
	}
}
