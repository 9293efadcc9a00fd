// Package view is the chain of views by which the nodes of a cluster agree who is a
// member, who owns each resource and which replicas hold every acknowledged write.
// View n alone elects view n+1, by one two-phase round with stored promises.
//
// A shell in vipd owns one Machine. It feeds it events (what was stored at the start,
// messages, who is heard, what the storage daemon says, what a person orders) and
// carries out the effects. The package opens nothing, starts no goroutine, takes no
// lock, reads no clock, draws nothing at random, logs nothing, and promises nothing
// about time: a view says who may serve, never until when. Time is used to give up and
// to begin anew, and no rule of safety rests on it.
//
// # The contract with the shell
//
// The effects of one Step are carried out in their order, before the next Step. Persist
// is a barrier: what follows it in the list may happen only once the state is on stable
// storage. If it cannot be stored the process ends: what the machine did must never be
// ahead of what it stored. A message may be lost; nothing else may be dropped.
//
// Hold is answered by the event Held. The storage daemon remembers what it holds when
// vipd restarts; one that restarts itself is told anew (Storage).
//
// Learned tells the storage daemon all it may do for now. It may be late: who owns a
// resource in the newest committed view never depends on an old owner having heard of
// it, because an old owner still waits for its peer's confirmation, and the peer gives
// none to an older generation than it was told, nor as an owner. After a restart of
// vipd alone the storage daemon goes on by the last Learned and Hold it was given.
// A storage daemon that starts takes nothing before it is told a generation (Known).
// To each Learned that makes it or leaves it owner it answers with what it knows
// (Synced), as it does at the end of a sync.
//
// # Who is who
//
// An incarnation stands for one life of a node's memory. It is drawn where no stored
// state is found, and the stored state goes with the replicas: whoever creates a
// replica anew removes the stored state too. A node of another incarnation than the
// view lists has no vote and no place in an in-sync set.
//
// A stored state that was put back from an older copy would vote twice. It counts as
// lost: each change of the state counts its serial up, every message carries it, and
// every message to a node carries the highest serial that its sender ever saw of it.
// A node that is told a serial above its own stops being what it was: it takes a new
// incarnation and knows nothing. The shell may add what else the node remembers
// (Start.Floor: the generation in the storage daemon's own metadata). What this cannot
// see: a copy so recent that whoever sends to this node never heard a later serial,
// since those that did are silent or wiped themselves; and a message sent before the
// later serial was heard, if it arrives after the restart (the heartbeat layer must not
// deliver what is older than its session). Such a copy votes as if it were the
// original, which breaks the chain if what it forgot is a promise or a proposal that
// somebody silent counts on. Worst is a copy from when this node was the only member:
// it asks nobody; on a node with replicas Floor tells, on a witness nothing does. Stored state is not to be restored from backups.
//
// # Force
//
// A person may commit a view without a quorum (OthersAreDown, Bootstrap). That raises
// the era, which orders above everything of the era before. Who did it on both sides
// of a cut gets two chains of one era; they are told apart by the chain's number, do
// not mix, and are reported (Conflict) until a person forces once more on the side that
// is to stay.
package view
