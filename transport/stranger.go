package transport

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Limits on connections that have not finished their handshake. An honest one
// takes milliseconds, but a peer with many resources starts many at once.
const (
	maxStrangers   = 96
	maxFromOneHost = 32
)

// strangers keeps connections in the handshake and pushes out the oldest when
// there are too many, first those that have not said a word. A session is not
// among them: nobody without the key can end one.
type strangers struct {
	mu  sync.Mutex
	all []*stranger // oldest first
}

type stranger struct {
	conn  *net.TCPConn
	host  string
	since time.Time
	spoke atomic.Bool // a well-formed hello was read
}

// add admits c and returns who was pushed out for it, if anybody.
func (l *strangers) add(c *net.TCPConn) (x, out *stranger) {
	x = &stranger{conn: c, since: time.Now(), host: hostOf(c.RemoteAddr())}
	l.mu.Lock()
	defer l.mu.Unlock()
	same := 0
	for _, s := range l.all {
		if s.host == x.host {
			same++
		}
	}
	switch {
	case same >= maxFromOneHost:
		out = l.oldest(x.host)
	case len(l.all) >= maxStrangers:
		out = l.oldest("")
	}
	if out != nil {
		l.drop(out)
		_ = out.conn.Close() // wakes its goroutine
	}
	l.all = append(l.all, x)
	return x, out
}

// oldest of one host, or of all.
func (l *strangers) oldest(host string) *stranger {
	var spoke *stranger
	for _, s := range l.all {
		if host != "" && s.host != host {
			continue
		}
		if !s.spoke.Load() {
			return s
		}
		if spoke == nil {
			spoke = s
		}
	}
	return spoke
}

// remove takes x out; false says that it was pushed out before.
func (l *strangers) remove(x *stranger) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.drop(x)
}

func (l *strangers) drop(x *stranger) bool {
	for i, s := range l.all {
		if s == x {
			l.all = append(l.all[:i], l.all[i+1:]...)
			return true
		}
	}
	return false
}

// closeAll hangs up on everybody.
func (l *strangers) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.all {
		_ = s.conn.Close()
	}
}

func hostOf(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.IP.String()
	}
	return a.String()
}
