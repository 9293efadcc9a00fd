package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"hastd/test/lab"
	"hastd/test/lab/disk"
)

const help = `
  status                     both nodes in a line each
  primary|secondary NODE     switch the role; "primary! NODE" uses force
  kill|start|stop NODE       the daemon: SIGKILL, start, SIGTERM
  freeze|thaw NODE           SIGSTOP, SIGCONT
  powerloss|powerup NODE     the whole node, volatile disk cache included
  cut [silent|reset|out|in] [NODE]   the link; heal makes it whole
  diskfail|diskheal NODE     writes to its disk fail, or no longer do
  recover NODE               after a split-brain: give up this node's changes
  compare                    are both replicas equal?
  quit                       or Ctrl-C`

// shell carries out what a person types.
type shell struct {
	l   *lab.Lab
	out io.Writer
}

// run reads lines until quit or ctx ends. The end of input does not end the lab:
// it may have been started without a terminal.
func (s shell) run(ctx context.Context, in io.Reader) {
	lines := make(chan string)
	// Not waited for: a read from a terminal cannot be cancelled.
	go func() {
		sc := bufio.NewScanner(in)
		for sc.Scan() {
			lines <- sc.Text()
		}
	}()
	for {
		fmt.Fprint(s.out, "lab> ")
		select {
		case <-ctx.Done():
			return
		case line := <-lines:
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			if words[0] == "quit" || words[0] == "exit" {
				return
			}
			if err := s.do(words); err != nil {
				fmt.Fprintln(s.out, "error:", err)
			}
		}
	}
}

func (s shell) node(words []string) (*lab.Node, error) {
	for _, n := range s.l.Nodes {
		if len(words) > 0 && n.Side.String() == words[len(words)-1] {
			return n, nil
		}
	}
	return nil, fmt.Errorf("name a node: alpha or bravo")
}

func (s shell) do(words []string) error {
	switch words[0] {
	case "help":
		fmt.Fprintln(s.out, help)
		return nil
	case "status":
		for _, n := range s.l.Nodes {
			if st, err := n.Status(); err != nil {
				fmt.Fprintf(s.out, "%v: %v\n", n.Side, err)
			} else {
				fmt.Fprintf(s.out, "%v: %v\n", n.Side, st)
			}
		}
		return nil
	case "heal":
		return s.l.Heal()
	case "cut":
		return s.cut(words[1:])
	case "compare":
		return s.compare()
	}
	n, err := s.node(words[1:])
	if err != nil {
		return err
	}
	switch words[0] {
	case "primary", "secondary", "init":
		return n.Role(words[0], false)
	case "primary!", "secondary!", "init!":
		return n.Role(strings.TrimSuffix(words[0], "!"), true)
	case "kill":
		return n.Kill()
	case "start":
		return n.Start()
	case "stop":
		return n.Stop()
	case "freeze":
		return n.Freeze()
	case "thaw":
		return n.Thaw()
	case "recover":
		return n.RecoverDiscard()
	}
	if n.Disk == nil {
		return fmt.Errorf("%s: plain files have no power and no faults, or it is no command (help shows all)", words[0])
	}
	switch words[0] {
	case "powerloss":
		return n.PowerLoss()
	case "powerup":
		return n.PowerUp()
	case "diskfail":
		return n.Disk.Fail(disk.Fault{Op: disk.OpWrite})
	case "diskheal":
		return n.Disk.Heal()
	}
	return fmt.Errorf("no such command: %s (help shows all)", words[0])
}

func (s shell) cut(words []string) error {
	how, side := lab.CutBoth, lab.Alpha
	for _, w := range words {
		switch w {
		case "silent":
		case "reset":
			how = lab.CutReset
		case "out":
			how = lab.CutFrom
		case "in":
			how = lab.CutTo
		case "alpha":
		case "bravo":
			side = lab.Bravo
		default:
			return fmt.Errorf("cut silent, reset, out or in, at alpha or bravo")
		}
	}
	return s.l.Cut(side, how)
}

func (s shell) compare() error {
	for _, n := range s.l.Nodes {
		st, err := n.Status()
		if err != nil || st.Provider == nil {
			continue
		}
		began := time.Now()
		d, err := lab.CompareFiles(s.l.Nodes[0].Local(), s.l.Nodes[1].Local(), st.Provider.Size)
		if err != nil {
			return err
		}
		if d.Err() != nil {
			return d.Err()
		}
		fmt.Fprintf(s.out, "all %d blocks are equal (%v)\n", d.Blocks, time.Since(began).Round(time.Millisecond))
		return nil
	}
	return fmt.Errorf("no node is primary, so the size of the device is not known")
}
