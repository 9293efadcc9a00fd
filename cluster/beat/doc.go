// Package beat is how the nodes of a cluster hear each other: the packets of the
// heartbeats, who may send them, and the machine that tells from them which links and
// which nodes are there.
//
// cluster/beat/runner feeds the machine packets, the carriers of interfaces and the
// time, and sends what it wants sent; the views and the lease of a cluster stand above
// it. The package opens no socket, reads no clock, starts no goroutine and logs
// nothing; it decides nothing about membership, ownership or storage: that a node is
// not heard is all it says.
//
// # What a packet proves
//
// A packet carries a code (HMAC-SHA256, cut to 16 bytes) made with a key that is
// derived from the cluster's key and name. Whoever checks it knows that some node of
// this cluster made it, with the sender, the addressee and the link that stand in it.
// That alone says nothing about when: packets can be recorded. So each packet gives
// back what its sender heard last from the addressee on that link: incarnation (drawn
// at random at each start), sequence and send time. A packet is believed only if it
// gives back something that this start of this node sent at most the time-out ago. So
// what is believed was made
//
//   - by a holder of the key, for this node and this link,
//   - after this node started, and no longer ago than the time-out on this node's own
//     clock, however long a packet was kept on its way,
//   - by somebody who hears this node on that very link: a link is never up one way,
//   - and it is new: each (incarnation, sequence) counts once on a link.
//
// A recording is therefore worth nothing after the time-out, and nothing at all to a
// receiver that was started anew. Not proved: that only one host has the key and the
// name (two hosts that use one node's name are told, see Duplicate), and with a cluster
// without a key nothing at all: the code is then a checksum.
//
// # Time
//
// No two clocks are compared, except to warn people. Silence is counted on this node's
// own clock. A node that stood still knows nothing of what the others sent meanwhile:
// it listens again for the whole time-out before it calls anybody silent.
package beat
