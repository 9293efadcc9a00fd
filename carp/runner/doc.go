// Package runner takes part in one group's election on a network: it opens the raw
// sockets, feeds the machine of package carp with good packets, link states and the
// time, and sends what the machine wants sent.
//
// It never decides who is master, never sets an address and never starts anything:
// what a change of state leads to is its caller's business.
package runner
