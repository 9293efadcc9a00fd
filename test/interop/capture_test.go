package interop

import (
	"encoding/binary"
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hastd/carp"
)

// update captures packets of real peers anew: go test -run TestCapture -update
var update = flag.Bool("update", false, "capture the packets of real peers anew")

// golden is where packets of real peers are kept, for the tests of package carp.
const golden = "../../carp/testdata/peers/"

// record gives the frames that come by until stop says so.
func (w *wire) record(limit time.Duration, stop func() bool) (frames [][]byte) {
	w.t.Helper()
	tv := unix.NsecToTimeval(int64(10 * time.Millisecond))
	must(w.t, unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	buf := make([]byte, 2048)
	for end := time.Now().Add(limit); time.Now().Before(end) && !stop(); {
		if n, _, err := unix.Recvfrom(w.fd, buf, 0); err == nil {
			frames = append(frames, slices.Clone(buf[:n]))
		}
	}
	return frames
}

// adverts picks the frames of protocol 112.
func adverts(frames [][]byte) (list [][]byte) {
	for _, f := range frames {
		if len(f) > 34 && f[12] == 8 && f[13] == 0 && f[23] == carp.IPProtocol || len(f) > 54 && f[12] == 0x86 && f[20] == carp.IPProtocol {
			list = append(list, f)
		}
	}
	return list
}

// writeCapture writes frames as a file that tcpdump and tshark read.
func writeCapture(t *testing.T, name string, frames [][]byte) {
	t.Helper()
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 2, 0, 4, 0)
	b = append(b, make([]byte, 8)...)
	b = binary.LittleEndian.AppendUint32(b, 1<<16)
	b = binary.LittleEndian.AppendUint32(b, 1) // Ethernet
	for i, f := range frames {
		b = binary.LittleEndian.AppendUint32(b, uint32(i))
		b = binary.LittleEndian.AppendUint32(b, 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	must(t, os.WriteFile(name, b, 0o644))
}

// TestCapture has each peer advertise and leave, and keeps its packets.
func TestCapture(t *testing.T) {
	if !*update {
		t.Skip("the packets of real peers are in the tree already; -update captures them anew")
	}
	needNet(t, "ucarp", "keepalived")
	must(t, os.MkdirAll(golden, 0o755))
	for name, start := range map[string]func(h *host) *process{
		"ucarp":      func(h *host) *process { return h.ucarp(t, "-k", "7", "-b", "2") },
		"keepalived": func(h *host) *process { return h.keepalived(t, 200, "") },
	} {
		l := newLAN(t, 2, 1)
		w := l.hosts[1].wire(t)
		p := start(l.hosts[0])
		frames := w.record(20*time.Second, func() bool { return l.hosts[0].has(service4) })
		frames = append(frames, w.record(9*time.Second, func() bool { return false })...)
		if name == "keepalived" {
			frames = frames[max(0, len(frames)-40):]
		}
		p.cmd.Process.Signal(unix.SIGTERM)
		frames = append(frames, w.record(time.Second, func() bool { return false })...)
		writeCapture(t, golden+name+".pcap", adverts(frames))
	}
}

// TestTsharkReadsOurs has a judge who knows all protocols read what we send: adverts
// of both protocols in both families, the probe, the announcements, the last packet.
func TestTsharkReadsOurs(t *testing.T) {
	needNet(t, "tshark")
	for _, proto := range []string{"carp", "vrrp"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t, 2, 1)
			a := l.hosts[0]
			w := l.hosts[1].wire(t)
			p := a.vrrp(t, "-proto", proto, "-pass", "secret")
			frames := w.record(15*time.Second, func() bool { return a.has(service4) && a.has(service6) })
			frames = append(frames, w.record(1500*time.Millisecond, func() bool { return false })...)
			p.terminate()
			frames = append(frames, w.record(500*time.Millisecond, func() bool { return false })...)
			own := a.mac("eth0")
			frames = slices.DeleteFunc(frames, func(f []byte) bool { return !slices.Equal(f[6:12], own) })
			name := t.TempDir() + "/ours.pcap"
			writeCapture(t, name, frames)
			text := tshark(t, "-r", name, "-V", "-d", "ip.proto==112,"+proto, "-o", "ip.check_checksum:TRUE")
			for _, bad := range []string{"Malformed", "malformed", "[Bad", "incorrect", "Status: Bad", "Expert Info (Error", "Expert Info (Warning"} {
				if i := strings.Index(text, bad); i >= 0 {
					t.Errorf("tshark complains: %s", text[max(0, i-800):min(len(text), i+200)])
				}
			}
			title := map[string]string{"carp": "Common Address Redundancy Protocol", "vrrp": "Virtual Router Redundancy Protocol"}[proto]
			wants := []string{title, "Checksum Status: Good", "Address Resolution Protocol (ARP Announcement)", "(ARP Probe)",
				"Neighbor Advertisement (136)", "Neighbor Solicitation (135)", "Time to Live: 255", "Hop Limit: 255"}
			if proto == "vrrp" {
				wants = append(wants, "Priority: 0 (Current Master has stopped participating in VRRP)", "IPv6 Address: "+service6, "IP Address: "+service4)
			} else {
				wants = append(wants, "Adver Int: 255", "Advertisement Skew: 255")
			}
			for _, want := range wants {
				if !strings.Contains(text, want) {
					t.Errorf("tshark sees no %q in %d frames", want, len(frames))
				}
			}
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

func tshark(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("tshark", args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C")
	out, err := cmd.Output() // it warns on stderr that it is root
	must(t, err)
	return string(out)
}
