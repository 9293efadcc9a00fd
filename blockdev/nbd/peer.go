package nbd

import (
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a connection.
type peer struct {
	pid  int32 // 0 when unknown (TCP, or another pid namespace)
	name string
	addr string

	local bool // a Unix socket
}

// peerOf asks at once: a process that has gone has no name any more.
func peerOf(nc net.Conn) peer {
	p := peer{addr: "a client"}
	if a := nc.RemoteAddr(); a != nil && a.String() != "" && a.String() != "@" {
		p.addr = a.String()
	}
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		return p
	}
	p.local = true
	rc, err := uc.SyscallConn()
	if err != nil {
		return p
	}
	rc.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p.pid = cred.Pid
		}
	})
	if p.pid != 0 {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.pid))
		p.name = strings.TrimSpace(string(comm))
	}
	return p
}

// String is "name (pid 123)" for a process of this node, else the address.
func (p peer) String() string {
	switch {
	case p.pid == 0:
		return p.addr
	case p.name == "":
		return fmt.Sprintf("pid %d", p.pid)
	}
	return fmt.Sprintf("%s (pid %d)", p.name, p.pid)
}
