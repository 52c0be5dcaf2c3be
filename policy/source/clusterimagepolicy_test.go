// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/policy/refresh"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/policy/trust"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// labelled is a namespace that policy-controller's policies govern.
const labelled = `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {policy.sigstore.dev/include: "true"}}
---
apiVersion: v1
kind: Namespace
metadata: {name: pier}
---
`

// port is policy-controller's world: manifests, and who judges by them.
type port struct {
	host *registrytest.Registry
	key  *registrytest.Key

	compiler source.Compiler
	asked    documents
}

// documents is an evaluator that keeps what it is asked about. Its policies say
// yes, no, warn or unknown.
type documents struct {
	mu    sync.Mutex
	asked []string
}

func (d *documents) Evaluate(_ context.Context, p language.Policy, document []byte) (language.Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, string(document))
	switch p.Text {
	case "yes":
		return language.Result{Compliant: true}, nil
	case "warn":
		return language.Result{Compliant: true, Message: "be careful"}, nil
	case "no":
		return language.Result{Message: "not so"}, nil
	case "labelled":
		var object struct {
			Metadata struct {
				Labels map[string]string `json:"labels"`
			} `json:"metadata"`
		}
		err := json.Unmarshal(document, &object)
		return language.Result{Compliant: object.Metadata.Labels["ok"] == "yes", Message: ""}, err
	default:
		return language.Result{}, policy.Undecided(policy.ReasonLimit, "the policy did not end").Err()
	}
}

func (d *documents) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.asked)
}

func newPort(t *testing.T) *port {
	t.Helper()
	p := &port{host: registrytest.New(t), key: registrytest.NewKey(t, registrytest.ECDSAP256)}
	client := newClient(t, p.host)
	p.compiler = source.Compiler{
		Cosign:           cosign.Options{Source: client, Evaluator: &p.asked},
		PolicyController: source.PolicyController{Namespace: "cosign-system", Configs: client},
		Check: func(p language.Policy) error {
			if p.Text == "broken" {
				return &language.SyntaxError{Line: 2, Column: 3, Message: "expected a policy"}
			}
			return nil
		},
		Trust: func() (*trust.Root, error) { return nil, refresh.ErrPending },
	}
	return p
}

