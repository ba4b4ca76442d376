# Everything a user or a developer types. Needs Go and, for `make test`, what
# CONTRIBUTING.md lists; a Consul on PATH is used when there is one, else it is
# built once into .cache/bin.

GO      ?= go
CACHE   := $(CURDIR)/.cache
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/micro/sidecar/internal/cli.version=$(VERSION)
# Without gRPC's own tracing, and so without html/template, the linker leaves out
# what nobody calls.
TAGS    := grpcnotrace
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
FUZZTIME ?= 30s

.PHONY: all build build-all demo test lint bench bench-limits bench-scale bench-messaging bench-discovery fuzz clean help

all: build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/micro
	CGO_ENABLED=0 $(GO) build -tags $(TAGS) -trimpath -ldflags '$(LDFLAGS)' -o bin/micro ./cmd/micro

build-all: ## build for every supported platform, to see that it can be done
	@for p in $(PLATFORMS); do \
		echo "build $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -tags $(TAGS) -trimpath -ldflags '$(LDFLAGS)' -o $(CACHE)/build/$$p/ ./cmd/micro || exit 1; \
	done

demo: build ## the main job on the embedded engine; ONCE=1 ends by itself
	@$(GO) build -o bin/demo ./examples/demo
	@bin/demo -micro bin/micro $(if $(ONCE),-once)

# In CI a test that failed is run once more: one that passes then is shown as
# such, for it is a defect to be mended, and does not turn away somebody's change.
# A data race is never run again.
ifdef CI
RUNTESTS := $(CACHE)/bin/gotestsum --format=standard-quiet --rerun-fails=1 --rerun-fails-run-root-test \
	--rerun-fails-abort-on-data-race --packages=./... --
test: $(CACHE)/bin/gotestsum
else
RUNTESTS := $(GO) test ./...
endif

test: consul h2spec kube-apiserver pebble ## all tests
	PATH="$(CACHE)/bin:$$PATH" $(RUNTESTS) -race -shuffle=on -parallel 4 -timeout 25m

.PHONY: web
web: ## build the statistics page into web/dist, which is committed (needs npm)
	cd web && npm ci --ignore-scripts --no-audit --no-fund && npm run build

.PHONY: consul
consul: # a Consul agent for the tests: the one on PATH, else built from the Go module
	@command -v consul >/dev/null || test -x $(CACHE)/bin/consul || { \
		echo "no consul on PATH: building it once (some minutes)"; \
		mkdir -p $(CACHE)/bin && cd tools/consul && $(GO) build -o $(CACHE)/bin/consul github.com/hashicorp/consul; }

.PHONY: h2spec
h2spec: # a test suite for HTTP/2 servers: the one on PATH, else built from the Go module
	@command -v h2spec >/dev/null || test -x $(CACHE)/bin/h2spec || { \
		mkdir -p $(CACHE)/bin && cd tools/h2spec && $(GO) build -o $(CACHE)/bin/h2spec github.com/summerwind/h2spec/cmd/h2spec; }

.PHONY: kube-apiserver
kube-apiserver: # Kubernetes's API server for the tests: the one on PATH, else built from the Go module
	@command -v kube-apiserver >/dev/null || test -x $(CACHE)/bin/kube-apiserver || { \
		echo "no kube-apiserver on PATH: building it once (some minutes)"; \
		mkdir -p $(CACHE)/bin && cd tools/kubernetes && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(CACHE)/bin/kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver; }

.PHONY: pebble
pebble: # an ACME authority for tests: the one on PATH, else built from the Go module
	@command -v pebble >/dev/null || test -x $(CACHE)/bin/pebble || { \
		mkdir -p $(CACHE)/bin && cd tools/pebble && $(GO) build -o $(CACHE)/bin/pebble github.com/letsencrypt/pebble/v2/cmd/pebble; }

lint: $(CACHE)/bin/golangci-lint ## formatting, vet and linters, tests included
	$(CACHE)/bin/golangci-lint fmt --diff
	$(CACHE)/bin/golangci-lint run

$(CACHE)/bin/gotestsum: tools/go.mod
	@mkdir -p $(CACHE)/bin
	cd tools && $(GO) build -o $@ gotest.tools/gotestsum

$(CACHE)/bin/golangci-lint: tools/go.mod
	@mkdir -p $(CACHE)/bin
	cd tools && $(GO) build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

bench: bench-limits bench-scale bench-messaging ## the hop against HAProxy, nginx and ReverseProxy, too (needs wrk, h2load, haproxy, nginx)
	$(GO) run ./bench/idle -micro bin/micro
	$(GO) run ./bench/compare -micro bin/micro

bench-limits: build ## start-up time and memory, held against their limits
	$(GO) run ./bench -micro bin/micro
	$(GO) run ./bench/idle -micro bin/micro -connections 1000

bench-scale: build ## 10,000 services of 10 nodes against one: the cost of a request, memory, the registry (some minutes)
	$(GO) run ./bench/scale -micro bin/micro

bench-messaging: build ## messages a second through the sidecar, beside the engine's own, held against their bars
	$(GO) run ./bench/messaging -micro bin/micro

bench-discovery: build consul ## 10,000 services of 10 nodes and 200 changes/s on each engine: how soon, and at what cost (many minutes; needs etcd)
	$(GO) run ./bench/discovery -micro bin/micro

fuzz: ## every fuzzer for FUZZTIME (30s)
	@$(GO) list ./... | while read pkg; do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "fuzz $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; done

clean: ## remove bin and .cache
	rm -rf bin $(CACHE)
