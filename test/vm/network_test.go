package vm

import (
	"bytes"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestMachineHasANetwork: what it sends comes out at the other end of its cable, where
// a second machine, or the host, can be.
func TestMachineHasANetwork(t *testing.T) {
	kernel, dir := needs(t), t.TempDir()
	here, there := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: there, Net: "unixgram"})
	must(t, err)
	defer c.Close()
	m, err := Start(Options{Dir: kernel, Files: programs(t), Network: [2]string{here, there}})
	must(t, err)
	defer m.Close()
	do(t, m, Order{Op: "address", Args: []string{"eth0", "10.9.0.1"}})
	b := make([]byte, 2048)
	for end := time.Now().Add(soon); time.Now().Before(end); {
		// What is sent before the cable is seen to be plugged in is lost.
		do(t, m, Order{Op: "send", Args: []string{"10.255.255.255:9", "hello, other machine"}})
		for must(t, c.SetReadDeadline(time.Now().Add(time.Second))); ; {
			n, err := c.Read(b)
			if err != nil {
				break
			}
			if bytes.HasSuffix(b[:n], []byte("hello, other machine")) {
				return
			}
		}
	}
	t.Errorf("nothing came out of the cable; console:\n%s", m.Console())
}
