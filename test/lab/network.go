package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Side is one of the two nodes.
type Side int

// The nodes. Alpha has the lower id.
const (
	Alpha Side = 0
	Bravo Side = 1
)

func (s Side) String() string { return [...]string{"alpha", "bravo"}[s] }

// Other is the peer.
func (s Side) Other() Side { return 1 - s }

// Cut is what a link does to packets.
type Cut int

// The ways to cut. Silent ones swallow packets, so that each side only notices
// by time-outs; Reset answers each with a reset.
const (
	CutNone  Cut = iota
	CutBoth      // silent both ways
	CutFrom      // what this side sends is swallowed
	CutTo        // what the other side sends to this one is swallowed
	CutReset     // connections are reset, at once
)

func (c Cut) String() string {
	return [...]string{"whole", "silent", "one way out", "one way in", "reset"}[c]
}

// Network is the link between the two nodes.
type Network interface {
	// Address is where node at is, in the configuration that node reader reads.
	Address(at, reader Side) string
	// Command wraps a command line so that it runs on a node.
	Command(s Side, argv ...string) []string
	// Cut does something to the link, seen from a side; CutNone heals it.
	Cut(s Side, c Cut) error
	// Lose makes the link drop so many of a hundred packets, 99 at most; 0 ends that.
	Lose(percent int) error
	// Slow makes everything arrive later, and so many bytes a second at most; two
	// zeroes end that.
	Slow(delay time.Duration, rate int64) error
	// Sent counts the bytes that a side has sent over the link.
	Sent(s Side) (int64, error)
	io.Closer
}

// namespaces is two network namespaces with a veth between them. Each is held
// by a process, so nothing stays behind when the lab dies.
type namespaces struct {
	mu   sync.Mutex // over the packet filters: two nodes may be powered up at once
	hold [2]*exec.Cmd
	cut  [2]filter
	loss int   // of a hundred packets, on both sides' way in
	slow *slow // the other way between them; nil until it is wanted

	// Of a LAN: what the nodes are plugged into, and a third host there.
	sw, client *exec.Cmd
}

// filter is what a side's packet filter does to what comes in and goes out.
type filter struct{ in, out string }

const linkName = "lab0"

// NewNamespaces makes the network. It needs root, ip and nft.
func NewNamespaces() (Network, error) {
	n := &namespaces{}
	if err := n.holdAll(&n.hold[Alpha], &n.hold[Bravo]); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	pid := func(s Side) string { return strconv.Itoa(n.hold[s].Process.Pid) }
	err := run("", "ip", "link", "add", linkName, "netns", pid(Alpha), "type", "veth", "peer", "name", linkName, "netns", pid(Bravo))
	if err == nil {
		err = n.setUp()
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// holdAll makes a namespace for each.
func (n *namespaces) holdAll(holders ...**exec.Cmd) error {
	for _, to := range holders {
		h := exec.Command("unshare", "--net", "--", "sleep", "infinity")
		h.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		if err := h.Start(); err != nil {
			return fmt.Errorf("lab: a network namespace: %w", err)
		}
		*to = h
	}
	for _, h := range holders {
		if err := awaitNamespace(*h); err != nil {
			return err
		}
	}
	return nil
}

// setUp gives the nodes' links their addresses.
func (n *namespaces) setUp() error {
	for _, s := range []Side{Alpha, Bravo} {
		for _, c := range []string{
			"ip link set lo up",
			"ip addr add " + n.Address(s, s) + "/24 dev " + linkName,
			"ip link set " + linkName + " addrgenmode none",
			"ip link set " + linkName + " up",
		} {
			if err := run("", n.Command(s, strings.Fields(c)...)...); err != nil {
				return err
			}
		}
		if err := n.set(s, "", ""); err != nil {
			return err
		}
	}
	return nil
}

// awaitNamespace waits until the holder has left this process's namespace.
func awaitNamespace(h *exec.Cmd) error {
	// Not /proc/self: that is the first thread, which may be visiting another lab's
	// namespace (enter).
	own, err := readLink("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	return poll(startLimit, func() (bool, error) {
		ns, err := readLink(fmt.Sprintf("/proc/%d/ns/net", h.Process.Pid))
		return err == nil && ns != own, err
	})
}

func (n *namespaces) Address(at, _ Side) string { return fmt.Sprintf("10.77.0.%d", at+1) }

func (n *namespaces) Command(s Side, argv ...string) []string {
	return inside(n.hold[s], argv...)
}

// inside wraps a command line so that it runs in a namespace.
func inside(h *exec.Cmd, argv ...string) []string {
	return append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", h.Process.Pid), "--"}, argv...)
}

// set replaces the packet filter of a side.
func (n *namespaces) set(s Side, in, out string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[s] = filter{in, out}
	return n.rules(s)
}

// rules writes the packet filter of a side.
func (n *namespaces) rules(s Side) error {
	const links = `{ "` + linkName + `", "` + slowName + `" } `
	rule := func(dir, verb string) string {
		if verb == "" {
			return ""
		}
		return dir + " " + links + verb + ";"
	}
	lose := ""
	if n.loss > 0 {
		lose = fmt.Sprintf("numgen random mod 100 < %d drop", n.loss)
	}
	return run(fmt.Sprintf(`
table inet lab
delete table inet lab
table inet lab {
	chain in { type filter hook input priority 0; %s %s }
	chain out { type filter hook output priority 0; %s }
}`, rule("iifname", lose), rule("iifname", n.cut[s].in), rule("oifname", n.cut[s].out)), n.Command(s, "nft", "-f", "-")...)
}

func (n *namespaces) Cut(s Side, c Cut) error {
	const drop, reset = "drop", "meta l4proto tcp reject with tcp reset"
	switch c {
	case CutNone:
		return errors.Join(n.set(Alpha, "", ""), n.set(Bravo, "", ""))
	case CutBoth:
		return n.set(s, drop, drop)
	case CutFrom:
		return n.set(s, "", drop)
	case CutTo:
		return n.set(s, drop, "")
	case CutReset:
		return errors.Join(n.set(Alpha, reset, ""), n.set(Bravo, reset, ""))
	}
	return fmt.Errorf("lab: unknown cut %d", c)
}

// Lose drops a random share of the packets, both ways.
func (n *namespaces) Lose(percent int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = percent
	return errors.Join(n.rules(Alpha), n.rules(Bravo))
}

func (n *namespaces) Sent(s Side) (int64, error) {
	out, err := exec.Command("nsenter", n.Command(s, "ip", "-s", "-j", "link", "show", "dev", linkName)[1:]...).Output()
	if err != nil {
		return 0, fmt.Errorf("lab: counters of the link: %w", err)
	}
	var links []struct {
		Stats64 struct {
			TX struct{ Bytes int64 }
		}
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		return 0, fmt.Errorf("lab: counters of the link: %s", out)
	}
	return links[0].Stats64.TX.Bytes, nil
}

func (n *namespaces) Close() error {
	if n.slow != nil {
		n.slow.close()
	}
	for _, h := range []*exec.Cmd{n.hold[Alpha], n.hold[Bravo], n.sw, n.client} {
		if h != nil {
			h.Process.Kill()
			h.Wait() // killed: its error says nothing
		}
	}
	return nil
}

// run runs a command to its end; stdin may be empty.
func run(stdin string, argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("lab: %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
