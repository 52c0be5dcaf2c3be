# Copyright The Pratique Authors.
# SPDX-License-Identifier: Apache-2.0

# Needs Go and, for the race detector, a C compiler.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

GO ?= go
# Programs and tools are built here.
BIN ?= $(CURDIR)/bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/pratique-dev/pratique/internal/version.override=$(VERSION)

# Modules of this repository that are linted and vetted; each is tested by the
# target that is named after it.
MODULES := . e2e e2e/controlplane e2e/sigstore/servers
# The packages in which goroutines share state.
RACE := ./policy/... ./reference ./registry/... ./webhook/... ./internal/pullsecret ./internal/server
# How long each fuzz test runs.
FUZZTIME ?= 30s
# What make bench hands to the bench; see go run ./bench -h.
BENCH ?=

# Runs a command in each module, also after it failed in one.
in_each_module = code=0; for module in $(MODULES); do (cd "$$module" && $(1)) || code=1; done; exit $$code

##@ Building

.PHONY: help
help: ## Show these targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/pratique
	@echo "building bin/pratique (minutes the first time)"
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/pratique ./cmd/pratique

.PHONY: controlplane
controlplane: ## Build the control plane for tests and the demo
	@echo "building e2e/controlplane/bin/controlplane (minutes the first time)"
	$(MAKE) --no-print-directory -C e2e/controlplane build

.PHONY: sigstore
sigstore: ## Build the servers of Sigstore for tests
	@echo "building e2e/sigstore/servers/bin (minutes the first time)"
	$(MAKE) --no-print-directory -C e2e/sigstore/servers build

.PHONY: distribution
distribution: ## Build the registry for tests
	@echo "building bin/distribution"
	cd e2e && $(GO) build -o $(BIN)/distribution ./registry/distribution

.PHONY: generate
generate: $(BIN)/controller-gen ## Generate deep copies, CRDs and roles
	rm -f deploy/crds/*.yaml deploy/rbac/role.yaml
	$(BIN)/controller-gen object:headerFile=hack/header.go.txt paths=./api/...
	$(BIN)/controller-gen crd:headerFile=hack/header.yaml.txt paths=./api/... output:crd:dir=deploy/crds
	$(BIN)/controller-gen rbac:roleName=pratique,fileName=role.yaml,headerFile=hack/header.yaml.txt \
	  paths=./policy/source paths=./internal/election output:rbac:dir=deploy/rbac

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BIN)
	$(MAKE) --no-print-directory -C e2e/controlplane clean
	$(MAKE) --no-print-directory -C e2e/sigstore/servers clean

##@ Checking

.PHONY: verify
verify: verify-format verify-generated verify-vet verify-lint verify-vulns ## Check all of the following

.PHONY: verify-format
verify-format: ## Is everything formatted?
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted: run gofmt -w on"; echo "$$files"; exit 1; fi

.PHONY: verify-generated
verify-generated: $(BIN)/controller-gen ## Is what is generated fresh?
	hack/verify-generated $(BIN)

.PHONY: verify-vet
verify-vet: ## Does go vet find anything?
	$(call in_each_module,$(GO) vet ./...)

.PHONY: verify-lint
verify-lint: $(BIN)/golangci-lint ## Does golangci-lint find anything?
	$(call in_each_module,$(BIN)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...)

.PHONY: verify-vulns
verify-vulns: $(BIN)/govulncheck ## Does the program call what is known to be vulnerable?
	hack/govulncheck $(BIN)/govulncheck

##@ Testing

.PHONY: test
test: test-unit test-race test-e2e ## Run all tests

.PHONY: test-unit
test-unit: ## Unit tests
	$(GO) test ./...

.PHONY: test-race
test-race: ## Unit tests under the race detector, where goroutines share state
	CGO_ENABLED=1 $(GO) test -race $(RACE)

.PHONY: test-e2e
test-e2e: build controlplane sigstore distribution ## Tests on a real control plane
	$(MAKE) --no-print-directory -C e2e/controlplane test
	$(MAKE) --no-print-directory -C e2e/sigstore/servers test
	cd e2e && $(GO) test -timeout 15m ./...

.PHONY: fuzz
fuzz: ## Run each fuzz test for FUZZTIME
	hack/fuzz $(FUZZTIME)

.PHONY: bench
bench: build ## Measure, beside the floor
	$(GO) run ./bench $(BENCH)

.PHONY: demo
demo: build controlplane ## See it work, on a real control plane; DEMO_KEEP=1 leaves it running
	@echo "building bin/demo (a minute the first time)"
	cd e2e && $(GO) build -o $(BIN)/demo ./demo
# Not by go run, which calls it a failure to be ended by Ctrl-C.
	@exec $(BIN)/demo

# Tools. Their versions are in hack/tools/go.mod.

$(BIN)/controller-gen: hack/tools/go.mod hack/tools/go.sum
	$(GO) -C hack/tools build -o $@ sigs.k8s.io/controller-tools/cmd/controller-gen

$(BIN)/golangci-lint: hack/tools/go.mod hack/tools/go.sum
	@echo "building golangci-lint (minutes the first time)"
	$(GO) -C hack/tools build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(BIN)/govulncheck: hack/tools/go.mod hack/tools/go.sum
	$(GO) -C hack/tools build -o $@ golang.org/x/vuln/cmd/govulncheck
