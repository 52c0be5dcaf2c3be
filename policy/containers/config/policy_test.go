// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "go.podman.io/image/v5/directory" // knows its scopes, as in the program

	"github.com/pratique-dev/pratique/policy/containers/config"
)

// told is what people are told of problems, a line each.
func told(problems []config.Problem) string {
	var b strings.Builder
	for _, p := range problems {
		if p.Warning {
			b.WriteString("warning: ")
		}
		b.WriteString(p.Error() + "\n")
	}
	return b.String()
}

func hasError(problems []config.Problem) bool {
	for _, p := range problems {
		if !p.Warning {
			return true
		}
	}
	return false
}

// golden compares with a file, which UPDATE=1 writes.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is stale: run UPDATE=1 go test\n%s", path, diff)
	}
}

// TestKiOS: the sample policy of the kiOS documentation, "Container Image
// Signing", as it is printed there. It has five mistakes.
func TestKiOS(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("testdata/kios.json")
	if err != nil {
		t.Fatal(err)
	}
	policy, problems := config.ParsePolicy(config.File{Name: "policy.json", Content: content})
	if policy != nil || len(problems) != 5 {
		t.Errorf("there is a policy: %t; %d problems, want 5", policy != nil, len(problems))
	}
	golden(t, "testdata/kios.golden", told(problems))
}

// TestPolicy: what a policy says of registries comes out as it is written, by
// canonical scopes.
func TestPolicy(t *testing.T) {
	t.Parallel()
	content := `{
  "transports": {
    "docker": {
      "": [{"type": "insecureAcceptAnything"}],
      "EXAMPLE.com:443/ns": [
        {"type":   "signedBy", "keyType": "GPGKeys", "keyPath": "/k"},
        {"type": "reject"}
      ],
      "registry-1.docker.io/acme": [{"type": "reject"}],
      "*.Example.com": [{"type": "reject"}],
      "busybox": [{"type": "reject"}]
    },
    "dir": {"": [{"type": "reject"}]}
  },
  "default": [{"type": "reject"}]
}`
	policy, problems := config.ParsePolicy(config.File{Name: "f", Content: []byte(content)})
	reject := []string{`{"type": "reject"}`}
	want := map[string]scope{
		"default":        {"default", 15, reject},
		"":               {"", 4, []string{`{"type": "insecureAcceptAnything"}`}},
		"example.com/ns": {"EXAMPLE.com:443/ns", 5, []string{`{"type":   "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}`, reject[0]}},
		"docker.io/acme": {"registry-1.docker.io/acme", 9, reject},
		"*.example.com":  {"*.Example.com", 10, reject},
		"busybox":        {"busybox", 11, reject},
	}
	if policy == nil {
		t.Fatal(told(problems))
	}
	got := map[string]scope{"default": scopeOf(policy.Default)}
	for name, r := range policy.Scopes {
		got[name] = scopeOf(r)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	const notes = `warning: f:7: reject beside others: the others have no effect; keep it alone, or remove it
warning: f:11: the scope "busybox" never matches: it has no host; write "docker.io/library/busybox"
warning: f:13: the transport dir does not concern images of Pods: its scopes are not read
`
	if diff := cmp.Diff(notes, told(problems)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

type scope struct {
	Written string
	Line    int
	List    []string
}

func scopeOf(r config.Requirements) scope {
	s := scope{Written: r.Written, Line: r.Line}
	for _, one := range r.List {
		s.List = append(s.List, string(one))
	}
	return s
}

// TestPolicyBounds: what is too much is refused, and no mistake is told of
// without an end.
func TestPolicyBounds(t *testing.T) {
	t.Parallel()
	const good = `{"default": [{"type": "reject"}]}`
	for name, test := range map[string]struct {
		content  string
		problems int
	}{
		"just so":       {good + strings.Repeat(" ", 1<<20-len(good)), 0},
		"too large":     {good + strings.Repeat(" ", 1<<20-len(good)+1), 1},
		"many mistakes": {`{"default": [` + strings.Repeat("{]", 100) + `]}`, 51},
		"all open":      {strings.Repeat("{", 1<<20), 1},
		"all commas":    {"{" + strings.Repeat(",", 1<<20-1), 51},
		"all words":     {"{" + strings.Repeat("a ", 1<<19-1), 51},
		"all warnings":  {`{"default": [{"type": "reject"}], "transports": {` + manyTransports() + `}}`, 51},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy, problems := config.ParsePolicy(config.File{Name: "f", Content: []byte(test.content)})
			if len(problems) != test.problems || (policy != nil) == hasError(problems) {
				t.Errorf("%d problems, want %d; a policy: %t\n%s", len(problems), test.problems, policy != nil, told(problems))
			}
		})
	}
}

func manyTransports() string {
	list := make([]string, 100)
	for i := range list {
		list[i] = fmt.Sprintf(`"unknown%d": {}`, i)
	}
	return strings.Join(list, ", ")
}

// TestLibraryRefuses: what only the library knows to be wrong is an error as well,
// in the line of what it names.
func TestLibraryRefuses(t *testing.T) {
	t.Parallel()
	const content = "{\"default\": [{\"type\": \"reject\"}],\n\"transports\": {\"dir\": {\n\"no/absolute/path\": [{\"type\": \"reject\"}]}}}"
	policy, problems := config.ParsePolicy(config.File{Name: "f", Content: []byte(content)})
	const want = `warning: f:2: the transport dir does not concern images of Pods: its scopes are not read
f:3: Unknown key "no/absolute/path"
`
	if diff := cmp.Diff(want, told(problems)); policy != nil || diff != "" {
		t.Errorf("a policy: %t (-want +got):\n%s", policy != nil, diff)
	}
}

// TestCheckRequirements: in an ImageConfig paths may name Secrets; else a list is
// good as in a policy.
func TestCheckRequirements(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		`[{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "secret://name/key"}]`: "",
		`[{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "secret://name"}]`:     "f:1: \"secret://name\" names no key of a Secret; write secret://name/key\n",
		"[\n{\"type\": \"rejct\"}]":    "f:2: \"rejct\" is no type of requirement; write \"reject\"\n",
		`[]`:                           "f:1: the list of requirements asks nothing: its list is empty; write a list such as [{\"type\": \"reject\"}]\n",
		`[`:                            "f:1: not JSON: parsing value: unexpected EOF\n",
		`[{"type": "reject"}, /* */ ]`: "f:1: a comma after the last value; remove it\n",
		`[{"type": "reject"} /* */ ]`:  "f: invalid character '/' after array element\n",
	} {
		if diff := cmp.Diff(want, told(config.CheckRequirements(config.File{Name: "f", Content: []byte(content)}))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", content, diff)
		}
	}
}
