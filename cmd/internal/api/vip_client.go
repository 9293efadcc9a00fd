package api

import (
	"context"
	"net/url"
	"time"
)

// GroupClient talks to vipd. Its methods return *exit.Error.
type GroupClient struct{ *Client }

// NewGroupClient makes a client of vipd; timeout is as in NewClient.
func NewGroupClient(socket string, timeout time.Duration) GroupClient {
	return GroupClient{newClient("vipd", socket, timeout)}
}

// Groups asks for all groups.
func (c GroupClient) Groups(ctx context.Context) (Groups, error) {
	var g Groups
	return g, c.call(ctx, "GET", "/v1/groups", nil, &g)
}

// Group asks for one.
func (c GroupClient) Group(ctx context.Context, name string) (Group, error) {
	var g Group
	return g, c.call(ctx, "GET", "/v1/groups/"+url.PathEscape(name), nil, &g)
}

// Order posts an order and returns the group as it is afterwards. body is nil, or a
// ClearRequest.
func (c GroupClient) Order(ctx context.Context, name, order string, body any) (Group, error) {
	var g Group
	return g, c.call(ctx, "POST", "/v1/groups/"+url.PathEscape(name)+"/"+order, body, &g)
}

// Summary asks for the cluster as the node knows it.
func (c GroupClient) Summary(ctx context.Context) (Summary, error) {
	var s Summary
	return s, c.call(ctx, "GET", "/v1/summary", nil, &s)
}

// VIPs asks for the elections.
func (c GroupClient) VIPs(ctx context.Context) (VIPs, error) {
	var v VIPs
	return v, c.call(ctx, "GET", "/v1/vip", nil, &v)
}

// Cluster asks for the cluster as the node knows it.
func (c GroupClient) Cluster(ctx context.Context) (Cluster, error) {
	var x Cluster
	return x, c.call(ctx, "GET", "/v1/cluster", nil, &x)
}

// Own waits until the cluster's view gives a resource to the node.
func (c GroupClient) Own(ctx context.Context, resource string, force bool) (Cluster, error) {
	var x Cluster
	return x, c.call(ctx, "POST", "/v1/resources/"+url.PathEscape(resource)+"/own", OwnRequest{force}, &x)
}
