// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

// The limits of spec section 12.
const (
	limitSelect   = 2 * time.Microsecond
	limitResident = 256 << 20
)

// selectRows measures the selection of rules among 10,000 ImageConfigs that
// have all their prefixes on one host.
func selectRows() ([]row, error) {
	const host = "registry.example.com"
	var rules []*policy.Rule
	for i := range manyConfigs {
		prefixes, err := reference.ParsePrefix(otherPrefix(host, i))
		if err != nil {
			return nil, fmt.Errorf("making rules: %w", err)
		}
		rules = append(rules, &policy.Rule{
			Kind: "ImageConfig", Name: fmt.Sprintf("team-%04d", i), Mode: policy.Enforce, Prefixes: prefixes,
			Authentication: &policy.Authentication{}, Transport: &policy.Transport{}, Verification: &policy.Verification{Engine: "Cosign"},
		})
	}
	set := policy.NewSet(rules)
	ref, err := reference.Parse(otherPrefix(host, manyConfigs/2) + "api:" + reviewTag + "@" + digestPlaceholder(0))
	if err != nil {
		return nil, fmt.Errorf("parsing a reference: %w", err)
	}
	namespace := policy.Namespace{Name: "shop"}
	want := rules[manyConfigs/2]
	if got := set.Select(ref, namespace); len(got.Verification) != 1 || got.Verification[0] != want || got.Authentication != want || got.Transport != want {
		return nil, errors.New("selecting among 10,000 ImageConfigs: the wrong one was selected")
	}
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			set.Select(ref, namespace)
		}
	})
	each := float64(result.T) / float64(result.N)
	return []row{
		atMost("select among 10,000 ImageConfigs: time", float64(limitSelect), nanos).measured(each),
		atMost("select among 10,000 ImageConfigs: allocations", 0, whole).measured(float64(result.AllocsPerOp())),
	}, nil
}

// fillCache is the argument that makes this program fill a cache, in a process
// of its own, and print a filled.
const fillCache = "fill-cache"

// filled is the memory of a process around the filling of its cache, in bytes.
type filled struct {
	Before, After int64
	Verdicts      int
}

// cacheRows fills a cache in another process.
func cacheRows(ctx context.Context) ([]row, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	output, err := exec.CommandContext(ctx, self, fillCache).Output()
	if err != nil {
		return nil, fmt.Errorf("filling a cache: %w", err)
	}
	var got filled
	if err := json.Unmarshal(output, &got); err != nil {
		return nil, fmt.Errorf("filling a cache: %w", err)
	}
	// The cache makes room by itself, and may begin a few before its bound.
	if least := cache.DefaultVerdicts * 99 / 100; got.Verdicts < least {
		return nil, fmt.Errorf("filling a cache: it holds %d of %d verdicts", got.Verdicts, cache.DefaultVerdicts)
	}
	return []row{
		atMost("100,000 cached verdicts: resident", limitResident, mebibytes).measured(float64(got.After)),
		told("100,000 cached verdicts: of it the verdicts", mebibytes).measured(float64(got.After - got.Before)),
	}, nil
}

// accepting is an engine whose verdict is as long as a real one.
type accepting struct{}

// Verify implements [policy.Engine].
func (accepting) Verify(context.Context, *policy.Rule, policy.Image) policy.Verdict {
	return policy.Verdict{
		Outcome: policy.Accepted, Reason: policy.ReasonVerified, Signer: "release",
		Message: fmt.Sprintf("authority %s: signature verified", "release"),
	}
}

// Resolve implements [policy.Resolver]; nothing here has only a tag.
func (accepting) Resolve(context.Context, policy.Image) (policy.Resolution, error) {
	return policy.Resolution{}, errors.New("not asked for")
}

// Identify implements [cache.Identifier].
func (accepting) Identify(context.Context, policy.Image) (credential.Identity, error) {
	return credential.Anonymous, nil
}

// fill puts n verdicts into a cache as reviews do: through references that were
// parsed, and with whatever garbage that makes. It prints a filled in JSON.
func fill(ctx context.Context, n int, out io.Writer) error {
	c, err := cache.New(accepting{}, accepting{}, accepting{}, cache.Options{})
	if err != nil {
		return err
	}
	var got filled
	if got.Before, err = resident("self"); err != nil {
		return err
	}
	rule := &policy.Rule{Kind: "ImageConfig", Name: "acme", Verification: &policy.Verification{Engine: "Cosign"}}
	for i := range n {
		digest := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
		ref, err := reference.Parse(fmt.Sprintf("registry.example.com/team-%04d/services/component-%02d:%s@sha256:%x",
			i/100, i%100, reviewTag, digest))
		if err != nil {
			return err
		}
		if v := c.Verify(ctx, rule, policy.Image{Reference: ref, Digest: ref.Digest()}); v.Outcome != policy.Accepted {
			return fmt.Errorf("verdict %v", v)
		}
	}
	if got.After, err = resident("self"); err != nil {
		return err
	}
	got.Verdicts = c.Sizes()[cache.NameVerdicts]
	return json.NewEncoder(out).Encode(got)
}
