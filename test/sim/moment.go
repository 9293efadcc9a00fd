package sim

// moment is something that an outside observer of a run is told (hooks.moment):
// what decides whose replica is served, and what it must hold.
type moment uint8

const (
	momentTerm   moment = iota + 1 // a provider is about to start
	momentRebase                   // a provider's content is that of the peer from here on
	momentPower                    // the node lost power
	momentJoined                   // both replicas hold the same
	momentSynced                   // a sync into the node was completed
	momentGave                     // the node noted that a sync from it is all there is
	momentForced                   // it was promoted by force
	momentGiven                    // a person gave its replica up
)

func (n *node) moment(m moment) {
	if n.w.hooks.moment != nil {
		n.w.hooks.moment(n, m)
	}
}
