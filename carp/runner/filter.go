package runner

import (
	"fmt"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// filter has the kernel drop other groups' packets: nothing is wrong with them, and
// there may be many. A raw IPv4 socket gives packets with their IP header, an IPv6
// one without; the group's number is the second byte behind it.
func filter(six bool, id uint8) []bpf.Instruction {
	var load []bpf.Instruction
	if six {
		load = []bpf.Instruction{bpf.LoadAbsolute{Off: 1, Size: 1}}
	} else {
		load = []bpf.Instruction{bpf.LoadMemShift{Off: 0}, bpf.LoadIndirect{Off: 1, Size: 1}}
	}
	return append(load,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(id), SkipTrue: 1},
		bpf.RetConstant{Val: maxPacket},
		bpf.RetConstant{Val: 0})
}

func attach(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble a socket filter: %w", err)
	}
	var list []unix.SockFilter
	for _, r := range raw {
		list = append(list, unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K})
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(list)), Filter: &list[0]})
	return os.NewSyscallError("attach a socket filter", err)
}
