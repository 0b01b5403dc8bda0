.DEFAULT_GOAL := help
SHELL := /bin/bash
export CGO_ENABLED := 0
export PATH := $(PATH):/usr/sbin:/sbin

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/bridgeveth/bridgeveth/pkg/plugin.Version=$(VERSION)
# The garbage collector of Go 1.26 touches 28 pages more at the start of a program than the one of Go 1.25,
# and no collection runs in a plugin. If a later Go has only the new one, the plugins are built with it.
COLLECTOR := $(shell GOEXPERIMENT=nogreenteagc go env GOEXPERIMENT >/dev/null 2>&1 && echo nogreenteagc)
DEST    := $(DESTDIR)/opt/cni/bin
SBIN    := $(DESTDIR)/usr/local/sbin
BIN     := bin
LINT    := .cache/bin/golangci-lint-2.15.0

# The defaults of "make chaos". Each run has another seed. With MINUTES, a run makes further
# operations until it has taken this time.
SEED       := $(shell date +%s)
OPERATIONS := 10000
MINUTES    := 0

# The size of the run of "make pool-sim", and how long the hosts take if the machine is fast enough.
HOSTS     := 5000
ADDRESSES := 300000
SECONDS   := 200

# The default of "make test-kill": every system call.
KILL_EVERY := 1

# How long "make fuzz" runs each target.
FUZZTIME := 30s

# Runs a command in new network and mount namespaces. A user other than root also needs a new user
# namespace.
UNSHARE := unshare -mn$(if $(filter-out 0,$(shell id -u)),r)

# Each folder is a separate Go module, so that the plugins' module does not depend on the
# libraries of Kubernetes and etcd.
MODULES := . cmd/bridgeveth-node cmd/bridgeveth-pool test

build: ## build bridgeveth, ipam-simple and bvctl into bin/
	GOEXPERIMENT=$(COLLECTOR) go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/bridgeveth.new ./cmd/bridgeveth
	mv $(BIN)/bridgeveth.new $(BIN)/bridgeveth
	ln -f $(BIN)/bridgeveth $(BIN)/ipam-simple
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/bvctl ./cmd/bvctl

node: ## build bridgeveth-node, the agent of a Kubernetes node, into bin/
	go build -C cmd/bridgeveth-node -trimpath -ldflags '-s -w' -o $(abspath $(BIN))/bridgeveth-node

pool: ## build bridgeveth-pool, which claims addresses of a pool that hosts share, into bin/
	go build -C cmd/bridgeveth-pool -trimpath -ldflags '-s -w' -o $(abspath $(BIN))/bridgeveth-pool

packages: ## build deb and rpm packages for amd64 and arm64 into .cache/packages, twice, and compare them
	@hack/need.sh gzip make
	go build -C hack/packages -o $(CURDIR)/.cache/bin/ tool
	hack/packages.sh '$(VERSION)' $(CURDIR)/.cache/packages
	hack/packages.sh '$(VERSION)' $(CURDIR)/.cache/packages.again
	diff .cache/packages/SHA256SUMS .cache/packages.again/SHA256SUMS
	rm -r .cache/packages.again