func newClient(t *testing.T, host *registrytest.Registry) *registry.Client {
	t.Helper()
	client, err := registry.New(registry.Options{
		AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Insecure: []string{host.Host()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (p *port) read(t *testing.T, manifests ...string) *source.Files {
	t.Helper()
	dir := t.TempDir()
	for i, m := range manifests {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.yaml", i)), []byte(m), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := source.NewFiles(p.compiler, "pratique-system", dir)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// question is about one image of a Pod in the namespace shop.
func question(t *testing.T, files *source.Files, image registrytest.Image) policy.Question {
	t.Helper()
	ref, err := reference.Parse(image.ByDigest())
	if err != nil {
		t.Fatal(err)
	}
	return policy.Question{
		Set: files.Set(), Namespace: files.Namespace(t.Context(), "shop"), Credentials: credential.None(), Pods: true,
		Object: &policy.Object{Kind: schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, JSON: []byte(
			`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","labels":{"ok":"yes"}},"spec":{"containers":[]}}`)},
		Images: []policy.Asked{{Reference: ref}},
	}
}

// decide says what all rules say, each as "Kind name Mode Outcome Reason".
func decide(t *testing.T, q policy.Question) (findings []string, messages string) {
	t.Helper()
	d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Engine: policy.Direct{}, Resolver: nil}
	for _, f := range d.Decide(t.Context(), q)[0].Findings {
		who := "server"
		if f.Rule != nil {
			who = f.Rule.Kind + " " + f.Rule.Name
		}
		findings = append(findings, fmt.Sprintf("%s %s %s %s", who, f.Mode, f.Verdict.Outcome, f.Verdict.Reason))
		messages += f.Verdict.Message + "\n"
	}
	slices.Sort(findings)
	return findings, messages
}

// imagePolicy is a policy for one name, whose spec goes on with more.
func imagePolicy(name, glob, more string) string {
	return fmt.Sprintf("---\napiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: %s}\nspec:\n  images: [{glob: %q}]\n%s\n",
		name, glob, more)
}

func (p *port) signedBy(key *registrytest.Key) string {
	return fmt.Sprintf("  authorities: [{name: release, key: {data: %q}}]\n", key.PublicPEM())
}

func TestClusterImagePolicies(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	signed, unsigned := p.host.PushImage(t, "acme/signed:v1"), p.host.PushImage(t, "acme/unsigned:v1")
	p.host.SignLegacy(t, signed, p.key)
	other := registrytest.NewKey(t, registrytest.ECDSAP256)
	accepted, refused := "Enforce Accepted Verified", "Enforce Rejected NoSignature"
	const nobody = "ConfigMap config-policy-controller Enforce Rejected Unmatched"
	settings := func(value string) string {
		return fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-policy-controller, namespace: cosign-system}\ndata: {no-match-policy: %q}\n", value)
	}
	secret := fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: cosign-system}\nstringData: {whatever: %q}\n", p.key.PublicPEM())
	byKey := p.signedBy(p.key)
	for name, c := range map[string]struct {
		manifests []string
		image     registrytest.Image
		ns        string
		want      []string
		says      string
	}{
		"signed":                     {[]string{imagePolicy("a", "**", byKey)}, signed, "", []string{"ClusterImagePolicy a " + accepted}, `authority "release"`},
		"not signed":                 {[]string{imagePolicy("a", "**", byKey)}, unsigned, "", []string{"ClusterImagePolicy a " + refused}, ""},
		"in the older version":       {[]string{strings.Replace(imagePolicy("a", "**", byKey), "v1beta1", "v1alpha1", 1)}, signed, "", []string{"ClusterImagePolicy a " + accepted}, ""},
		"by another key":             {[]string{imagePolicy("a", "**", p.signedBy(other))}, signed, "", []string{"ClusterImagePolicy a Enforce Rejected NoMatchingSignature"}, ""},
		"a key in a Secret":          {[]string{secret, imagePolicy("a", "**", "  authorities: [{key: {secretRef: {name: keys}}}]")}, signed, "", []string{"ClusterImagePolicy a " + accepted}, `authority "authority-0"`},
		"in its own namespace":       {[]string{secret, imagePolicy("a", "**", "  authorities: [{key: {secretRef: {name: keys, namespace: cosign-system}}}]")}, signed, "", []string{"ClusterImagePolicy a " + accepted}, ""},
		"not governed":               {[]string{imagePolicy("a", "**", byKey)}, unsigned, "pier", []string{"server Enforce Skipped NotCovered"}, ""},
		"two, of which one fails":    {[]string{imagePolicy("a", "**", byKey), imagePolicy("b", "**", p.signedBy(other))}, signed, "", []string{"ClusterImagePolicy a " + accepted, "ClusterImagePolicy b Enforce Rejected NoMatchingSignature"}, ""},
		"to be warned of":            {[]string{imagePolicy("a", "**", byKey+"  mode: warn")}, unsigned, "", []string{"ClusterImagePolicy a Audit Rejected NoSignature"}, ""},
		"any authority":              {[]string{imagePolicy("a", "**", fmt.Sprintf("  authorities: [{key: {data: %q}}, {key: {data: %q}}]", other.PublicPEM(), p.key.PublicPEM()))}, signed, "", []string{"ClusterImagePolicy a " + accepted}, `authority "authority-1"`},
		"refused by decree":          {[]string{imagePolicy("a", "**", "  authorities: [{static: {action: fail, message: not here}}]")}, signed, "", []string{"ClusterImagePolicy a Enforce Rejected Static"}, "not here"},
		"let in by decree":           {[]string{imagePolicy("a", "**", "  authorities: [{static: {action: pass}}]")}, unsigned, "", []string{"ClusterImagePolicy a Enforce Accepted Static"}, ""},
		"another object":             {[]string{imagePolicy("a", "**", byKey+"  match: [{group: apps, version: v1, resource: deployments}]")}, unsigned, "", []string{nobody}, ""},
		"this object":                {[]string{imagePolicy("a", "**", byKey+"  match: [{version: v1, resource: pods, selector: {matchLabels: {ok: \"yes\"}}}]")}, unsigned, "", []string{"ClusterImagePolicy a " + refused}, ""},
		"objects otherwise labelled": {[]string{imagePolicy("a", "**", byKey+"  match: [{version: v1, resource: pods, selector: {matchLabels: {ok: \"no\"}}}]")}, unsigned, "", []string{nobody}, ""},
		"none matches":               {[]string{imagePolicy("a", "x.io/**", byKey)}, signed, "", []string{nobody}, "which is so by default"},
		"none matches, deny":         {[]string{imagePolicy("a", "x.io/**", byKey), settings("deny")}, signed, "", []string{nobody}, "no-match-policy: deny"},
		"none matches, a mistake":    {[]string{imagePolicy("a", "x.io/**", byKey), settings("Allow")}, signed, "", []string{nobody}, "by default"},
		"none matches, warn":         {[]string{imagePolicy("a", "x.io/**", byKey), settings("warn")}, signed, "", []string{"ConfigMap config-policy-controller Audit Rejected Unmatched"}, ""},
		"none matches, allow":        {[]string{imagePolicy("a", "x.io/**", byKey), settings("allow")}, signed, "", []string{"server Enforce Skipped NotCovered"}, ""},
		"none matches, not governed": {[]string{imagePolicy("a", "x.io/**", byKey)}, signed, "pier", []string{"server Enforce Skipped NotCovered"}, ""},
		"nothing of its kinds":       {[]string{settings("deny")}, signed, "", []string{"server Enforce Skipped NotCovered"}, ""},
		"beside an ImageConfig": {[]string{imagePolicy("a", "**", byKey), fmt.Sprintf("---\napiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: ours}\nspec:\n  matchImages: [{prefix: %q}]\n  verification: {provider: Cosign, cosign: {authorities: [{name: x, key: {data: %q}}]}}\n",
			signed.Name()+"@"+signed.Digest, other.PublicPEM())}, signed, "", []string{"ClusterImagePolicy a " + accepted, "ImageConfig ours Enforce Rejected NoMatchingSignature"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := p.read(t, append([]string{labelled}, c.manifests...)...)
			q := question(t, files, c.image)
			if c.ns != "" {
				q.Namespace = files.Namespace(t.Context(), c.ns)
			}
			got, messages := decide(t, q)
			if diff := cmp.Diff(c.want, got); diff != "" || !strings.Contains(messages, c.says) {
				t.Errorf("findings (-want +got):\n%s\n%s", diff, messages)
			}
		})
	}
}

// TestClusterImagePoliciesEverywhere is --cip-namespaces All.
func TestClusterImagePoliciesEverywhere(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	p.compiler.PolicyController.All = true
	unsigned := p.host.PushImage(t, "acme/unsigned:v1")
	files := p.read(t, labelled, imagePolicy("a", "**", p.signedBy(p.key)))
	for _, ns := range []policy.Namespace{files.Namespace(t.Context(), "pier"), {}, {Name: "unknown", Unreadable: true}} {
		q := question(t, files, unsigned)
		q.Namespace = ns
		if got, _ := decide(t, q); !slices.Equal(got, []string{"ClusterImagePolicy a Enforce Rejected NoSignature"}) {
			t.Errorf("%+v: %q", ns, got)
		}
	}
}

// TestUnreadyClusterImagePolicies breaks one thing at a time.
func TestUnreadyClusterImagePolicies(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	const (
		this = "a.io/**" // what the policy is for; images of b.io are not
		all  = "which images it is for cannot be read"
	)
	keyless := func(more string) string {
		return "  authorities: [{name: k, keyless: {identities: [{issuer: https://i.example, subject: s}]" + more + "}}]"
	}
	byKey := func(more string) string {
		return fmt.Sprintf("  authorities: [{name: k, key: {data: %q}%s}]", p.key.PublicPEM(), more)
	}
	configMap := "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: policies, namespace: cosign-system}\ndata: {bad: broken, empty: \"\"}\n"
	twoKeys := fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: two, namespace: cosign-system}\nstringData: {a: %q, b: %q}\n", p.key.PublicPEM(), p.key.PublicPEM())
	elsewhere := fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: elsewhere, namespace: shop}\nstringData: {a: %q}\n", p.key.PublicPEM())
	for name, c := range map[string]struct {
		glob, more string
		says       string
		everything bool // holds back what may be any image
	}{
		"an unknown field":                {this, "  authoritys: []", `unknown field "authoritys"`, false},
		"another case":                    {this, "  Authorities: []", `unknown field "Authorities"`, false},
		"images again, in another case":   {this, "  Images: []\n" + byKey(""), `unknown field "Images"`, true},
		"a field of images":               {this, "  image: []\n" + byKey(""), `unknown field "image"`, true},
		"a glob that is none":             {"a.io/[", byKey(""), "glob is invalid", true},
		"an empty glob":                   {"", byKey(""), "missing field(s): spec.images[0].glob", true},
		"no authorities":                  {this, "  mode: enforce", "missing field(s): spec.authorities", false},
		"an empty list of them":           {this, "  authorities: []", "missing field(s): spec.authorities", false},
		"an authority without anything":   {this, "  authorities: [{name: k}]", "expected exactly one, got neither", false},
		"with too much":                   {this, byKey(", static: {action: pass}"), "expected exactly one, got both", false},
		"a mode that is none":             {this, byKey("") + "\n  mode: Warn", "unsupported mode", false},
		"static, otherwise":               {this, "  authorities: [{static: {action: maybe}}]", "unsupported action", false},
		"a key that is none":              {this, "  authorities: [{key: {data: x}}]", "spec.authorities[0].key.data", false},
		"a hash that is none":             {this, fmt.Sprintf("  authorities: [{key: {data: %q, hashAlgorithm: md5}}]", p.key.PublicPEM()), "hashAlgorithm", false},
		"a Secret that is not there":      {this, "  authorities: [{key: {secretRef: {name: absent}}}]", `secret "absent" does not exist in namespace "cosign-system"`, false},
		"a Secret in another namespace":   {this, "  authorities: [{key: {secretRef: {name: elsewhere, namespace: shop}}}]", `"shop" is not policy-controller's namespace "cosign-system"`, false},
		"a Secret with two keys":          {this, "  authorities: [{key: {secretRef: {name: two}}}]", `secret "two" has 2 keys`, false},
		"a key by k8s://":                 {this, "  authorities: [{key: {kms: \"k8s://cosign-system/two\"}}]", "malformed KMS format", false},
		"no identities":                   {this, "  authorities: [{keyless: {}}]", "missing field(s): spec.authorities[0].keyless.identities", false},
		"an identity without an issuer":   {this, "  authorities: [{keyless: {identities: [{subject: s}]}}]", "issuer, ", false},
		"an expression that is none":      {this, "  authorities: [{keyless: {identities: [{issuerRegExp: \"(\", subject: s}]}}]", "regex is invalid", false},
		"the default root, not yet":       {this, keyless(""), "the server's trust root is not there yet", false},
		"a certificate of one's own":      {this, keyless(fmt.Sprintf(", ca-cert: {data: %q}", p.key.PublicPEM())), "keyless.ca-cert: policy-controller accepts nothing by it", false},
		"a root that is not there":        {this, keyless(", trustRootRef: absent"), `TrustRoot "absent": it does not exist`, false},
		"a log without a root":            {this, byKey(", ctlog: {url: https://rekor.example}"), "the server's trust root is not there yet", false},
		"a timestamp without a root":      {this, byKey(", rfc3161timestamp: {}"), "rfc3161timestamp: without trustRootRef", false},
		"a source that is none":           {this, byKey(", source: [{oci: \"a.io/x:v1\"}]"), "source[0].oci", false},
		"two sources":                     {this, byKey(", source: [{oci: a.io/x}, {oci: a.io/y}]"), "only single source is supported", false},
		"an attestation without a type":   {this, byKey(", attestations: [{name: a}]"), "missing field(s): spec.authorities[0].attestations.predicateType", false},
		"an attestation's broken policy":  {this, byKey(", attestations: [{name: a, predicateType: custom, policy: {type: cue, data: broken}}]"), "attestations[0].policy.data: line 2, column 3: expected a policy", false},
		"fetched policies":                {this, byKey("") + "\n  policy: {type: cue, remote: {url: https://x.io/p, sha256sum: aa}}", "spec.policy.remote: nothing is fetched", false},
		"a broken policy":                 {this, byKey("") + "\n  policy: {type: rego, data: broken}", "line 2, column 3: expected a policy", false},
		"a broken policy in a ConfigMap":  {this, byKey("") + "\n  policy: {type: rego, configMapRef: {name: policies, key: bad}}", "expected a policy", false},
		"an empty policy in a ConfigMap":  {this, byKey("") + "\n  policy: {type: cue, configMapRef: {name: policies, key: empty}}", "the policy is empty", false},
		"a ConfigMap that is not there":   {this, byKey("") + "\n  policy: {type: cue, configMapRef: {name: absent, key: bad}}", "absent", false},
		"a key that is not in it":         {this, byKey("") + "\n  policy: {type: cue, configMapRef: {name: policies, key: absent}}", `has no key "absent"`, false},
		"another language":                {this, byKey("") + "\n  policy: {type: cel, data: \"true\"}", "only [cue,rego] are supported", false},
		"a selector that is none":         {this, byKey("") + "\n  match: [{version: v1, resource: pods, selector: {matchExpressions: [{key: a, operator: Is}]}}]", "spec.match[0].selector", false},
		"a match that is wrong is of all": {this, byKey("") + "\n  match: [{version: v1, resource: jobs, selektor: {}}]", `unknown field "match[0].selektor"`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := p.read(t, labelled, configMap, twoKeys, elsewhere, imagePolicy("a", c.glob, c.more))
			compiled := files.Compiled()[0]
			if compiled.Ready || !strings.Contains(compiled.Message, c.says) || strings.Contains(compiled.Message, all) != c.everything {
				t.Errorf("ready %t: %s\nwant %s (everything: %t)", compiled.Ready, compiled.Message, c.says, c.everything)
			}
			for image, meant := range map[string]bool{"a.io/x": true, "b.io/x": c.everything} {
				q := question(t, files, registrytest.Image{Registry: strings.Split(image, "/")[0], Repository: "x", Digest: "sha256:" + strings.Repeat("a", 64)})
				want := []string{"ConfigMap config-policy-controller Enforce Rejected Unmatched"}
				if meant {
					want = []string{"ClusterImagePolicy a Enforce Inconclusive NotReady"}
				}
				if got, _ := decide(t, q); !slices.Equal(got, want) {
					t.Errorf("%s: %q, want %q", image, got, want)
				}
			}
		})
	}
}

