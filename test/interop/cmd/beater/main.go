// Beater takes part in a cluster's heartbeats with cluster/beat/runner, for the tests
// of it: what vipd does, without anything above. Its options are its argument, as
// JSON. It says what happens on its standard output, one JSON object a line, and takes
// orders on its standard input: "stats", "send TEXT" (over every link), "shared KEY
// VALUE" (the configuration is changed).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"hastd/cluster/beat"
	"hastd/cluster/beat/runner"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "beater:", err)
		os.Exit(1)
	}
}

func run() error {
	var o runner.Options
	if err := json.Unmarshal([]byte(os.Args[1]), &o); err != nil {
		return err
	}
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	say := func(event string, more ...any) {
		line := map[string]any{"event": event}
		for i := 0; i < len(more); i += 2 {
			line[more[i].(string)] = more[i+1]
		}
		mu.Lock()
		defer mu.Unlock()
		out.Encode(line)
	}
	names := map[beat.NodeID]string{beat.NodeID(o.Self.ID): o.Self.Name}
	for _, p := range o.Peers {
		names[beat.NodeID(p.ID)] = p.Name
	}
	events := map[beat.EffectKind]string{
		beat.EffLink: "link", beat.EffNode: "node", beat.EffJeopardy: "jeopardy", beat.EffDeliver: "deliver",
		beat.EffDuplicate: "duplicate", beat.EffShared: "shared", beat.EffClock: "clock", beat.EffLate: "late",
	}
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	o.Tell = func(e beat.Effect) {
		if name, ok := events[e.Kind]; ok {
			say(name, "node", names[e.Node], "on", e.Link.String(), "to", e.State.String(), "up", e.Up,
				"jeopardy", e.Jeopardy, "reason", e.Reason, "text", string(e.Body.Data))
		}
	}
	r, err := runner.New(o)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() { // ends with the process: a read of the standard input does not end otherwise
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			word, rest, _ := strings.Cut(in.Text(), " ")
			switch word {
			case "stats":
				say("stats", "beat", r.Stats())
			case "send":
				r.Order(ctx, beat.Event{Kind: beat.EvSend, Body: beat.Body{Kind: 1, Data: []byte(rest)}, OnSerial: true})
			case "shared":
				key, value, _ := strings.Cut(rest, " ")
				r.Order(ctx, beat.Event{Kind: beat.EvShared, Shared: beat.Shared{key: value}})
			}
		}
	}()
	return r.Run(ctx)
}
