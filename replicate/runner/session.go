package runner

import (
	"context"
	"errors"
	"sync"
	"time"

	"hastd/metadata"
	"hastd/replicate"
	"hastd/transport"
)

// link keeps at most one session to the peer. On the node with the lower id it
// dials; on the other the node's listener brings sessions through the endpoint.
type link struct {
	r        *Resource
	dialer   *transport.Dialer
	endpoint *transport.Endpoint
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu      sync.Mutex
	enabled bool
	closed  bool
	last    replicate.SessionID
	current *peerSession
	next    *transport.Session // came while the older one was not down yet
	told    string             // differences of the configuration last logged
	refusal refusal            // of the peer, by or on this node
}

// refusal is why the node that listens got no session. The one that dials has it from
// its dialer.
type refusal struct {
	text string
	at   time.Time
}

// refusalKept is how long a refusal is shown without another: several times as long as a
// dialer waits between two attempts.
const refusalKept = 30 * time.Second

// newLink prepares the way to the peer; nothing is tried before enable.
func newLink(r *Resource) (*link, error) {
	l := &link{r: r}
	o := r.opts.Transport
	if o.Peer == "" {
		return l, nil // a resource without a peer: tests
	}
	o.SharedHash = r.opts.Shared
	o.Role = func() string { return metadata.Role(r.role.Load()).String() }
	if len(r.opts.Paths) == 0 {
		l.endpoint = &transport.Endpoint{Options: o, Ready: l.ready, Session: l.arrived, Refused: l.refused}
		return l, nil
	}
	d, err := transport.NewDialer(transport.DialerOptions{Options: o, Paths: r.opts.Paths, Unreached: l.unreached})
	if err != nil {
		return nil, err
	}
	d.Pause()
	l.dialer = d
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.wg.Go(func() { l.dial(ctx) })
	return l, nil
}

// dial makes one session after the other.
func (l *link) dial(ctx context.Context) {
	for {
		s, err := l.dialer.Dial(ctx)
		if err != nil {
			return
		}
		l.arrived(s)
		<-s.Ended() // the next one only after this; serve tells when it is over
		l.settled()
	}
}

// settled waits until no session is being served.
func (l *link) settled() {
	l.mu.Lock()
	p := l.current
	l.mu.Unlock()
	if p != nil {
		<-p.over
	}
}

// ready is asked by the listener before a session is made.
func (l *link) ready() error {
	l.mu.Lock()
	takesPart := l.enabled && !l.closed
	l.mu.Unlock()
	if takesPart {
		return nil
	}
	return errors.New(l.r.apart())
}

// refused notes why the peer got no session. That this node takes no part its status
// says anyway.
func (l *link) refused(from string, no *transport.Refused) {
	if no.Code == transport.CodeNotReady {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusal = refusal{"a connection from " + from + " was " + no.Error(), time.Now()}
}

// lastRefusal is "" if there is none to speak of.
func (l *link) lastRefusal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.refusal.at) > refusalKept {
		return ""
	}
	return l.refusal.text
}

// arrived takes a new session. The older one, if it still stands, goes first.
func (l *link) arrived(s *transport.Session) {
	l.mu.Lock()
	switch {
	case !l.enabled || l.closed:
		l.mu.Unlock()
		s.Close(l.r.opts.Node + " does not take part now")
	case l.current != nil:
		older := l.next
		l.next = s
		cur := l.current
		l.mu.Unlock()
		if older != nil {
			older.Close("a newer session came")
		}
		cur.s.Close("a newer session came")
	default:
		l.begin(s)
		l.mu.Unlock()
	}
}

// begin serves a session. Called with the lock.
func (l *link) begin(s *transport.Session) {
	l.last++
	l.refusal = refusal{}
	p := &peerSession{link: l, r: l.r, s: s, id: l.last, over: make(chan struct{})}
	l.current = p
	l.wg.Go(p.serve)
}

// ended is told by a session's goroutine at its end.
func (l *link) ended(p *peerSession) {
	l.mu.Lock()
	l.current = nil
	next := l.next
	l.next = nil
	switch {
	case next == nil:
	case !l.enabled || l.closed:
		defer next.Close(l.r.opts.Node + " does not take part now")
	default:
		l.begin(next)
	}
	l.mu.Unlock()
	close(p.over)
}

// unreached has the machine know that nobody answered on any path, or of a refusal.
func (l *link) unreached(refused bool, err error) {
	l.r.box.event(replicate.Event{Kind: replicate.EvUnreachable, Refused: refused, Text: err.Error()})
}

// enable makes and accepts sessions from now on.
func (l *link) enable(now bool) {
	l.mu.Lock()
	was := l.enabled
	l.enabled = true
	l.mu.Unlock()
	if l.dialer == nil {
		return
	}
	if !was {
		l.dialer.Resume()
	} else if now {
		l.dialer.Kick()
	}
}

func (l *link) disable() {
	l.mu.Lock()
	l.enabled = false
	l.mu.Unlock()
	if l.dialer != nil {
		l.dialer.Pause()
	}
}

// close ends everything; what is left after the session's own linger is none.
func (l *link) close() {
	l.disable()
	l.mu.Lock()
	l.closed = true
	cur, next := l.current, l.next
	l.next = nil
	l.mu.Unlock()
	if next != nil {
		next.Close("the daemon stops")
	}
	if cur != nil {
		cur.s.Close("the daemon stops")
	}
	if l.cancel != nil {
		l.cancel()
	}
	l.wg.Wait()
}

