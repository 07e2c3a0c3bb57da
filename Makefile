# Two commands matter: `make run` and `make test`. `make help` lists the others.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
.PHONY: help run build test test-containers test-kernels bpf btf bench packages docs check clean

export CGO_ENABLED := 0

# Without a repository that git will read (a tarball, another user's clone) there is no
# commit to stamp, and go build would fail.
VCS := $(shell git status --porcelain >/dev/null 2>&1 && echo auto || echo false)

BPF_PACKAGES := clang-19 llvm-19 libbpf-dev
CONTAINER_PACKAGES := busybox-static runc crun containerd docker.io podman netavark catatonit uidmap
TEST_PACKAGES := iproute2 gcc libc6-dev auditd rpm openssh-client openssh-server sudo passwd login e2fsprogs dbus-daemon iptables $(CONTAINER_PACKAGES)
BENCH_PACKAGES := gcc libc6-dev auditd linux-perf
KERNEL_PACKAGES := qemu-system-x86 qemu-system-arm busybox-static runc cpio xz-utils zstd iproute2 debootstrap \
	gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

build: ## build bin/goshawk: needs Go and nothing else
	go build -trimpath -buildvcs=$(VCS) -o bin/goshawk ./cmd/goshawk

run: build ## build, and watch this host until Ctrl-C (as root); ARGS="--kinds exec" and so on
	@if [ "$$(id -u)" = 0 ]; then exec bin/goshawk run $(ARGS); \
	elif command -v sudo >/dev/null; then exec sudo bin/goshawk run $(ARGS); \
	else echo "goshawk run needs root: run 'make run' as root" >&2; exit 4; fi

# One package after the other: live tests watch the whole host, and would see and slow
# each other. -count=1, since a cached result says nothing about this kernel.
test: ## run all tests; as root the live ones too; installs what they need
	@.ci/install $(TEST_PACKAGES)
	go run .ci/report.go -again go test -json -count=1 -p 1 -timeout 20m $(ARGS) ./...

test-containers: ## run the live tests of containers, with systemd-nspawn and LXC too (root)
	@.ci/install $(CONTAINER_PACKAGES) systemd-container lxc
	GOSHAWK_RUNTIMES=runc,crun,containerd,docker,podman,rootless,nspawn,lxc go test -count=1 -v -timeout 20m \
		-run '^TestLive(Container|InContainer|HostileRuntimes)' ./cmd/goshawk

test-kernels: ## run the live tests in stock kernels under QEMU; K=6.1 for one, RUN=TestLiveExec, UPDATE=1
	@.ci/install $(KERNEL_PACKAGES)
	K=$(K) RUN='$(value RUN)' PACKAGES=$(PACKAGES) UPDATE=$(UPDATE) go run .ci/report.go go test -json -count=1 -tags kernels -parallel 3 -timeout 60m $(ARGS) ./kerneltest

bpf: ## compile the BPF programs anew, and write their Go twins
	@.ci/install $(BPF_PACKAGES)
	go generate ./bpf

btf: ## pack the types of old kernels for --btf, from ARCHIVE=DIR as BTFHub's; OUT=btf.tar.gz, ARGS="-match '3.10.0-*'"
	@[ -n "$(ARCHIVE)" ] || { echo "say where BTF files are: make btf ARCHIVE=../btfhub-archive/centos/7" >&2; exit 2; }
	go run ./cmd/btf -out $(or $(OUT),btf.tar.gz) $(ARGS) $(ARCHIVE)

bench: ## measure what goshawk costs beside auditd (root, 5 minutes), and write docs/performance.md
	@.ci/install $(BENCH_PACKAGES)
	go run ./bench -out docs/performance.md $(ARGS)

packages: build ## build bin/*.deb and bin/*.rpm; VERSION=0.1.0
	VERSION=$(or $(VERSION),0.1.0) ARCH=$$(go env GOARCH) go tool -modfile=packaging/nfpm.mod nfpm package -f packaging/nfpm.yaml -p deb -t bin
	VERSION=$(or $(VERSION),0.1.0) ARCH=$$(go env GOARCH) go tool -modfile=packaging/nfpm.mod nfpm package -f packaging/nfpm.yaml -p rpm -t bin

docs: ## write the generated references in docs/
	go test -count=1 -run '^TestReferences$$' . -update

check: ## gofmt, vet, staticcheck, govulncheck
	@out=$$(gofmt -l . .ci); [ -z "$$out" ] || { echo "not formatted, run gofmt -w:" $$out >&2; exit 1; }
	go vet ./...
	go vet .ci/report.go
	go vet -tags kernels ./kerneltest
	go tool staticcheck ./...
	go tool staticcheck -tags kernels ./kerneltest
	@.ci/vulnerabilities

clean: ## remove what was built
	rm -rf bin
