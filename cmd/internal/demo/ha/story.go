package ha

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hastd/cmd/internal/exit"
)

// Bounds of what is waited for. On a loaded machine starting takes longer than what
// the story tells of.
const (
	startLimit    = 20 * time.Second
	syncLimit     = 30 * time.Second
	failoverLimit = 30 * time.Second
	// moveBound is what the move to another interface may take.
	moveBound = time.Second
)

// story plays all chapters.
func (d *demo) story(ctx context.Context) error {
	chapters := []func(context.Context) error{d.create, d.online, d.lostInterface, d.switchOver, d.killed, d.pulled, d.end}
	if d.Quick {
		chapters = []func(context.Context) error{d.create, d.online, d.switchOver, d.killed, d.end}
	}
	for _, chapter := range chapters {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

// create makes everything up to a filesystem on the mirrored device.
func (d *demo) create(ctx context.Context) error {
	d.Chapter("Two nodes, alpha and bravo, and a client on one switch")
	if err := d.prepare(ctx); err != nil {
		return err
	}
	d.Say("Each stands in namespaces of its own. A node has two interfaces in the network")
	d.Say("of the client, eth0 and eth1 (standby), and a cable to the other for replication.")
	for _, n := range d.nodes {
		if _, err := n.quiet(ctx, "create", group, "--size", deviceSize); err != nil {
			return err
		}
		if err := n.startHastd(); err != nil {
			return err
		}
	}
	for _, n := range d.nodes {
		if err := n.await(ctx, startLimit, "hastd to answer", n.resource, func(s state) bool { return s.Role != "" }); err != nil {
			return err
		}
		if _, err := n.quiet(ctx, "role", "secondary", group); err != nil {
			return err
		}
	}
	a := d.alpha()
	if err := a.await(ctx, startLimit, "the nodes to connect", a.resource, func(s state) bool { return s.Connection == "connected" }); err != nil {
		return err
	}
	if _, err := a.hastctl(ctx, "role", "primary", group); err != nil {
		return err
	}
	d.Say("alpha$ mkfs.ext4 device    (%s, mirrored)", deviceSize)
	if err := d.net.run(ctx, a.name, "mkfs.ext4", "-q", "-F", a.path("device")); err != nil {
		return err
	}
	if err := a.awaitComplete(ctx, syncLimit); err != nil {
		return err
	}
	_, err := a.hastctl(ctx, "role", "secondary", group)
	return err
}

// online starts what fails over, and the client.
func (d *demo) online(ctx context.Context) error {
	d.Chapter("vipd starts on both: one of them brings the service online")
	for _, n := range d.nodes {
		if err := n.startVipd(); err != nil {
			return err
		}
	}
	if err := d.alpha().awaitGroup(ctx, failoverLimit, "online"); err != nil {
		return err
	}
	if err := d.bravo().awaitGroup(ctx, failoverLimit, "offline"); err != nil {
		return err
	}
	out, err := d.alpha().hastctl(ctx, "group", "status")
	if err != nil {
		return err
	}
	d.Quote(out)
	began := clock()
	if err := d.startClient(); err != nil {
		return err
	}
	d.Say("The client: a PUT to http://%s:%s every %v, answered when it is on both disks;", serviceAddress, servicePort, putEvery)
	d.Say("without an answer within %v the same one is tried again.", putTimeout)
	return d.client.awaitSteady(ctx, began, startLimit)
}

// master is where the group is online.
func (d *demo) master(ctx context.Context) (*node, error) {
	for _, n := range d.nodes {
		if s, err := n.group(ctx); err == nil && s.Group == "online" {
			return n, nil
		}
	}
	return nil, exit.New(exit.IO, "look at the logs", "the group is online nowhere")
}

// during does something and tells of the pause that the client saw until it was
// answered steadily again. after, if not nil, is waited for before that.
func (d *demo) during(ctx context.Context, title string, do, after func() error) (gap, error) {
	at := clock()
	if err := do(); err != nil {
		return gap{}, err
	}
	if after != nil {
		if err := after(); err != nil {
			return gap{}, err
		}
	}
	if err := d.client.awaitSteady(ctx, clock(), failoverLimit); err != nil {
		return gap{}, err
	}
	d.Clear()
	tries, _, err := d.client.seen()
	if err != nil {
		return gap{}, err
	}
	p, ok := longestPause(tries, at)
	if !ok {
		return gap{}, exit.New(exit.IO, "look at the logs", "the client was never answered after: %s", title)
	}
	d.marks = append(d.marks, mark{At: at, Title: title, Pause: p})
	return p, nil
}

// lostInterface takes the link of the active interface: the address moves.
func (d *demo) lostInterface(ctx context.Context) error {
	d.Chapter("The master loses an interface: no failover, the address moves")
	n, err := d.master(ctx)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		in        bool
		title, on string
	}{{false, "eth0 of %s loses its link", "eth1"}, {true, "eth0 of %s has a link again", "eth0"}} {
		title := fmt.Sprintf(step.title, n.name)
		p, err := d.during(ctx, title, func() error { return d.net.plug(ctx, n.name, 0, step.in) }, func() error {
			return n.await(ctx, failoverLimit, "the address to be on "+step.on, n.group, func(s state) bool { return s.Address == step.on })
		})
		if err != nil {
			return err
		}
		if p.After != n.name {
			return exit.New(exit.IO, "look at the logs", "the service moved from %s to %s although an interface was left", n.name, p.After)
		}
		d.Say("%s: the address is on %s. The client's pause: %v (bound: %v).", title, step.on, p, moveBound)
	}
	return d.stillOn(ctx, n)
}

// stillOn wants the group where it was.
func (d *demo) stillOn(ctx context.Context, n *node) error {
	now, err := d.master(ctx)
	if err == nil && now != n {
		err = exit.New(exit.IO, "look at the logs", "the group is on %s and not on %s", now.name, n.name)
	}
	return err
}

// switchOver moves the group by hand.
func (d *demo) switchOver(ctx context.Context) error {
	d.Chapter("The service is moved by hand")
	n, err := d.master(ctx)
	if err != nil {
		return err
	}
	o := d.other(n)
	p, err := d.during(ctx, "switch by hand to "+o.name,
		func() error { _, err := n.hastctl(ctx, "group", "switch", group); return err },
		func() error { return o.awaitGroup(ctx, failoverLimit, "online") })
	if err != nil {
		return err
	}
	d.Say("%s goes down in order, %s comes up. The client's pause: %v.", n.name, o.name, p)
	return d.stillOn(ctx, o)
}

// killed ends both daemons of the master.
func (d *demo) killed(ctx context.Context) error {
	n, err := d.master(ctx)
	if err != nil {
		return err
	}
	o := d.other(n)
	d.Chapter("kill -9 of hastd and vipd on the master, in the middle of writing")
	p, err := d.during(ctx, "kill -9 of both daemons on "+n.name, func() error {
		pids, err := n.kill()
		d.Say("%s$ kill -9 %s", n.name, strings.Trim(fmt.Sprint(pids), "[]"))
		return err
	}, func() error { return o.awaitGroup(ctx, failoverLimit, "online") })
	if err != nil {
		return err
	}
	d.Say("%s took over. The client's pause: %v.", o.name, p)
	d.Say("The bound: %.1f s of silence (%d x (%d s + %d/256 s)), 0.2 s to ask who has the address, and the start.",
		silence(o.skew).Seconds(), deadratio, advbase, o.skew)
	p, err = d.during(ctx, "daemons of "+n.name+" are back", func() error {
		return errors.Join(n.startHastd(), n.startVipd())
	}, func() error {
		if err := n.awaitGroup(ctx, failoverLimit, "offline"); err != nil {
			return err
		}
		return o.awaitComplete(ctx, syncLimit)
	})
	if err != nil {
		return err
	}
	d.Say("The daemons are started again on %s: what was left of the service is taken down,", n.name)
	d.Say("its replica fetches what differs, and %s stays master. The client's pause: %v.", o.name, p)
	return d.stillOn(ctx, o)
}

// pulled takes both links of the master to the client's network.
func (d *demo) pulled(ctx context.Context) error {
	n, err := d.master(ctx)
	if err != nil {
		return err
	}
	o := d.other(n)
	d.Chapter("The cables of the master to the switch are pulled")
	p, err := d.during(ctx, "cables of "+n.name+" pulled", func() error { return d.plugBoth(ctx, n, false) },
		func() error { return o.awaitGroup(ctx, failoverLimit, "online") })
	if err != nil {
		return err
	}
	d.Say("%s has no link left and goes down in order; %s takes over after %.1f s of silence.", n.name, o.name, silence(o.skew).Seconds())
	d.Say("The client's pause: %v.", p)
	p, err = d.during(ctx, "cables of "+n.name+" are back", func() error { return d.plugBoth(ctx, n, true) },
		func() error { return n.awaitGroup(ctx, failoverLimit, "offline") })
	if err != nil {
		return err
	}
	d.Say("Plugged in again, %s hears a master and stays what it is. The client's pause: %v.", n.name, p)
	return d.stillOn(ctx, o)
}

// plugBoth puts both cables of a node in or out of the switch, the standby first: the
// address has nowhere to move to.
func (d *demo) plugBoth(ctx context.Context, n *node, in bool) error {
	for _, nic := range []int{1, 0} {
		if err := d.net.plug(ctx, n.name, nic, in); err != nil {
			return err
		}
	}
	return nil
}

// end reads everything back and draws the picture.
func (d *demo) end(ctx context.Context) error {
	d.Chapter("Every acknowledged write is read back through the service address")
	if err := d.client.stop(); err != nil {
		return err
	}
	d.Progress(-1, "reading back")
	if err := d.client.readBack(ctx); err != nil {
		return err
	}
	d.Clear()
	tries, acked, err := d.client.seen()
	if err != nil {
		return err
	}
	failed := 0
	for _, t := range tries {
		if !t.OK {
			failed++
		}
	}
	d.Say("%d writes were acknowledged, %d tries failed and were made again: all are there.", acked, failed)
	for _, m := range d.marks {
		d.Say("%6.2f s   %s", m.Pause.Length().Seconds(), m.Title)
	}
	if d.Picture != "" {
		path, err := filepath.Abs(d.Picture)
		if err == nil {
			err = os.WriteFile(path, picture(tries, d.marks), 0o644)
		}
		if err != nil {
			return exit.New(exit.CantCreate, "give another place with --picture FILE", "the picture: %w", err)
		}
		d.Say("The picture: %s", path)
	}
	fmt.Fprintf(d.Out, "\nOK: nothing that was acknowledged is lost (%.0f seconds).\n", time.Since(d.Began()).Seconds())
	return nil
}
