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
// Prepared here, and to come with the lease of the views: two machines on one network
// (Options.Network), of which the other takes over after a reset; and a machine that is
// paused for a minute (Pause, Resume) and acknowledges nothing afterwards. While it is
// paused its clocks stand still, too: what it does next it does without knowing.
//
// It imports nothing of the product: it uses the programs.
package vm
