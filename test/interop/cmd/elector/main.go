// Elector takes part in an election with carp/runner and holds addresses with
// carp/vip, for the tests of both: what vipd does, without storage. It says what
// happens on its standard output, one JSON object a line, and takes orders on its
// standard input: "stats", "fit", "unfit", "demote N", "take", "resign".
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

	"hastd/carp"
	"hastd/carp/runner"
	"hastd/carp/vip"
)

// node is the program: elections come in, addresses go up and down.
type node struct {
	run  *runner.Runner
	keep *vip.Keeper
	log  *slog.Logger
	wake chan struct{}

	mu     sync.Mutex
	master bool
	active string
	out    *json.Encoder

	wrongful atomic.Bool
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
		}
		n.run.Tell(ctx, ev)
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
			Interval: carp.Duration(*interval), DeadRatio: 3, Preempt: *preempt,
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
	n.run = runner.New(o)
	n.keep = vip.New(vip.Options{
		Group: "g", Addresses: prefixes, Interfaces: o.Interfaces, Lifetime: down, Log: n.log,
		Ours: n.run.Ours, Rightful: func() bool { return n.run.Rightful() && !n.wrongful.Load() },
		Lost: func(p netip.Prefix) { n.say("lost", "address", p.String()) },
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// What a run that crashed left is taken down, or adopted by the kernel's lifetime.
	if err := n.keep.Down(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { n.follow(ctx) })
	go n.orders(ctx) // ends with the process: a read of the standard input does not end otherwise
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