test-packages: ## test the result of "make packages" on a clean Debian 12 and 13
	@hack/need.sh nft rpm rpmlint unshare
	@hack/containerd.sh
	hack/test-packages.sh .cache/packages bookworm trixie
	rpmlint --strict -c dist/packages/rpmlint.toml .cache/packages/*.rpm

test-arm64: ## run the arm64 programs of "make packages" under Debian's arm64 kernel, in QEMU
	hack/test-arm64.sh

release: ## build the files of a release into .cache/release (VERSION=v0.1.0); pushes nothing
	@hack/release.sh '$(VERSION)'

install: build ## install the plugins into $(DESTDIR)/opt/cni/bin, bvctl into $(DESTDIR)/usr/local/sbin
	install -d '$(DEST)' '$(SBIN)'
	install -m 755 bin/bvctl '$(SBIN)/bvctl'
	install -m 755 bin/bridgeveth '$(DEST)/.bridgeveth.new'
	ln -f '$(DEST)/.bridgeveth.new' '$(DEST)/.ipam-simple.new'
	mv -f '$(DEST)/.bridgeveth.new' '$(DEST)/bridgeveth'
	mv -f '$(DEST)/.ipam-simple.new' '$(DEST)/ipam-simple'

install-pool: install pool ## install also bridgeveth-pool into $(DESTDIR)/usr/local/sbin, and its unit
	install -m 755 bin/bridgeveth-pool '$(SBIN)/bridgeveth-pool'
	install -D -m 644 dist/bridgeveth-pool.service '$(DESTDIR)/etc/systemd/system/bridgeveth-pool.service'

install-dropin: install ## install bridgeveth also under the names of the reference plugins, which are kept
	hack/dropin.sh install '$(DEST)'

uninstall-dropin: ## put the reference plugins back
	hack/dropin.sh uninstall '$(DEST)'

demo: build .cache/bin/cnitool ## show the problem and the cure on a simulated host
	@hack/need.sh ip iptables nft ping unshare
	@hack/br_netfilter.sh
	@go build -o .cache/bin/demo ./hack/demo
	@$(UNSHARE) .cache/bin/demo bin .cache/bin/cnitool

test: build ## run all tests
	@hack/need.sh busybox etcd ip iperf3 iptables iptables-legacy nft ping setpriv strace unshare
	@hack/br_netfilter.sh
	@hack/docker.sh trixie sid || echo 'dockerd of one release is missing: its test is skipped' >&2
	@hack/firewalld.sh || echo 'firewalld is missing: its tests are skipped' >&2
	@hack/podman.sh || echo 'podman is missing: its test is skipped' >&2
	@hack/containerd.sh || echo 'containerd is missing: its tests are skipped' >&2
	@hack/older.sh 80f5913 ec8f741 || echo 'earlier builds are missing: the tests of upgrades are skipped' >&2
	@OLDER_BUILDS=$(CURDIR)/.cache/older DOCKER_BIN=$(CURDIR)/.cache/docker/bin FIREWALLD_ROOT=$(CURDIR)/.cache/firewalld PODMAN_ROOT=$(CURDIR)/.cache/podman \
		CONTAINERD_ROOT=$(CURDIR)/.cache/containerd hack/test.sh

test-upgrade: build ## attach containers by earlier builds, and handle them by this build
	@hack/need.sh ip iptables iptables-legacy nft ping
	@hack/br_netfilter.sh
	@hack/older.sh 500e2fc 24743b3 761c38b 3cf396d c8cb902 80f5913 59fae85 cd08033 ec8f741
	@PROGRAMS=$(CURDIR)/bin OLDER_BUILDS=$(CURDIR)/.cache/older hack/test.sh ./cnitool -run '^(TestUpgrade|TestMixedBuilds)$$'

test-kill: build ## kill commands before each of their system calls, for an hour (KILL_EVERY=10 for each tenth)
	@hack/need.sh etcd ip iptables iptables-legacy nft ping
	@hack/br_netfilter.sh
	KILL_EVERY=$(KILL_EVERY) PROGRAMS=$(CURDIR)/bin hack/test.sh ./cnitool ./dropin -run 'TestKilled(First|GC|Repair|TakeOver)$$|TestInstallKilled' -timeout 4h
	KILL_EVERY=$(KILL_EVERY) go test -count=1 -run TestKilled ./plugins/ipam-simple
	KILL_EVERY=$(KILL_EVERY) go test -C cmd/bridgeveth-pool -count=1 -run TestFillKilled ./internal/stock

fuzz: ## give generated input to everything that reads what comes from outside (FUZZTIME=30s for each target)
	@REQUIRE_NETNS=1 hack/fuzz.sh '$(FUZZTIME)'

race: ## run the tests of the packages with Go's race detector
	@hack/need.sh gcc ip iptables iptables-legacy nft ping
	@hack/br_netfilter.sh
	CGO_ENABLED=1 REQUIRE_NETNS=1 go test -race -parallel 6 ./pkg/... ./plugins/... ./cmd/...
	CGO_ENABLED=1 REQUIRE_NETNS=1 go test -C cmd/bridgeveth-node -race -parallel 6 ./...
	CGO_ENABLED=1 go test -C cmd/bridgeveth-pool -race ./...

vulncheck: ## compare the modules of the programs with Go's database of vulnerabilities
	hack/vulncheck.sh . cmd/bridgeveth-node cmd/bridgeveth-pool

chaos: build ## make random calls and faults on a simulated host (SEED=1 OPERATIONS=10000 MINUTES=60)
	@echo 'make chaos SEED=$(SEED) OPERATIONS=$(OPERATIONS) MINUTES=$(MINUTES)'
	@hack/need.sh ip iptables nft ping tc
	@hack/br_netfilter.sh
	@hack/firewalld.sh bookworm || echo 'firewalld is missing: the run does without it' >&2
	@hack/docker.sh || echo 'dockerd is missing: the run does without it' >&2
	@rm -f .cache/chaos.md
	@PROGRAMS=$(CURDIR)/bin DOCKER_BIN=$(CURDIR)/.cache/docker/bin FIREWALLD_ROOT=$(CURDIR)/.cache/firewalld \
		CHAOS_SEED=$(SEED) CHAOS_OPERATIONS=$(OPERATIONS) CHAOS_MINUTES=$(MINUTES) CHAOS_REPORT=$(CURDIR)/.cache/chaos.md hack/test.sh -timeout 24h ./chaos
	@cat .cache/chaos.md

test-runtimes: build ## run pods by containerd, the libraries of CRI-O and containerd, and podman
	@hack/need.sh ip iptables iptables-legacy nft
	@hack/br_netfilter.sh
	@hack/podman.sh
	@hack/containerd.sh 2
	@CONTAINERD_ROOT=$(CURDIR)/.cache/containerd CONTAINERD2_BIN=$(CURDIR)/.cache/containerd/2 PODMAN_ROOT=$(CURDIR)/.cache/podman \
		hack/test.sh ./containerd ./crio ./gocni ./dropin

test-pool: ## test the claims of address blocks with Debian's etcd and with etcd 3.6 (the first time builds etcd: two minutes)
	@hack/need.sh etcd ip
	@hack/etcd.sh
	ETCD_BIN=$(CURDIR)/.cache/etcd/etcd go test -C cmd/bridgeveth-pool -count=1 ./...

pool-sim: ## simulate the hosts of a pool, with a real etcd of three members and random faults (SEED=1 HOSTS=500 ADDRESSES=30000 SECONDS=40)
	@echo 'make pool-sim SEED=$(SEED) HOSTS=$(HOSTS) ADDRESSES=$(ADDRESSES) SECONDS=$(SECONDS)'
	@hack/etcd.sh
	@rm -f .cache/pool-sim.md
	@ETCD_BIN=$(CURDIR)/.cache/etcd/etcd POOL_SIM_SEED=$(SEED) POOL_SIM_HOSTS=$(HOSTS) POOL_SIM_ADDRESSES=$(ADDRESSES) POOL_SIM_SECONDS=$(SECONDS) \
		POOL_SIM_REPORT=$(CURDIR)/.cache/pool-sim.md go test -C cmd/bridgeveth-pool -count=1 -timeout 2h -run TestSimulation ./internal/poolsim
	@cat .cache/pool-sim.md

test-k8s: build node ## run the node agent in a real Kubernetes cluster (the first time builds Kubernetes: ten minutes)
	@hack/need.sh curl etcd ip iptables nft openssl pgrep ping tc umoci
	@hack/br_netfilter.sh
	@hack/containerd.sh
	@hack/firewalld.sh || echo 'firewalld is missing: its test is skipped' >&2
	@hack/k8s.sh
	@K8S_BIN=$(CURDIR)/.cache/k8s CONTAINERD_ROOT=$(CURDIR)/.cache/containerd FIREWALLD_ROOT=$(CURDIR)/.cache/firewalld hack/test.sh ./k8s
	@KUBE_APISERVER=$(CURDIR)/.cache/k8s/kube-apiserver REQUIRE_NETNS=1 go test -C cmd/bridgeveth-node -count=1 ./internal/nodes

test-k8s-conformance: build node ## run Kubernetes' own specs of its network, with bridgeveth and with the reference plugins (FOCUS=HostPort for some)
	@hack/need.sh curl etcd ip iptables nft openssl pgrep ping tc umoci
	@hack/br_netfilter.sh
	@hack/containerd.sh
	@hack/k8s.sh
	@hack/e2e.sh
	@rm -f .cache/e2e/*.results
	@$(if $(FOCUS),E2E_FOCUS='$(FOCUS)') E2E_DIR=$(CURDIR)/.cache/e2e K8S_BIN=$(CURDIR)/.cache/k8s CONTAINERD_ROOT=$(CURDIR)/.cache/containerd hack/test.sh ./k8s -run Conformance -timeout 4h
	@$(if $(FOCUS),,hack/conformance.sh)

test-vm: ## run the tests that send packets under Debian's kernels, in QEMU (SUITES=bookworm for one)
	hack/test-vm.sh

test-distro: ## run the tests that start other programs with those of newer Debian releases (SUITES=trixie for one)
	@hack/br_netfilter.sh
	@hack/test-distro.sh

bench: build ## measure ADD and DEL, and those of the reference plugins (BENCH=-short for a minute)
	@hack/need.sh ip iptables nft unshare
	@hack/br_netfilter.sh
	@go build -C test -o $(CURDIR)/.cache/bin/bench ./bench
	.cache/bin/bench $(BENCH)

bench-vm: build ## measure what packets cost, under Debian's kernel 6.12 in QEMU (BENCH=-short for two minutes)
	@go build -C test -o $(CURDIR)/.cache/bin/bench ./bench
	.cache/bin/bench -build
	SUITE=bookworm-backports ICOUNT=1 hack/vm.sh sh -ec 'hack/br_netfilter.sh; .cache/bin/bench -packets $(BENCH)'

lint: $(LINT) ## check formatting, vet, lint, package sizes, commit subjects and workflows
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	for module in $(MODULES); do (cd $$module && go vet ./... && $(CURDIR)/$(LINT) run ./...) || exit 1; done
	hack/sizes.sh
	hack/subjects.sh
	go tool -C hack/actionlint actionlint $(CURDIR)/.github/workflows/*.yml

clean: ## remove bin and .cache
	rm -rf bin .cache

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "%-20s %s\n",$$1,$$2}' $(MAKEFILE_LIST)

.cache/bin/cnitool: test/go.mod
	go build -C test -o $(CURDIR)/$@ github.com/containernetworking/cni/cnitool

$(LINT):
	GOBIN=$(CURDIR)/.cache/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	mv .cache/bin/golangci-lint $@

.PHONY: build node pool packages test-packages test-arm64 release install install-pool install-dropin uninstall-dropin demo test test-upgrade test-kill fuzz race vulncheck chaos test-runtimes test-pool pool-sim test-k8s test-k8s-conformance test-vm test-distro bench bench-vm lint clean help
