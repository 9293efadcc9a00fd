package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// serviceHead begins what GroupServices replaces.
const serviceHead = "[[group." + GroupName + ".service]]"

// GroupServices replaces the services of the lab's group. In the text $app is the file
// that stands for the service on a node, $dir the node's folder.
func (l *Lab) GroupServices(text string) error {
	return l.rewrite(func(n *Node, conf string) string {
		before, _, _ := strings.Cut(conf, serviceHead)
		return before + strings.NewReplacer("$app", n.App(), "$dir", n.dir).Replace(text)
	})
}

// NameAddress gives the group's address a name.
func (l *Lab) NameAddress(name string) error {
	cidr := fmt.Sprintf("%q", prefixed(l.o.Service))
	return l.rewrite(func(_ *Node, conf string) string {
		return strings.Replace(conf, "["+cidr, fmt.Sprintf("[{ name = %q, cidr = %s }", name, cidr), 1)
	})
}

// rewrite changes the configurations of both nodes.
func (l *Lab) rewrite(change func(n *Node, conf string) string) error {
	for _, n := range l.Nodes {
		was, err := os.ReadFile(n.Config())
		if err != nil {
			return err
		}
		is := change(n, string(was))
		if is == string(was) {
			return fmt.Errorf("lab: the configuration of %v did not change", n.Side)
		}
		if err := os.WriteFile(n.Config(), []byte(is), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Consoles has each vipd that is started from now on write to a console of its own, a
// file, and not to the machine's.
func (l *Lab) Consoles() error {
	for _, n := range l.Nodes {
		if err := os.WriteFile(n.console(), nil, 0o600); err != nil {
			return err
		}
	}
	// vipd -c FOLDER/hast.toml …
	script := fmt.Sprintf(`#!/bin/sh
exec unshare --mount --propagation private sh -c 'mount --bind "$0" /dev/console && exec "$@"' "${2%%/*}/console" %s "$@"
`, l.o.Programs.Vipd)
	l.o.Programs.Vipd = filepath.Join(l.o.Dir, "vipd")
	return os.WriteFile(l.o.Programs.Vipd, []byte(script), 0o700)
}

func (n *Node) console() string { return n.path("console") }

// Console is what was written to the node's console, line by line.
func (n *Node) Console() []string {
	b, _ := os.ReadFile(n.console())
	return strings.Split(strings.TrimSuffix(string(b), "\r\n"), "\r\n")
}
