package runner

import (
	"bytes"
	"net"
	"testing"
	"time"

	"hastd/blockdev"
	"hastd/metadata"
	"hastd/replicate"
	"hastd/transport"
)

// TestPromotionReachesThePeerDespiteASilentPath: the peer refused as long as it was in
// init, and has newer data. A second path on which nothing is heard does not keep the
// promotion from asking it on the first.
func TestPromotionReachesThePeerDespiteASilentPath(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	a, b := realPair(t, 16<<20, func(o *Options) {
		if o.NodeID == 0 {
			o.Paths = []transport.Path{{Remote: mute.Addr().String()}}
		}
	})
	role := func(n *node, r metadata.Role) {
		t.Helper()
		n.order(t, replicate.Command{Kind: replicate.CmdRole, Role: r})
	}
	role(a, metadata.Init)
	role(b, metadata.Primary)
	want := randomBytes(4096, 7)
	cb := &client{r: b.Resource, done: make(chan *blockdev.Request, 8)}
	b.write(t, cb, 1<<20, want)
	cb.do(t, &blockdev.Request{Op: blockdev.OpFlush})
	role(b, metadata.Init)
	role(a, metadata.Secondary)
	time.Sleep(600 * time.Millisecond) // it is refused, and waits for the other path
	role(b, metadata.Secondary)
	role(a, metadata.Primary)
	ca := &client{r: a.Resource, done: make(chan *blockdev.Request, 8)}
	if !bytes.Equal(a.read(t, ca, 1<<20, 4096), want) {
		t.Error("what the peer acknowledged is not there")
	}
}
