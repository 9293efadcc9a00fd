// Package linear judges what clients of a block device saw: whether there is one
// order of all reads, writes and flushes, each taking effect at one moment between
// its call and its answer, in which every read shows the last write. The search is
// porcupine's; the semantics of a disk are this package's.
//
// A register is one sector (512 bytes, the unit in which a medium tears), so a
// large write is many writes that may be torn from each other while it is not
// answered. What is checked, for each sector:
//
//   - an acknowledged write takes effect once, before its answer, and stays until
//     another replaces it, over failovers too;
//   - a write that failed or was never answered takes effect once at any later
//     time, or never; once seen it does not go away by itself;
//   - a read shows the write in force at one moment while it was under way;
//   - a flush fixes what was acknowledged before its call; FUA fixes that write;
//   - a Loss (every copy that had them in a cache lost its power) may bring back
//     what was in force at the last fixed moment, or anything since, but only one
//     of them, which stays then: it was read from a medium. MayLose is that or nothing.
//
// Who records decides when a Loss is permitted. In fullsync the power of one node
// is none as long as the other one serves next: an acknowledged write is in its
// cache at least. It is one if the next to serve lost its own power, or is filled
// from a node that did: what is promised of those is what was flushed (invariant 1).
//
// A history ends where promises end (Cut): two nodes served apart, a person
// promoted what is known to be old, discarded a replica or made one anew.
//
// test/sim records simulated pairs, test/lab real ones. This package knows neither
// them nor the product: it imports nothing of this module, opens no device, and
// never decides what happens. It writes files only when it is told where (Save).
package linear
