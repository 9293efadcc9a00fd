// Package vm has whole machines for what a process cannot show: that a node is reset
// by its watchdog, with its last words on its console, and what a machine does that
// stood still. A machine is Debian's kernel under qemu without hardware help (TCG) with
// an initramfs of this project's static programs; its first process is test/vm/guest.
//
//	make test-vm        installs qemu, fetches the kernel, runs the tests
//
// The tests need VM_DIR, the folder that kernel.sh filled, and are skipped without it.
// Times under TCG say nothing about real machines.
//
// A cluster (cluster_test.go) is two machines on a switch in a network namespace, each
// with disks that outlive it, and a witness and clients as processes of this host, whose
// clock is the one that counts. While a machine is paused its clocks stand still
// (CLOCK_BOOTTIME too; only the battery's goes on), so what it does next it does
// believing that no time has passed.
//
// It imports nothing of the product: it uses the programs, and the lab's NBD client.
package vm
