package lab

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// helperEnv makes the test binary a helper that runs on a node of a network.
const helperEnv = "LAB_TEST_HELPER"

// atOnce is how many tests run at the same time, of those that say t.Parallel. They
// mostly wait: on two processors that had other work three of them took hardly longer
// than each alone. Each has two daemons, two disks and a load, though: many of them would
// make each other's time limits meaningless. A test without it runs alone: one that
// measures pauses, memory or processor time, or allows less than 2 s for something.
const atOnce = "3"

// calmInterval is the time between VRRP's adverts in a group that stands beside other
// tests: with the lab's 100 ms a machine that pauses for a third of a second has a
// failover that nobody meant.
const calmInterval = 400 * time.Millisecond

func TestMain(m *testing.M) {
	if what := os.Getenv(helperEnv); what != "" {
		if err := help(what); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Set("test.parallel", atOnce) // the command line, which is read later, may say otherwise
	code := m.Run()
	if programsDir != "" {
		os.RemoveAll(programsDir)
	}
	os.Exit(code)
}

// help does what a helper is told: an address to echo on, or words parted by tabs.
func help(what string) error {
	words := strings.Split(what, "\t")
	switch words[0] {
	case "attack":
		if err := attacks[words[2]](words[1]); err != nil {
			return err
		}
		fmt.Println("ready")
		return nil
	case "idle":
		return idleConnections(words[1], 1000)
	}
	return echo(words[0])
}

// echo answers every connection with its own bytes, for as long as stdin is open.
func echo(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

var (
	programsOnce sync.Once
	programs     Programs
	programsDir  string
	programsErr  error
)

// needPrograms builds hastd, hastctl and labdisk once for all tests.
func needPrograms(t testing.TB) Programs {
	t.Helper()
	programsOnce.Do(func() {
		if programsDir, programsErr = os.MkdirTemp("", "lab-programs-"); programsErr == nil {
			programs, programsErr = Build(programsDir, os.Getenv("LAB_RACE") == "1")
		}
	})
	if programsErr != nil {
		t.Fatalf("building the programs: %v", programsErr)
	}
	return programs
}

// newLab makes a lab that ends with the test, and shows both logs if it failed.
func newLab(t testing.TB, o Options) *Lab {
	t.Helper()
	if os.Getuid() != 0 && !(o.Relay && o.Plain) {
		t.Skip("namespaces and FUSE disks need root")
	}
	o.Programs = needPrograms(t)
	if o.Dir == "" {
		// Not t.TempDir: socket paths have an end at 107 bytes.
		dir, err := os.MkdirTemp("", "lab-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() && os.Getenv("LAB_KEEP") == "1" {
				t.Logf("kept: %s", dir)
				return
			}
			os.RemoveAll(dir)
		})
		o.Dir = dir
	}
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.Tails(60))
		}
		if err := l.Close(); err != nil {
			t.Errorf("ending the lab: %v", err)
		}
	})
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// background is a context that ends with the test.
func background(t testing.TB) context.Context { return t.Context() }
