// Package carp decides which node of a group is master: the packets of CARP
// (version 2) and VRRP (version 3, RFC 9568), and the election of each as a pure
// machine.
//
// carp/runner feeds a machine packets, link states and the time, and sends what it
// wants sent; vipd acts on its transitions. The package opens no socket, reads no
// clock, logs nothing and knows neither storage nor addresses on interfaces: that a
// node may not become master because its replica is stale is told to it as a fact.
package carp
