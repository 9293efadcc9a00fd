package disk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Command is one line of JSON to the control socket of a disk's process.
type Command struct {
	// Do is powerloss, powerup, fail, heal, delay, freeze, thaw, stats,
	// resetstats, snapshot or restore.
	Do      string `json:"do"`
	Fault   *Fault `json:"fault,omitempty"`    // for fail
	DelayMS int64  `json:"delay_ms,omitempty"` // for delay
	Name    string `json:"name,omitempty"`     // for snapshot and restore
}

// Answer is the line that comes back.
type Answer struct {
	Error string `json:"error,omitempty"`
	Stats *Stats `json:"stats,omitempty"`
}

// Execute carries out a command on d.
func Execute(d *Disk, c Command) Answer {
	var err error
	switch c.Do {
	case "powerloss":
		err = d.PowerLoss()
	case "powerup":
		d.PowerUp()
	case "fail":
		if c.Fault == nil {
			err = errors.New("fail needs a fault")
		} else {
			err = d.Fail(*c.Fault)
		}
	case "heal":
		d.Heal()
	case "delay":
		d.Delay(time.Duration(c.DelayMS) * time.Millisecond)
	case "freeze":
		d.Freeze()
	case "thaw":
		d.Thaw()
	case "stats":
	case "resetstats":
		d.ResetStats()
	case "snapshot":
		err = d.Snapshot(c.Name)
	case "restore":
		err = d.Restore(c.Name)
	default:
		err = fmt.Errorf("unknown command %q", c.Do)
	}
	s := d.Stats()
	a := Answer{Stats: &s}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// ServeControl answers commands on l until ctx ends.
func ServeControl(ctx context.Context, d *Disk, l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			end := context.AfterFunc(ctx, func() { c.Close() })
			defer end()
			defer c.Close()
			serveConn(d, c)
		})
	}
}

func serveConn(d *Disk, c net.Conn) {
	in := bufio.NewScanner(c)
	out := json.NewEncoder(c)
	for in.Scan() {
		var cmd Command
		var a Answer
		if err := json.Unmarshal(in.Bytes(), &cmd); err != nil {
			a.Error = err.Error()
		} else {
			a = Execute(d, cmd)
		}
		if out.Encode(a) != nil {
			return
		}
	}
}
