package main

import (
	"context"
	"testing"
	"time"

	"hastd/cluster/view"
	"hastd/cmd/internal/api"
	"hastd/cmd/internal/exit"
	"hastd/conf"
)

// What the configuration may have is what the views have room for.
func TestConfigurationFitsIntoTheViews(t *testing.T) {
	if conf.MaxVoters != view.MaxNodes || conf.MaxOwned != view.MaxResources || conf.MaxClaim != view.MaxName-len(claimPrefix) {
		t.Errorf("%d nodes, %d resources, names of %d bytes", conf.MaxVoters, conf.MaxOwned, conf.MaxClaim)
	}
}

// With quorum off the nodes and links are told all the same.
func TestClusterWithQuorumOff(t *testing.T) {
	n := newNode(t, "")
	n.run()
	if _, err := n.c.Own(context.Background(), "data", false); exit.CodeOf(err) != exit.Refused || exit.HintOf(err) == "" {
		t.Errorf("ownership with quorum off: %v", err)
	}
	if st, err := n.c.NodeState(context.Background()); err != nil || st.State != "running" {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := n.c.OrderNode(context.Background(), "stop", api.NodeRequest{}); exit.CodeOf(err) != exit.Refused || exit.HintOf(err) == "" {
		t.Errorf("node stop with quorum off: %v", err)
	}
	for end := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
		c, err := n.c.Cluster(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if c.Quorum != "off" || c.Generation != "" || c.Votes != nil || len(c.Nodes) != 2 || !c.Nodes[0].Self || c.Nodes[1].Heard || c.Nodes[1].State != "unknown" {
			t.Fatalf("%+v", c)
		}
		if l := c.Nodes[1].Links; len(l) == 1 && l[0].State == "down" && l[0].SilentMS == -1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no link: %+v", c)
		}
	}
}
