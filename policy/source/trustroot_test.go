// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"

	"github.com/pratique-dev/pratique/policy/refresh"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/policy/trust"
)

func encoded(t *testing.T, kind string, blocks ...[]byte) string {
	t.Helper()
	var text bytes.Buffer
	for _, block := range blocks {
		if err := pem.Encode(&text, &pem.Block{Type: kind, Bytes: block}); err != nil {
			t.Fatal(err)
		}
	}
	return text.String()
}

// object is JSON in the making.
type members map[string]any

// sigstoreKeys are a whole Sigstore's, as a TrustRoot has them.
func sigstoreKeys(t *testing.T, sigstore *ca.VirtualSigstore) members {
	t.Helper()
	subject := members{"organization": "acme", "commonName": "acme"}
	chain := func(certificates ...*x509.Certificate) []byte {
		var raw [][]byte
		for _, c := range certificates {
			raw = append(raw, c.Raw)
		}
		return []byte(encoded(t, "CERTIFICATE", raw...))
	}
	logs := func(of map[string]*root.TransparencyLog) []members {
		var list []members
		for _, log := range of {
			der, err := x509.MarshalPKIXPublicKey(log.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, members{"baseURL": "https://log.example", "hashAlgorithm": "sha-256", "publicKey": []byte(encoded(t, "PUBLIC KEY", der))})
		}
		return list
	}
	fulcio, ok := sigstore.FulcioCertificateAuthorities()[0].(*root.FulcioCertificateAuthority)
	if !ok {
		t.Fatal("not such an authority")
	}
	tsa, ok := sigstore.TimestampingAuthorities()[0].(*root.SigstoreTimestampingAuthority)
	if !ok {
		t.Fatal("not such an authority")
	}
	return members{
		"certificateAuthorities": []members{{"subject": subject, "uri": "https://fulcio.example", "certChain": chain(append(fulcio.Intermediates, fulcio.Root)...)}},
		"timestampAuthorities":   []members{{"subject": subject, "uri": "https://tsa.example", "certChain": chain(append(append([]*x509.Certificate{tsa.Leaf}, tsa.Intermediates...), tsa.Root)...)}},
		"tLogs":                  logs(sigstore.RekorLogs()), "ctLogs": logs(sigstore.CTLogs()),
	}
}

