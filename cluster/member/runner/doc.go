// Package runner gives a node of a cluster with votes what its machine (cluster/member)
// needs: the time, the file of the stored view, the other nodes by way of heartbeats,
// and hastd on this node.
//
// One goroutine owns the machine and carries its effects out in their order; what it
// says of the stored view is durable before anything that follows. It decides nothing,
// starts no service, and knows no group: who serves what it tells its caller.
package runner
