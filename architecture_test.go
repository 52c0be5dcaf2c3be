// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pratique_test holds what is true of the repository as a whole.
package pratique_test

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pratique-dev/pratique/"

// mayImport says which rooms each room may know (docs/architecture.md). A room
// that is not here may not exist yet: adding one is a decision.
var mayImport = map[string][]string{
	"reference":           {},
	"registry/credential": {"reference"},
	"registry/cloud":      {"registry/credential"},
	"api/strict":          {},
	"api/v1alpha1":        {"api/strict"},
	// Of other projects' kinds only what is read of them.
	"api/crossplane/v1beta1":           {"api/strict"},
	"policy":                           {"reference", "registry/credential"},
	"registry":                         {"policy", "reference", "registry/credential"},
	"policy/language":                  {"policy"},
	"policy/refresh":                   {},
	"policy/trust":                     {"policy/refresh"},
	"policy/cosign":                    {"policy", "policy/language", "policy/trust", "registry"},
	"policy/cache":                     {"policy", "registry/credential"},
	"policy/containers/config":         {"reference"},
	"policy/containers":                {"policy", "policy/containers/config", "reference", "registry"},
	"policy/containers/containerstest": {"policy/cosign/cosigntest", "registry/registrytest"},
	"policy/source":                    {"api/crossplane/v1beta1", "api/v1alpha1", "policy", "policy/containers", "policy/containers/config", "policy/cosign", "policy/language", "policy/trust", "reference", "registry/credential"},
	"webhook":                          {"internal/loglimit", "policy", "reference", "registry/credential"},
	"internal/version":                 {},
	"internal/election":                {},
	"internal/server":                  {"internal/loglimit"},
	"internal/metrics":                 {"policy", "policy/cache", "reference"},
	"internal/pullsecret":              {},
	"internal/keyservice":              {"policy/refresh"},
	"internal/arming":                  {},
	"internal/certificate":             {},
	"internal/notice":                  {},
	"internal/logwriter":               {},
	"internal/loglimit":                {},
	"registry/registrytest":            {},
	// For tests and bench; it may know nothing of what judges its signatures.
	"policy/cosign/cosigntest": {"registry/registrytest"},
}

// Programs put rooms together and may know all of them.
var programs = []string{"cmd/", "bench"}

// dials lists the packages by which one reaches a network, and the rooms that
// may import them: registry asks registries, registry/cloud the cloud's token
// services, internal/keyservice key services, policy/trust repositories of trust
// roots through a transport that it is given, the webhook and the server are
// asked, internal/arming asks it whether it answers, the rest talks to the API server through its client.
var dials = map[string][]string{
	"net":                {"internal/arming", "internal/certificate", "internal/keyservice", "internal/server", "registry"},
	"net/http":           {"internal/arming", "internal/keyservice", "internal/server", "policy/source", "policy/trust", "registry", "webhook"},
	"k8s.io/client-go":   {"internal/election", "internal/notice", "internal/server", "policy/source"},
	"k8s.io/api/core/v1": {"internal/arming", "internal/certificate", "internal/notice", "internal/pullsecret", "policy/source"},
	"sigs.k8s.io/controller-runtime": {
		"internal/arming", "internal/certificate", "internal/pullsecret", "internal/server", "policy/source",
	},
	"github.com/google/go-containerregistry/pkg/v1/remote": {"registry"},
	// The clouds' helpers dial by themselves.
	"github.com/google/go-containerregistry/pkg/authn/k8schain": {"registry/cloud"},
	"github.com/google/go-containerregistry/pkg/v1/google":      {"registry/cloud"},
	// Rego can send requests, where it is let; and what is not to be trusted with
	// this process has one of its own.
	"github.com/open-policy-agent/opa": {"policy/language"},
	"os/exec":                          {"policy/language"},
	// So do the providers of key services.
	"github.com/sigstore/sigstore/pkg/signature/kms": {"internal/keyservice"},
	"github.com/hashicorp/vault/api":                 {"internal/keyservice"},
	"github.com/Azure/azure-sdk-for-go":              {"internal/keyservice"},
	// These ask the public Sigstore unless they are told otherwise.
	"github.com/sigstore/sigstore-go/pkg/tuf": {"policy/trust"},
	"github.com/theupdateframework/go-tuf":    {"policy/trust"},
}

type goPackage struct {
	ImportPath string
	Name       string
	Doc        string
	Imports    []string
}

func packages(t *testing.T) map[string]goPackage {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Name,Doc,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	found := map[string]goPackage{}
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if room, ok := strings.CutPrefix(p.ImportPath, module); ok {
			found[room] = p
		}
	}
}

func isProgram(room string) bool {
	return slices.ContainsFunc(programs, func(p string) bool { return strings.HasPrefix(room, p) })
}

func TestRoomsKnowOnlyTheirNeighbours(t *testing.T) {
	t.Parallel()
	found := packages(t)
	for room, p := range found {
		allowed, known := mayImport[room]
		if isProgram(room) {
			continue
		}
		if !known {
			t.Errorf("%s is a room that mayImport does not name", room)
			continue
		}
		for _, imported := range p.Imports {
			neighbour, ours := strings.CutPrefix(imported, module)
			if ours && !slices.Contains(allowed, neighbour) {
				t.Errorf("%s imports %s", room, neighbour)
			}
		}
	}
	for room := range mayImport {
		if _, ok := found[room]; !ok {
			t.Errorf("mayImport names %s, which does not exist", room)
		}
	}
}

func TestOnlySomeRoomsDial(t *testing.T) {
	t.Parallel()
	for room, p := range packages(t) {
		if isProgram(room) || room == "registry/registrytest" {
			continue
		}
		for _, imported := range p.Imports {
			for _, prefix := range slices.Sorted(maps.Keys(dials)) {
				matches := imported == prefix || strings.Contains(prefix, ".") && strings.HasPrefix(imported, prefix+"/")
				if matches && !slices.Contains(dials[prefix], room) {
					t.Errorf("%s imports %s", room, imported)
				}
			}
		}
	}
}

func TestEveryRoomSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	for room, p := range packages(t) {
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(p.Doc, want) || strings.Contains(p.Doc, "Copyright") {
			t.Errorf("%s: its package comment is %q; it must begin with %q and say what the room is for", room, p.Doc, want)
		}
	}
}

// TestNoOtherClient: the transports of containers/image dial on their own, past
// the guard. None is in the program.
func TestNoOtherClient(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/pratique").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for imported := range strings.Lines(string(out)) {
		switch strings.TrimSpace(imported) {
		case "go.podman.io/image/v5/docker", "go.podman.io/image/v5/openshift", "go.podman.io/image/v5/transports/alltransports":
			t.Errorf("the program has %s", imported)
		}
	}
}