// TestFinalPolicies is the policy of a whole ClusterImagePolicy.
func TestFinalPolicies(t *testing.T) {
	t.Parallel()
	const accepted, refused = "ClusterImagePolicy a Enforce Accepted Verified", "ClusterImagePolicy a Enforce Rejected Policy"
	for name, c := range map[string]struct {
		policy string
		want   string
		says   string
		keys   []string // of the document
	}{
		"yes":         {"{type: cue, data: \"yes\"}", accepted, "", []string{"authorityMatches"}},
		"no":          {"{type: cue, data: \"no\"}", refused, "its policy refuses it: not so", []string{"authorityMatches"}},
		"a warning":   {"{type: cue, data: warn}", refused, "be careful", []string{"authorityMatches"}},
		"unknown":     {"{type: cue, data: unknown}", "ClusterImagePolicy a Enforce Inconclusive Limit", "its policy could not be evaluated", []string{"authorityMatches"}},
		"the spec":    {"{type: rego, data: \"yes\", includeSpec: true}", accepted, "", []string{"authorityMatches", "spec"}},
		"not told of": {"{type: rego, data: \"yes\", includeSpec: false}", accepted, "", []string{"authorityMatches"}},
		"all":         {"{type: rego, data: \"yes\", includeSpec: true, includeObjectMeta: true, includeTypeMeta: true, fetchConfigFile: true}", accepted, "", []string{"authorityMatches", "config", "metadata", "spec", "typemeta"}},
		"its labels":  {"{type: rego, data: labelled, includeObjectMeta: true}", accepted, "", []string{"authorityMatches", "metadata"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPort(t)
			signed := p.host.PushImage(t, "acme/signed:v1")
			p.host.SignLegacy(t, signed, p.key)
			files := p.read(t, labelled, imagePolicy("a", "**", p.signedBy(p.key)+"  policy: "+c.policy))
			got, messages := decide(t, question(t, files, signed))
			if !slices.Equal(got, []string{c.want}) || !strings.Contains(messages, c.says) {
				t.Errorf("%q: %s", got, messages)
			}
			asked := p.asked.all()
			if len(asked) != 1 {
				t.Fatalf("asked %d times", len(asked))
			}
			var document map[string]json.RawMessage
			if err := json.Unmarshal([]byte(asked[0]), &document); err != nil {
				t.Fatal(err)
			}
			var keys []string
			for key := range document {
				keys = append(keys, key)
			}
			slices.Sort(keys)
			if diff := cmp.Diff(c.keys, keys); diff != "" {
				t.Errorf("the document (-want +got):\n%s%s", diff, asked[0])
			}
			if !strings.Contains(string(document["authorityMatches"]), `"release":{"signatures":[{"id":"`) {
				t.Errorf("who signed: %s", document["authorityMatches"])
			}
			if config := string(document["config"]); config != "" && !strings.HasPrefix(config, `{"linux/amd64":{"architecture":"amd64"`) {
				t.Errorf("config: %s", config)
			}
			if is := string(document["typemeta"]); is != "" && is != `{"apiVersion":"v1","kind":"Pod"}` {
				t.Errorf("typemeta: %s", is)
			}
		})
	}
}