// peerSession takes what arrives on one session. Everything but the fields of
// the head belongs to the goroutine of Serve.
type peerSession struct {
	link *link
	r    *Resource
	s    *transport.Session
	id   replicate.SessionID
	over chan struct{}

	batch []item
	seqs  []uint64
	body  []byte // given out by Body and not delivered yet
	arena bool   // it came from the arena
	small []byte // for bodies that are decoded at once
	bad   bool   // a message made no sense: nothing more is delivered
}

var _ transport.Handler = (*peerSession)(nil)

// maxBatch is how many messages are held back at most while more are at hand.
const maxBatch = 256

func (p *peerSession) serve() {
	h := p.s.Hello()
	role, err := metadata.ParseRole(h.Role)
	if err != nil {
		p.s.Close("unknown role: " + h.Role)
		role = metadata.Init
	}
	p.link.compareShared(h.SharedHash)
	p.r.box.post(item{ev: replicate.Event{Kind: replicate.EvSessionUp, Session: p.id, PeerRole: role}, session: p})
	err = p.s.Serve(p)
	if p.arena && p.body != nil {
		p.r.peerMem.Put(p.body)
	}
	p.Batch()
	p.r.box.event(replicate.Event{Kind: replicate.EvSessionDown, Session: p.id, Text: err.Error()})
	p.link.ended(p)
}

// compareShared logs once which parts of the configuration differ.
func (l *link) compareShared(theirs map[string]string) {
	diff := ""
	add := func(k string) {
		if diff != "" {
			diff += ", "
		}
		diff += k
	}
	for _, k := range sortedKeys(l.r.opts.Shared, theirs) {
		if l.r.opts.Shared[k] != theirs[k] {
			add(k)
		}
	}
	l.mu.Lock()
	news := diff != l.told
	l.told = diff
	l.mu.Unlock()
	if news && diff != "" {
		l.r.opts.Log.Warn("the peer's configuration differs: make the file the same on both nodes", "peer", l.r.opts.Peer, "keys", diff)
	}
}

// refuse ends the session over a message.
func (p *peerSession) refuse(err error) {
	if !p.bad {
		p.bad = true
		p.s.Close(err.Error())
	}
}

// Body gives memory for a message's body, shaped as the window for blocks.
func (p *peerSession) Body(f *transport.Frame, n int) []byte {
	if p.bad {
		return nil
	}
	if err := checkFrame(f, n, p.r.deviceSize.Load()); err != nil {
		p.refuse(err)
		return nil
	}
	kind := bodies[f.Kind]
	if kind == bodySeqs || kind == bodyControl {
		if cap(p.small) < n {
			p.small = make([]byte, n)
		}
		p.body, p.arena = p.small[:n], false
		return p.body
	}
	size := n
	if kind == bodyBlocks {
		size = replicate.WindowSize
	}
	p.body, p.arena = p.memory(size), true
	if p.body == nil {
		return nil
	}
	return p.body[:n]
}

// memory waits for a buffer, but not longer than the session lives.
func (p *peerSession) memory(n int) []byte {
	if b := p.r.peerMem.TryGet(n); b != nil {
		return b
	}
	p.Batch() // what waits here may hold what we wait for
	got := make(chan []byte, 1)
	go func() { got <- p.r.peerMem.Get(n) }()
	select {
	case b := <-got:
		return b
	case <-p.s.Ended():
		// Whoever holds the memory may hold it for long (a disk that hangs); it
		// goes straight back when it comes, or with the arena.
		go func() { p.r.peerMem.Put(<-got) }()
		return nil
	}
}

// Frame takes a message.
func (p *peerSession) Frame(f *transport.Frame, body []byte) {
	if p.bad {
		return
	}
	window := p.body
	p.body = nil
	size := p.r.deviceSize.Load()
	if len(body) == 0 {
		if err := checkFrame(f, 0, size); err != nil {
			p.refuse(err)
			return
		}
	}
	it := item{ev: replicate.Event{Kind: replicate.EvMessage, Session: p.id, Msg: msgOf(f)}}
	switch bodies[f.Kind] {
	case bodyData, bodyHashes:
		it.body, it.from = window, p.r.peerMem
	case bodyBlocks:
		if len(body) > 0 {
			scatter(window, f.Mask&^f.Aux)
			it.body, it.from = window, p.r.peerMem
		}
	case bodySeqs:
		it.seqs[0] = len(p.seqs)
		p.seqs = decodeSeqs(p.seqs, body)
		it.seqs[1] = len(p.seqs)
	case bodyControl:
		c, err := decodeControl(replicate.MsgKind(f.Kind), body, size)
		if err != nil {
			p.refuse(err)
			return
		}
		it.ev.Msg.Control = c
	}
	p.batch = append(p.batch, it)
	if len(p.batch) >= maxBatch {
		p.Batch()
	}
}

// Batch hands over what came.
func (p *peerSession) Batch() {
	if len(p.batch) == 0 {
		return
	}
	p.r.box.postAll(p.batch, p.seqs)
	clear(p.batch)
	p.batch, p.seqs = p.batch[:0], p.seqs[:0]
}
