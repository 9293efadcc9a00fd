package transport

import (
	"errors"
	"net"
	"time"
)

// serve runs the handshake of one connection from its first byte.
func (l *Listener) serve(x *stranger) {
	keep, err := l.handshake(x)
	if !keep {
		_ = x.conn.Close()
	}
	l.wait.remove(x)
	if err == nil || l.ctx.Err() != nil {
		return
	}
	var no *Refused
	if errors.As(err, &no) {
		l.o.Metrics.Refused.Add(1)
		if no.Remote {
			l.lim.warn("the peer gave up the handshake", "from", x.conn.RemoteAddr().String(), "code", string(no.Code), "reason", no.Reason)
			return
		}
		l.lim.warn("connection refused: "+string(no.Code), "from", x.conn.RemoteAddr().String(), "reason", no.Reason)
		return
	}
	l.o.Metrics.Failed.Add(1)
	l.lim.warn("connection without a handshake", "from", x.conn.RemoteAddr().String(), "error", err)
}

// handshake reports whether the connection lives on.
func (l *Listener) handshake(x *stranger) (keep bool, err error) {
	raw, err := readMessage(x.conn)
	if err != nil {
		return false, err
	}
	theirs, err := parseHello(raw)
	if err != nil {
		sendRefusal(x.conn, refuse(CodeBad, "%v", err))
		return false, err
	}
	if theirs.Refused != nil {
		return false, errNoHello
	}
	x.spoke.Store(true)
	defer func() { l.tell(x, theirs, err) }()
	no := func(r *Refused) (bool, error) { sendRefusal(x.conn, r); return false, r }
	if theirs.Cluster != l.o.Cluster {
		o := Options{Cluster: l.o.Cluster, Node: l.o.Node}
		return no(o.fits(theirs))
	}
	ep, err := l.o.Lookup(theirs.Resource, theirs.From)
	if err == nil && ep == nil {
		err = refuse(CodeResource, "node %s has no resource %q: check the configuration on both nodes", l.o.Node, printable(theirs.Resource, maxName))
	}
	if err == nil {
		err = ep.settle()
	}
	if err != nil {
		return no(asRefused(CodeResource, err))
	}
	if r := ep.fits(theirs); r != nil {
		return no(r)
	}
	if theirs.Kind == kindControl {
		return l.control(x, ep, theirs, raw)
	}
	return l.data(x, ep, theirs, raw)
}

// tell has the endpoint that a peer wanted know why it got no session. A data connection
// has nothing to add to its control connection.
func (l *Listener) tell(x *stranger, theirs *hello, err error) {
	var no *Refused
	if theirs.Kind != kindControl || !errors.As(err, &no) {
		return
	}
	if ep, err := l.o.Lookup(theirs.Resource, theirs.From); err == nil && ep != nil && ep.Refused != nil {
		ep.Refused(x.host, no)
	}
}

// control authenticates a control connection and waits for its data connection.
func (l *Listener) control(x *stranger, ep *Endpoint, theirs *hello, raw []byte) (bool, error) {
	id := randomHex(sessionBytes)
	p := &pending{ep: ep, path: theirs.Path, data: make(chan *net.TCPConn, 1)}
	registered := false
	s, err := serverAnswer(x.conn, &ep.Options, theirs, raw, id, ep.Key, func(s *shaken) *Refused {
		if ep.Ready != nil {
			if err := ep.Ready(); err != nil {
				return asRefused(CodeNotReady, err)
			}
		}
		if !l.wait.remove(x) {
			return errPushedOut
		}
		p.bind = s.keys.bind
		l.expect(id, p) // before the client learns that it may send the other one
		registered = true
		return nil
	})
	var data *net.TCPConn
	if err == nil {
		data, err = l.await(id, p, x.since.Add(l.o.patience))
	} else if registered && !l.forget(id) {
		data = <-p.data
	}
	if err == nil {
		err = ready(&ep.Options, x.conn, data)
	}
	if err != nil {
		if data != nil {
			_ = data.Close()
		}
		return false, err
	}
	ep.Session(newSession(&ep.Options, data, x.conn, peerHello(s, id, data)))
	return true, nil
}