// TestFinalPolicyIsAskedForEveryRequest: what looks at the object is not in the
// cache, though the signature is.
func TestFinalPolicyIsAskedForEveryRequest(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	signed := p.host.PushImage(t, "acme/signed:v1")
	p.host.SignLegacy(t, signed, p.key)
	files := p.read(t, labelled, imagePolicy("a", "**", p.signedBy(p.key)+"  policy: {type: rego, data: labelled, includeObjectMeta: true}"))
	client := newClient(t, p.host)
	cached, err := cache.New(policy.Direct{}, client, client, cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Engine: cached, Resolver: cached}
	for i, c := range []struct {
		labels string
		want   policy.Outcome
	}{{`{"ok":"yes"}`, policy.Accepted}, {`{"ok":"no"}`, policy.Rejected}, {`{"ok":"yes"}`, policy.Accepted}, {`{}`, policy.Rejected}} {
		q := question(t, files, signed)
		q.Object = &policy.Object{JSON: []byte(`{"metadata":{"labels":` + c.labels + `}}`)}
		if got := d.Decide(t.Context(), q)[0]; got.Outcome() != c.want {
			t.Errorf("request %d: %v, want %v", i, got.Outcome(), c.want)
		}
		if i == 0 {
			p.host.Reset()
		}
	}
	if requests := p.host.Requests(); len(requests) > 0 {
		t.Errorf("%d requests, the first %v", len(requests), requests[0])
	}
	if asked := p.asked.all(); len(asked) != 4 {
		t.Errorf("the policy was asked %d times", len(asked))
	}
}

// TestFinalPolicyOfDecrees needs no registry.
func TestFinalPolicyOfDecrees(t *testing.T) {
	t.Parallel()
	p := newPort(t)
	files := p.read(t, labelled, imagePolicy("a", "**", "  authorities: [{static: {action: pass}}]\n  policy: {type: rego, data: labelled, includeObjectMeta: true}"))
	nowhere := registrytest.Image{Registry: "nowhere.invalid", Repository: "x", Digest: "sha256:" + strings.Repeat("a", 64)}
	got, messages := decide(t, question(t, files, nowhere))
	if !slices.Equal(got, []string{"ClusterImagePolicy a Enforce Accepted Static"}) {
		t.Errorf("%q %s", got, messages)
	}
	if asked := p.asked.all(); len(asked) != 1 || !strings.Contains(asked[0], `"authorityMatches":{"authority-0":{"static":true}}`) {
		t.Errorf("asked %q", asked)
	}
}
