package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"hastd/test/lab/nbdclient"
	"hastd/test/linear"
)

// The clients of TestLinearPair: few blocks, so that their requests meet, and one
// request at a time each, so that few writes are left unanswered by a fault.
const (
	linearClients = 6
	hotGroups     = 4         // places, each in an extent of its own
	hotBlocks     = 3         // blocks at a place, for writes over more than one
	hotStride     = 300 << 10 // between places, in bytes
	sectorBytes   = 512
	blockSectors  = BlockSize / sectorBytes
)

// linearLoad is the clients and what they saw, on one clock.
type linearLoad struct {
	began  time.Time
	stop   context.CancelFunc
	ended  sync.WaitGroup
	dial   func(context.Context) (*nbdclient.Client, error)
	value  atomic.Int64 // the last one given
	served atomic.Int64 // requests that were answered well

	mu sync.Mutex
	h  linear.History
}

func startLinearLoad(ctx context.Context, seed uint64, dial func(context.Context) (*nbdclient.Client, error)) *linearLoad {
	l := &linearLoad{began: time.Now(), dial: dial}
	ctx, l.stop = context.WithCancel(ctx)
	for i := range linearClients {
		l.ended.Go(func() { l.client(ctx, i, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	return l
}

// end stops the clients and gives what they saw.
func (l *linearLoad) end() *linear.History {
	l.stop()
	l.ended.Wait()
	return &l.h
}

func (l *linearLoad) now() int64 { return int64(time.Since(l.began)) }

func (l *linearLoad) note(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.h.Note(l.now(), text)
}

// loss is told when nobody serves.
func (l *linearLoad) loss(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.h.Loss(l.now(), text)
}

// client asks one request after the other, and for another connection when one ends.
func (l *linearLoad) client(ctx context.Context, id int, rng *rand.Rand) {
	for ctx.Err() == nil {
		c, err := l.dial(ctx)
		if err != nil {
			continue // it rested
		}
		done := context.AfterFunc(ctx, c.Abort)
		for l.request(ctx, c, id, rng) {
		}
		done()
		c.Abort()
	}
}

// request does one request, and says whether the connection is still good.
func (l *linearLoad) request(ctx context.Context, c *nbdclient.Client, id int, rng *rand.Rand) bool {
	first := rng.IntN(hotBlocks)
	count := 1
	if rng.IntN(5) == 0 {
		count += rng.IntN(hotBlocks - first)
	}
	off := int64(rng.IntN(hotGroups))*hotStride + int64(first)*BlockSize
	o := linear.Op{Client: id, First: off / sectorBytes, Count: int64(count) * blockSectors, Return: linear.Never}
	call := &nbdclient.Call{Off: uint64(off), Done: make(chan *nbdclient.Call, 1)}
	switch x := rng.IntN(100); {
	case x < 45:
		o.Kind, call.Cmd, call.Data = linear.Read, nbdclient.Read, make([]byte, count*BlockSize)
	case x < 88:
		o.Kind, o.Value = linear.Write, linear.Value(l.value.Add(1))
		call.Cmd, call.Data = nbdclient.Write, fillSectors(o.First, o.Count, o.Value)
		if rng.IntN(8) == 0 {
			o.FUA, call.Flags = true, nbdclient.FlagFUA
		}
	case x < 91:
		o.Kind, call.Cmd, call.Len = linear.WriteZeroes, nbdclient.WriteZeroes, uint32(count*BlockSize)
	default:
		o.Kind, call.Cmd, call.Off, o.First, o.Count = linear.Flush, nbdclient.Flush, 0, 0, 0
	}
	l.mu.Lock()
	o.Call = l.now()
	at := len(l.h.Ops)
	l.h.Ops = append(l.h.Ops, o)
	l.mu.Unlock()
	c.Go(call)
	<-call.Done
	back := l.now()
	if call.Err == nil {
		if o.Kind == linear.Read {
			o.Seen = readSectors(o.First, call.Data)
		}
		l.mu.Lock()
		l.h.Ops[at].Return, l.h.Ops[at].Seen = back, o.Seen
		l.mu.Unlock()
		l.served.Add(1)
	}
	select {
	case <-ctx.Done():
		return false
	case <-c.Ended():
		return false
	case <-time.After(time.Duration(rng.IntN(6)) * time.Millisecond):
		return true
	}
}

// fillSectors gives each sector a content that only this write has in this place.
func fillSectors(first, count int64, v linear.Value) []byte {
	b := make([]byte, 0, count*sectorBytes)
	for s := first; s < first+count; s++ {
		for range sectorBytes / 16 {
			b = binary.LittleEndian.AppendUint64(b, uint64(v))
			b = binary.LittleEndian.AppendUint64(b, uint64(s))
		}
	}
	return b
}

func readSectors(first int64, b []byte) (seen []linear.Value) {
	zeroes := make([]byte, sectorBytes)
	for i := range int64(len(b) / sectorBytes) {
		sector := b[i*sectorBytes:][:sectorBytes]
		v := linear.Value(binary.LittleEndian.Uint64(sector))
		switch {
		case bytes.Equal(sector, zeroes):
			v = linear.Zero
		case v <= 0 || !bytes.Equal(sector, fillSectors(first+i, 1, v)):
			v = linear.Garbage
		}
		seen = append(seen, v)
	}
	return seen
}
