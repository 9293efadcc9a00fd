package cluster

import "fmt"

// Replica is what hastd says of one resource of a group, in the words of its API.
type Replica struct {
	Name       string
	Reached    bool // hastd answered
	Role       string
	Status     string
	Connection string
	Disk       string
	New        bool // nothing was ever written to it, nor copied
	PeerRole   string
	PeerDisk   string
	Suspended  string // why I/O is suspended; "" if it is not
}

// Demotions: how much worse a node is whose replicas are not in order. They are
// large enough to lose against any rank.
const (
	demotedBehind = 120 // it would read from the peer until it is copied
	demotedDisk   = 200 // it has no disk of its own
)

// Overtaken says whether nothing that this replica still takes can be kept: its peer
// was promoted while this node stood still or was cut off, and wrote.
func (r *Replica) Overtaken() bool { return r.Role == "primary" && r.Suspended == "peer-primary" }

// Lost says whether nothing ends a primary's suspension in time for a group that goes
// down: it was overtaken, it has no lease, it was ordered to hold, or it has neither a
// disk nor its peer.
func (r *Replica) Lost() bool {
	return r.Overtaken() || r.Suspended == "no-lease" || r.Suspended == "operator" || r.Suspended != "" && (r.Disk == "failed" || r.Disk == "diskless")
}

// Standing says from the replicas of a group whether this node may become master,
// and how much worse than its rank it is. The reason names all that counts, so that
// a change of it is a change of the cause.
func Standing(replicas []Replica) (fit bool, demotion uint8, reason string) {
	fit = true
	for i := range replicas {
		f, d, why := standing(&replicas[i])
		fit = fit && f
		demotion = max(demotion, d)
		if reason != "" {
			reason += "; "
		}
		reason += why
	}
	return fit, demotion, reason
}

func standing(r *Replica) (bool, uint8, string) {
	// What the peer is goes with it: a refusal because the peer is primary is over
	// once it is not. So does whether the replica is new: alone it is refused until a
	// person says that it is the good one.
	disk := r.Disk
	if r.New && disk == "uptodate" {
		disk = "new"
	}
	is := fmt.Sprintf("%s is %s here, %s, peer %s", r.Name, disk, r.Connection, r.PeerRole)
	peerGood := r.Connection == "connected" && r.PeerDisk == "uptodate"
	switch {
	case !r.Reached:
		return false, 0, "hastd does not answer for " + r.Name
	case r.Role != "primary" && (r.Connection == "split-brain" || r.Status == "split-brain"):
		return false, 0, is + ": a person must end the split-brain first"
	case r.Overtaken():
		return false, 0, is + ": both are primary, and the peer's data is newer"
	case r.Role == "primary" && r.Suspended == "":
		// It serves, also while a split-brain waits for a person: of two masters
		// after a healed cut one steps down, and the other must not follow it.
		if r.Disk == "failed" || r.Disk == "diskless" {
			return true, demotedDisk, is
		}
		return true, 0, is
	case r.Disk == "uptodate":
		return true, 0, is
	case peerGood && (r.Disk == "failed" || r.Disk == "diskless"):
		return true, demotedDisk, is
	case peerGood:
		return true, demotedBehind, is
	}
	return false, 0, is + ": this replica is not up to date and its peer cannot help"
}
