# Everything a developer does here. `make help` lists it.
# build and demo need Go and make, nothing else.

SHELL  := /bin/bash
GO     ?= go
BIN    := bin
TIME   ?= 30s
RUNS   ?= 20000
FROM   ?= 1
ROUNDS ?= 56
DURATION ?= 10m

# A tag and what came after it, or the revision alone.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w $(if $(VERSION),-X hastd/cmd/internal/build.Version=$(VERSION:v%=%))

# Go asks git for the revision and fails where git refuses to answer (an unpacked
# archive, a checkout that belongs to another user).
ifeq ($(shell git rev-parse --verify -q HEAD 2>/dev/null),)
export GOFLAGS := $(GOFLAGS) -buildvcs=false
endif

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.DEFAULT_GOAL := help
.PHONY: help build demo demo-ha test test-short test-vm race lint fuzz sim views clusters planted rounds chaos evidence-cluster lab bench man cover deps clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

build: ## bin/hastd, bin/vipd and bin/hastctl, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

demo: build ## two nodes on this machine, the whole story on real files
	$(BIN)/hastctl demo $(ARGS)

demo-ha: build ## a service that fails over between two nodes on this machine (as root)
	$(BIN)/hastctl demo ha --picture $(BIN)/demo-ha.svg $(ARGS)

test: deps ## all tests (as root it installs their Debian packages first)
	$(GO) run ./test/cmd/testrun $(ARGS)

test-short: ## the tests that take seconds, without the race detector
	$(GO) run ./test/cmd/testrun -race=off -short $(ARGS)

test-vm: ## whole machines under qemu that their watchdog resets (as root on Debian); ARGS='-run Killed'
	@test/deps.sh qemu-system-x86
	@test/vm/kernel.sh $(BIN)/vm
	VM_DIR=$(CURDIR)/$(BIN)/vm $(GO) test -count=1 -v -timeout 30m ./test/vm $(ARGS)

race: deps ## all tests and the lab's daemons under the race detector (needs gcc)
	LAB_RACE=1 $(GO) run ./test/cmd/testrun -race=on $(ARGS)

lint: ## gofmt, go vet, staticcheck (all three, then the verdict)
	@bad=0; \
	unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not as gofmt writes it:"; echo "$$unformatted"; bad=1; fi; \
	echo "$(GO) vet ./..."; $(GO) vet ./... || bad=1; \
	echo "$(GO) run $(STATICCHECK) ./..."; $(GO) run $(STATICCHECK) ./... || bad=1; \
	exit $$bad

fuzz: ## every fuzz target in turn; TIME=2m each, ONLY=word picks some
	GO=$(GO) test/fuzz.sh $(TIME) $(ONLY)

sim: ## simulated pairs: RUNS=20000 FROM=1, or SEED=n replays one with its transcript
	$(GO) run ./test/sim/cmd/sim $(if $(SEED),-seed $(SEED) -trace,-from $(FROM) -runs $(RUNS)) $(ARGS)

views: ## simulated votes of two to four nodes: RUNS=20000 FROM=1, or SEED=n
	$(GO) run ./test/sim/views/cmd/views $(if $(SEED),-seed $(SEED) -trace,-from $(FROM) -runs $(RUNS)) $(ARGS)

clusters: ## simulated clusters, votes and replicas: RUNS=20000 FROM=1, or SEED=n
	$(GO) run ./test/sim/cluster/cmd/cluster $(if $(SEED),-seed $(SEED) -trace,-from $(FROM) -runs $(RUNS)) $(ARGS)

planted: ## put known mistakes into the code and see each caught; ARGS='word' picks some
	$(GO) run ./test/sim/cmd/planted $(ARGS)

rounds: deps ## real daemons through ROUNDS=56 random faults (as root); SEED=n repeats
	LAB_ROUNDS=$(ROUNDS) $(if $(SEED),LAB_SEED=$(SEED)) $(GO) test -count=1 -v -timeout 2h -run '^TestRounds$$' ./test/lab

evidence-cluster: deps ## the cases of a cluster with votes on real daemons (as root), into docs/evidence/cluster.md
	LAB_EVIDENCE=$(CURDIR)/docs/evidence/cluster.md $(GO) test ./test/lab -run 'TestVotes$$' -count=1 -v -timeout 60m

chaos: deps ## ledger and PostgreSQL on real daemons under faults for DURATION=10m (as root); SEED=n repeats
	$(GO) run ./test/cmd/chaos -duration $(DURATION) $(if $(SEED),-seed $(SEED)) $(ARGS)

lab: ## two nodes to play with, until Ctrl-C
	$(GO) run ./test/lab/cmd/lab $(ARGS)

bench: deps ## the provider's socket beside nbdkit and qemu's mirror
	@if [ -n "$$(ls test/bench/*.go 2>/dev/null)" ]; then set -x; $(GO) run ./test/bench $(ARGS); else echo "bench: there is no test/bench yet" >&2; exit 1; fi

man: ## write docs/man anew from the command trees
	$(GO) test -count=1 -run '^TestManualPage' ./cmd/hastctl ./cmd/hastd ./cmd/vipd -update

cover: ## what the short tests reach: bin/cover.out, bin/cover.html
	@mkdir -p $(BIN)
	$(GO) test -short -count=1 -p 2 -coverpkg=./... -coverprofile=$(BIN)/cover.out $$($(GO) list ./... | grep -v /test/lab)
	$(GO) tool cover -html=$(BIN)/cover.out -o $(BIN)/cover.html
	$(GO) tool cover -func=$(BIN)/cover.out | tail -n 1

deps: ## as root on Debian: install what the tests use
	@test/deps.sh

clean: ## remove what was built
	rm -rf $(BIN)
	$(GO) clean -testcache
