// Package lab runs two real hastd daemons against each other and lets everything
// happen to them that happens to two machines: power loss with volatile disk
// caches, kills, freezes, disks that fail, links that are cut, one way or both,
// with or without a word. Its tests are the contract on real processes; the
// program cmd/lab gives the same two nodes to a person.
//
// The parts: disk (the disks, served over FUSE by a process of their own),
// nbdclient (a client that knows what was acknowledged), ledger (the outside
// judge), Network (namespaces, or a relay on loopback addresses) and Node.
//
// The lab uses the daemons as an administrator does: their configuration file,
// hastctl, the control socket, the NBD socket. It never imports a package of the
// product.
package lab
