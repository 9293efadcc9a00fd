package api

import "sync"

// subscriberQueue is how many events may wait for one reader.
const subscriberQueue = 512

// Hub hands events to any number of readers. Publish never waits: a reader that
// falls behind is told by a last event and let go.
type Hub struct {
	mu     sync.Mutex
	subs   map[chan Event]struct{}
	closed bool
}

// Subscribe gives the events from now on, until stop, Close, or falling behind.
func (h *Hub) Subscribe() (<-chan Event, func()) {
	c := make(chan Event, subscriberQueue+1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(c)
		return c, func() {}
	}
	if h.subs == nil {
		h.subs = map[chan Event]struct{}{}
	}
	h.subs[c] = struct{}{}
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.drop(c)
	}
}

// drop ends one subscription. Called with the lock.
func (h *Hub) drop(c chan Event) {
	if _, ok := h.subs[c]; ok {
		delete(h.subs, c)
		close(c)
	}
}

// Publish hands an event to every reader.
func (h *Hub) Publish(ev Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.subs {
		if len(c) < subscriberQueue {
			c <- ev
			continue
		}
		c <- Event{Time: ev.Time, Node: ev.Node, Kind: KindDropped, Name: ev.Name, Reason: "events were not read fast enough: the stream ends here"}
		h.drop(c)
	}
}

// Close ends every subscription.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for c := range h.subs {
		h.drop(c)
	}
}
