package nbd

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"hastd/blockdev"
)

// BenchmarkWrite4K and BenchmarkRead4K drive a device that does nothing through a
// Unix socket with a client that spends little itself, so that what is left is the
// server's. cpu-µs/op counts both ends of the process.
func BenchmarkWrite4K(b *testing.B) { benchmark(b, cmdWrite) }
func BenchmarkRead4K(b *testing.B)  { benchmark(b, cmdRead) }

func benchmark(b *testing.B, cmd uint16) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			d := newMemDevice(b, 1<<30, 4096, 64<<20)
			d.null = true
			p := serveTest(b, d)
			nc, err := net.Dial("unix", p.Path())
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			if err := rawGo(nc); err != nil {
				b.Fatal(err)
			}
			const block = 4096
			one, answer := requestSize, simpleSize
			if cmd == cmdWrite {
				one += block
			} else {
				answer += block
			}
			msg := make([]byte, depth*one)
			for i := range depth {
				putRequest(msg[i*one:], wireRequest{cmd: cmd, handle: uint64(i), off: uint64(i) * block, len: block})
			}
			back := make([]byte, depth*answer)
			round := func() {
				if _, err := nc.Write(msg); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(nc, back); err != nil {
					b.Fatal(err)
				}
			}
			for range 100 {
				round()
			}
			b.ReportAllocs()
			b.ResetTimer()
			cpu := cpuTime()
			for i := 0; i < b.N; i += depth {
				round()
			}
			b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
		})
	}
}

func cpuTime() time.Duration {
	var ru syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// rawGo takes a connection through the shortest handshake: simple replies.
func rawGo(nc net.Conn) error {
	msg := be.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes)
	msg = be.AppendUint64(msg, magicOption)
	msg = be.AppendUint32(msg, optExportName)
	msg = be.AppendUint32(msg, 0)
	var hello [18]byte
	if _, err := io.ReadFull(nc, hello[:]); err != nil {
		return err
	}
	if _, err := nc.Write(msg); err != nil {
		return err
	}
	_, err := io.ReadFull(nc, hello[:10])
	return err
}

func putRequest(b []byte, w wireRequest) {
	be.PutUint32(b, magicRequest)
	be.PutUint16(b[4:], w.flags)
	be.PutUint16(b[6:], w.cmd)
	be.PutUint64(b[8:], w.handle)
	be.PutUint64(b[16:], w.off)
	be.PutUint32(b[24:], w.len)
}

var _ blockdev.Device = (*memDevice)(nil)
