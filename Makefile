# Lazaret: see README.md. Everything that a target needs, it installs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
STATE   ?= $(CURDIR)/.state

.PHONY: help build demo test test-unit test-privileged up down bench fuzz lint generate docs install deps-build deps-test deps-bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

build: deps-build ## the programs, in bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/lazaret ./cmd/lazaret
	CGO_ENABLED=1 go build -tags yara_static,osusergo,netgo -trimpath -ldflags '$(LDFLAGS)' -o bin/lazaret-engine ./cmd/lazaret-engine

demo: build deps-test ## a private container runtime, malware that is stopped, a person who decides
	go run ./test/demo

up: build ## leaves Lazaret running on this host (root); make down stops it
	scripts/up start

down: ## stops what make up started
	scripts/up stop

test: test-unit test-privileged ## everything that CI runs

test-unit: deps-build ## needs nothing but Go and the C library of YARA
	go vet ./...
	go test -timeout 10m ./...

test-privileged: build deps-test ## as root: loop file systems, fanotify, real containers
	scripts/privileged go test -tags privileged -count=1 -timeout 30m -p 1 ./...

bench: build deps-bench ## what docs/benchmarks.md publishes
	go run ./bench

fuzz: deps-build ## every fuzz target for FUZZTIME (default 10s)
	scripts/fuzz $${FUZZTIME:-10s}

lint: ## golangci-lint, built once into bin/
	@test -x bin/golangci-lint || GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.13.2
	bin/golangci-lint run ./...

generate: deps-generate ## eBPF objects from bpf/ (committed)
	go generate ./internal/driver/...

deps-generate:
	scripts/deps generate

docs: build ## the generated references
	bin/lazaret docs docs/cli

install: build ## programs, units, man pages and completion, under DESTDIR
	scripts/install "$(DESTDIR)"

deps-build:
	@scripts/deps build

deps-test:
	@scripts/deps build test

deps-bench:
	@scripts/deps build test bench

clean: ## removes what was built
	rm -rf bin
