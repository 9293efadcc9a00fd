package main

import (
	"context"
	"time"

	"hastd/cluster"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
	"hastd/metadata"
)

// storage is hastd behind its control socket.
type storage struct{ ask, switching *api.Client }

// Bounds of what hastd is asked, beside those of the caller.
const (
	askTimeout  = 2 * time.Second
	roleTimeout = 10 * time.Second // one try of a switch; it is tried again
)

func newStorage(socket string) *storage {
	return &storage{api.NewClient(socket, askTimeout), api.NewClient(socket, roleTimeout)}
}

// Role switches a resource's role.
func (s *storage) Role(ctx context.Context, resource, role string, force bool) error {
	_, err := s.switching.Command(ctx, resource, "role", api.RoleRequest{Role: role, Force: force})
	return err
}

// Fail ends what a suspended resource holds.
func (s *storage) Fail(ctx context.Context, resource string) error {
	_, err := s.switching.Command(ctx, resource, "resume", api.ResumeRequest{Error: true})
	return err
}

// Suspend has a primary answer nothing.
func (s *storage) Suspend(ctx context.Context, resource string) error {
	_, err := s.ask.Command(ctx, resource, "suspend", struct{}{})
	return err
}

// Replica is what hastd says of a resource.
func (s *storage) Replica(ctx context.Context, resource string) (cluster.Replica, error) {
	r, err := s.ask.Resource(ctx, resource)
	if err != nil {
		return cluster.Replica{}, err
	}
	out := cluster.Replica{
		Name: r.Name, Reached: true, Role: r.Role, Status: r.Status, Connection: r.Connection, Disk: r.Disk,
		New: r.Resuid == metadata.ID(0).String(), PeerRole: r.Peer.Role, PeerDisk: r.Peer.Disk,
	}
	if r.IO.Suspended {
		out.Suspended = r.IO.Reason
	}
	return out, nil
}

// Again says whether a refusal may be gone in a moment.
func (s *storage) Again(err error) bool { return exit.CodeOf(err) == exit.Again }

// Gone says whether nobody listens, or whoever did went away.
func (s *storage) Gone(err error) bool { return exit.CodeOf(err) == exit.Unreachable }
