// Package vip puts a group's service addresses on an interface and takes them off
// again: it looks for a stranger who has one already, adds them with a lifetime that
// the kernel enforces, keeps them alive, and tells the network where they are.
//
// Its caller decides when. It never decides which node has an address, and never
// touches one that is not its group's.
package vip
