// Package fence decides when this machine goes down by itself (TOC, transfer of
// control), so that what it would go on doing cannot harm what another node has taken
// over: when its watchdog is fed, when it is reset at once, and with which words.
//
// The watchdog is fed while every part of the daemon that matters answers within the
// limit that it has. A part that does not keeps it from being fed; if it answers again
// before the watchdog's time is over, nothing has happened. An order (a service with
// failfast, a lease that ended while something was still up) is final: from then on
// the watchdog is never fed, so that it resets the machine even where the order cannot
// be carried out. A clean end disarms it.
//
// The machine is pure: fence/runner has the device, the kernel's log and the reset,
// and asks the parts. It does not know what the parts are, and it starts nothing again.
package fence
