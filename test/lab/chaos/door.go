package chaos

import (
	"context"
	"sync"
)

// door is what the clients of the database pass before each transaction: shut
// while nobody serves, and while something is looked at.
type door struct {
	mu      sync.Mutex
	changed *sync.Cond
	socket  string // folder of the server's socket; "": shut
	opening int    // counts openings: a connection is good for one
	inside  int
	ended   bool
}

func newDoor() *door {
	d := &door{}
	d.changed = sync.NewCond(&d.mu)
	return d
}

// enter waits until the door is open. Whoever entered leaves.
func (d *door) enter() (socket string, opening int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.socket == "" && !d.ended {
		d.changed.Wait()
	}
	if d.ended {
		return "", 0, false
	}
	d.inside++
	return d.socket, d.opening, true
}

func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside--
	d.changed.Broadcast()
}

// open lets clients in, to the server at socket.
func (d *door) open(socket string, fresh bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.socket = socket
	if fresh {
		d.opening++
	}
	d.changed.Broadcast()
}

// shut lets nobody in any more.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.socket = ""
}

// end shuts it for ever.
func (d *door) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	d.changed.Broadcast()
}

// empty waits until all have left.
func (d *door) empty(ctx context.Context) error {
	return await(ctx, quietLimit, "clients of the database end their transactions", func() (bool, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.inside == 0, nil
	})
}