func trustRoot(t *testing.T, spec members) string {
	t.Helper()
	raw, err := json.Marshal(members{
		"apiVersion": "policy.sigstore.dev/v1alpha1", "kind": "TrustRoot", "metadata": members{"name": "mine"}, "spec": spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestTrustRoots: what a policy asks of the trust root that it names, in the forms
// that there are.
func TestTrustRoots(t *testing.T) {
	t.Parallel()
	sigstore, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	keys := func(change func(members)) members {
		all := sigstoreKeys(t, sigstore)
		change(all)
		return members{"sigstoreKeys": all}
	}
	all := keys(func(members) {})
	first := func(m members, part string) members { return m[part].([]members)[0] }
	const identities = "identities: [{issuer: https://i.example, subjectRegExp: s}]"
	keyless := "{keyless: {" + identities + ", trustRootRef: mine}}"
	remote := members{"remote": members{"root": []byte(`{"signatures":[]}`), "mirror": "https://tuf.example"}}
	for name, c := range map[string]struct {
		spec      members
		authority string
		problem   string // "" for none
	}{
		"all of it":                    {all, keyless, ""},
		"with a log":                   {all, "{keyless: {" + identities + ", trustRootRef: mine}, ctlog: {trustRootRef: mine}}", ""},
		"with a timestamp":             {all, "{keyless: {" + identities + ", trustRootRef: mine}, rfc3161timestamp: {trustRootRef: mine}}", ""},
		"of another name":              {all, strings.ReplaceAll(keyless, "mine", "yours"), `TrustRoot "yours": it does not exist`},
		"without a log or timestamps":  {keys(func(m members) { delete(m, "tLogs"); delete(m, "timestampAuthorities") }), keyless, "nothing would tell when a certificate was used"},
		"without a log, with the time": {keys(func(m members) { delete(m, "tLogs") }), keyless, ""},
		"a log is asked for":           {keys(func(m members) { delete(m, "tLogs") }), "{keyless: {" + identities + ", trustRootRef: mine}, ctlog: {trustRootRef: mine}}", "has no transparency log"},
		"a timestamp is asked for":     {keys(func(m members) { delete(m, "timestampAuthorities") }), "{keyless: {" + identities + ", trustRootRef: mine}, rfc3161timestamp: {trustRootRef: mine}}", "has no timestamp authority"},
		"without a certificate log":    {keys(func(m members) { delete(m, "ctLogs") }), keyless, "insecureIgnoreSCT"},
		"none is asked for":            {keys(func(m members) { delete(m, "ctLogs") }), "{keyless: {" + identities + ", trustRootRef: mine, insecureIgnoreSCT: true}}", ""},
		"a log by the default root":    {all, "{keyless: {" + identities + ", trustRootRef: mine}, ctlog: {url: https://rekor.example}}", "the server's trust root is not there yet"},
		"a key and its log":            {all, "{key: {data: KEY}, ctlog: {trustRootRef: mine}}", ""},
		"a key and its timestamp":      {all, "{key: {data: KEY}, rfc3161timestamp: {trustRootRef: mine}}", ""},
		"a key and no log":             {all, "{key: {data: KEY}, ctlog: {}}", ""},
		"a chain that is none":         {keys(func(m members) { first(m, "certificateAuthorities")["certChain"] = []byte("x") }), keyless, "certificateAuthorities[0]: certChain"},
		"a log's key that is none":     {keys(func(m members) { first(m, "tLogs")["publicKey"] = []byte("x") }), keyless, "tLogs[0].publicKey"},
		"a log's hash that is none":    {keys(func(m members) { first(m, "ctLogs")["hashAlgorithm"] = "md5" }), keyless, `ctLogs[0].hashAlgorithm: "md5"`},
		"an unknown field":             {members{"sigstoreKeys": all["sigstoreKeys"], "extra": 1}, keyless, `unknown field "extra"`},
		"nothing":                      {members{}, keyless, "expected exactly one, got neither"},
		"too much":                     {members{"sigstoreKeys": all["sigstoreKeys"], "remote": remote["remote"]}, keyless, "expected exactly one, got both"},
		"a remote":                     {remote, keyless, "spec.remote: it is not there yet"},
		"a remote's other target":      {members{"remote": members{"root": []byte(`{"signatures":[]}`), "mirror": "https://tuf.example", "trustedRootTarget": "x.json"}}, keyless, "trustedRootTarget"},
		"a remote's other folder":      {members{"remote": members{"root": []byte(`{"signatures":[]}`), "mirror": "https://tuf.example", "targets": "x"}}, keyless, "targets are looked for"},
		"a remote without a root":      {members{"remote": members{"mirror": "https://tuf.example"}}, keyless, "spec.remote.root"},
		"an archive that is none":      {members{"repository": members{"root": []byte(`{"signatures":[]}`), "mirrorFS": []byte("x"), "targets": "targets"}}, keyless, "spec.repository: it is not packed with gzip"},
		"an archive's other target":    {members{"repository": members{"root": []byte(`{"signatures":[]}`), "mirrorFS": []byte("x"), "targets": "targets", "trustedRootTarget": "x.json"}}, keyless, "trustedRootTarget"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPort(t)
			p.compiler.PolicyController.Repository = func(mirror string, root []byte) (*trust.Root, error) {
				if mirror != "https://tuf.example" || string(root) != `{"signatures":[]}` {
					t.Errorf("asked %q, %q", mirror, root)
				}
				return nil, refresh.ErrPending
			}
			authority := strings.Replace(c.authority, "KEY", fmt.Sprintf("%q", p.key.PublicPEM()), 1)
			files := p.read(t, labelled, trustRoot(t, c.spec), imagePolicy("a", "**", "  authorities: ["+authority+"]"))
			got := files.Compiled()[0]
			if got.Ready != (c.problem == "") || !strings.Contains(got.Message, c.problem) {
				t.Errorf("ready %t: %s, want %q", got.Ready, got.Message, c.problem)
			}
			if again := files.Compiled()[0]; again.Pending != strings.Contains(c.problem, "not there yet") {
				t.Errorf("pending: %t", again.Pending)
			}
		})
	}
}

// TestTrustRootsAreTold apart: another key is another rule.
func TestTrustRootsAreToldApart(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	hash := func(spec members) [32]byte {
		t.Helper()
		const authority = "  authorities: [{keyless: {identities: [{issuer: i, subject: s}], trustRootRef: mine}}]"
		compiled := p.read(t, labelled, trustRoot(t, spec), imagePolicy("a", "**", authority)).Compiled()[0]
		if !compiled.Ready {
			t.Fatal(compiled.Message)
		}
		return compiled.Rule.Verification.Hash
	}
	var specs []members
	for range 2 {
		sigstore, err := ca.NewVirtualSigstore()
		if err != nil {
			t.Fatal(err)
		}
		specs = append(specs, members{"sigstoreKeys": sigstoreKeys(t, sigstore)})
	}
	one, same, other := hash(specs[0]), hash(specs[0]), hash(specs[1])
	if one != same || one == other {
		t.Errorf("%x, the same %x, another %x", one, same, other)
	}
}

// TestHashesOfImagePolicies: whatever a policy says differently has no verdict in
// common.
func TestHashesOfImagePolicies(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	seen := map[[32]byte]string{}
	for _, more := range []string{
		"", ", source: [{oci: a.io/x}]", ", source: [{oci: a.io/y}]", ", source: [{tagPrefix: x}]",
		", attestations: [{name: a, predicateType: custom}]", ", attestations: [{name: a, predicateType: custom, policy: {type: cue, data: \"yes\"}}]",
		"}]\n  policy: {type: cue, data: \"yes\"}\n  match: [{version: v1, resource: pods", "}]\n  policy: {type: cue, data: \"no\"}\n  match: [{version: v1, resource: pods",
		"}]\n  policy: {type: cue, data: \"yes\", includeSpec: true}\n  match: [{version: v1, resource: pods",
		"}]\n  policy: {type: cue, data: \"yes\", fetchConfigFile: true}\n  match: [{version: v1, resource: pods",
	} {
		policy := imagePolicy("a", "**", fmt.Sprintf("  authorities: [{name: k, key: {data: %q}%s}]", p.key.PublicPEM(), more))
		compiled := p.read(t, labelled, policy).Compiled()[0]
		if !compiled.Ready {
			t.Fatal(compiled.Message)
		}
		hash := compiled.Rule.Verification.Hash
		if other, ok := seen[hash]; ok {
			t.Errorf("%q has the hash of %q", more, other)
		}
		seen[hash] = more
	}
}

var _ = source.KindTrustRoot
