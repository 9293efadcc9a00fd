package lab

import (
	"fmt"
	"time"

	"hastd/test/lab/disk"
)

// The lab's resources. The second is there when Options.Device asks for it, and
// is served as a block device.
const (
	Resource       = "data"
	DeviceResource = "device"
)

// Replica is a node's part of a resource: its disk and the commands about it. The
// commands of Node itself are those of Resource.
type Replica struct {
	Name string
	Node *Node
}

// Replica gives the node's part of a resource.
func (n *Node) Replica(name string) *Replica { return &Replica{name, n} }

// Disk is the replica's disk; nil for plain files.
func (r *Replica) Disk() *disk.Process {
	if r.Name == DeviceResource {
		return r.Node.second
	}
	return r.Node.Disk
}

// Local is the file that is the replica's component.
func (r *Replica) Local() string {
	if d := r.Disk(); d != nil {
		return d.Path()
	}
	return r.Node.path("disk.img")
}

// disks are the disks of all the node's replicas.
func (n *Node) disks() []*disk.Process {
	if n.second == nil {
		return []*disk.Process{n.Disk}
	}
	return []*disk.Process{n.Disk, n.second}
}

// Local is the file that is the node's component.
func (n *Node) Local() string { return n.Replica(Resource).Local() }

// Device is where the node has the provider of DeviceResource.
func (n *Node) Device() string { return n.path("device") }

// Status asks the daemon.
func (r *Replica) Status() (Status, error) {
	var s Status
	err := r.Node.api.call("GET", "/v1/resources/"+r.Name, 5*time.Second, nil, &s)
	return s, err
}

// Status asks the daemon.
func (n *Node) Status() (Status, error) { return n.Replica(Resource).Status() }

// commandLimit bounds one command to a daemon.
const commandLimit = 30 * time.Second

func (r *Replica) command(name string, body any) error {
	err := r.Node.api.call("POST", "/v1/resources/"+r.Name+"/"+name, commandLimit, body, nil)
	if err != nil {
		return fmt.Errorf("%v: %s %s %v: %w", r.Node.Side, name, r.Name, body, err)
	}
	return nil
}

// Role changes the replica's role.
func (r *Replica) Role(role string, force bool) error {
	return r.command("role", map[string]any{"role": role, "force": force})
}

// Role changes the node's role.
func (n *Node) Role(role string, force bool) error { return n.Replica(Resource).Role(role, force) }

// Connect lets the resource connect to its peer.
func (n *Node) Connect() error { return n.Replica(Resource).command("connect", nil) }

// Disconnect ends that until Connect.
func (n *Node) Disconnect() error { return n.Replica(Resource).command("disconnect", nil) }

// Resume lets suspended I/O go on, or fail.
func (n *Node) Resume(withError bool) error {
	return n.Replica(Resource).command("resume", map[string]any{"error": withError})
}

// RecoverDiscard gives up this node's changes after a split-brain.
func (n *Node) RecoverDiscard() error {
	return n.Replica(Resource).command("recover", map[string]any{"discard_local": true})
}

// Wait waits until the status is as wanted.
func (r *Replica) Wait(limit time.Duration, what string, want func(Status) bool) (Status, error) {
	n := r.Node
	var last Status
	err := poll(limit, func() (bool, error) {
		if n.cmd != nil {
			select {
			case <-n.ended:
				return true, nil
			default:
			}
		}
		s, err := r.Status()
		if err != nil {
			return false, err
		}
		last = s
		return want(s), nil
	})
	if err == nil && !want(last) {
		return last, fmt.Errorf("lab: hastd on %v is gone while waiting for %s: %v", n.Side, what, n.err)
	}
	if err != nil {
		return last, fmt.Errorf("lab: %v: waiting for %s of %s: %w; it is: %v", n.Side, what, r.Name, err, last)
	}
	return last, nil
}

// Wait waits until the status is as wanted.
func (n *Node) Wait(limit time.Duration, what string, want func(Status) bool) (Status, error) {
	return n.Replica(Resource).Wait(limit, what, want)
}

// WaitStatus waits for a value of status.
func (r *Replica) WaitStatus(status string, limit time.Duration) error {
	_, err := r.Wait(limit, "status "+status, func(s Status) bool { return s.Status == status })
	return err
}

// WaitStatus waits for a value of status.
func (n *Node) WaitStatus(status string, limit time.Duration) error {
	return n.Replica(Resource).WaitStatus(status, limit)
}

// WaitConnection waits for a value of connection.
func (r *Replica) WaitConnection(connection string, limit time.Duration) error {
	_, err := r.Wait(limit, "connection "+connection, func(s Status) bool { return s.Connection == connection })
	return err
}

// WaitConnection waits for a value of connection.
func (n *Node) WaitConnection(connection string, limit time.Duration) error {
	return n.Replica(Resource).WaitConnection(connection, limit)
}

// Create makes the replica.
func (r *Replica) Create(args ...string) error {
	out, errs, code := r.Node.Hastctl(append([]string{"create", r.Name}, args...)...)
	if code != 0 {
		return fmt.Errorf("lab: hastctl create %s on %v: status %d: %s%s", r.Name, r.Node.Side, code, out, errs)
	}
	return nil
}

// Create makes all the node's replicas.
func (n *Node) Create(args ...string) error {
	if err := n.Replica(Resource).Create(args...); err != nil || n.second == nil {
		return err
	}
	return n.Replica(DeviceResource).Create(args...)
}