// errPushedOut: the proof came, but too late; the connection is closed already.
var errPushedOut = refuse(CodeBad, "too many connections at once")

// await waits for the data connection. Whoever takes the entry out of the map
// puts one value into its channel, nil if it comes to nothing.
func (l *Listener) await(id string, p *pending, deadline time.Time) (data *net.TCPConn, err error) {
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case data = <-p.data:
	case <-t.C:
		err = errors.New("the data connection did not come")
	case <-l.ctx.Done():
		err = l.ctx.Err()
	}
	if err != nil && !l.forget(id) {
		data = <-p.data
	}
	if err == nil && data == nil {
		err = errors.New("the peer began a newer session")
	}
	return data, err
}

// ready takes the handshake's deadline off and tunes both connections.
func ready(o *Options, conns ...*net.TCPConn) error {
	for _, c := range conns {
		if err := c.SetDeadline(time.Time{}); err != nil {
			return err
		}
		if err := tune(c, o); err != nil {
			return err
		}
	}
	return nil
}

// data authenticates a data connection and hands it to its control connection.
func (l *Listener) data(x *stranger, ep *Endpoint, theirs *hello, raw []byte) (bool, error) {
	p := l.find(theirs.Session)
	if p == nil || p.ep != ep {
		r := refuse(CodeSession, "the session is not known here, or has its data connection already")
		sendRefusal(x.conn, r)
		return false, r
	}
	taken := false
	_, err := serverAnswer(x.conn, &ep.Options, theirs, raw, theirs.Session, p.bind, func(*shaken) *Refused {
		if !l.wait.remove(x) {
			return errPushedOut
		}
		if taken = l.take(theirs.Session, p); !taken { // proved twice: the first has it
			return refuse(CodeSession, "the session has its data connection already")
		}
		return nil
	})
	switch {
	case !taken:
		return false, err
	case err != nil:
		p.data <- nil
		return false, err
	}
	p.data <- x.conn
	return true, nil
}

// expect registers a control connection; an older one of the endpoint over the same path
// goes. Those over others are not over: the peer tries them beside each other.
func (l *Listener) expect(id string, p *pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, q := range l.pending {
		if q.ep == p.ep && q.path == p.path {
			delete(l.pending, k)
			q.data <- nil
		}
	}
	l.begun++
	p.begun = l.begun
	l.pending[id] = p
}

// take is forget for a data connection that came. Older control connections of the
// endpoint go with it: what comes over them now must not end this session.
func (l *Listener) take(id string, p *pending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending[id] != p {
		return false
	}
	delete(l.pending, id)
	for k, q := range l.pending {
		if q.ep == p.ep && q.begun < p.begun {
			delete(l.pending, k)
			q.data <- nil
		}
	}
	return true
}

func (l *Listener) find(id string) *pending {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pending[id]
}

// forget takes a control connection out, once.
func (l *Listener) forget(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.pending[id]
	delete(l.pending, id)
	return ok
}

func peerHello(s *shaken, id string, data *net.TCPConn) PeerHello {
	v := s.hello.Version // the server's hello names it
	if v == 0 {
		v = commonVersion(s.hello)
	}
	return PeerHello{
		Node: s.hello.From, Role: printable(s.facts.Role, maxName), Build: printable(s.facts.Build, maxName),
		Instance: s.facts.Instance, MinVersion: s.hello.Min, MaxVersion: s.hello.Max, Version: v,
		SharedHash: s.facts.Shared, Session: id, Path: s.hello.Path, Secured: s.hello.Secured,
		Local: data.LocalAddr().String(), Remote: data.RemoteAddr().String(),
	}
}
