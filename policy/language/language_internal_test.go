// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"cuelang.org/go/cue/cuecontext"
	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
)

// asPolicyController is how cosign and policy-controller evaluate CUE. It
// reports whether the policy compiles, and whether the document complies.
func asPolicyController(text string, document []byte) (compiles, complies bool) {
	c := cuecontext.New()
	wanted := c.CompileString(text)
	if wanted.Err() != nil {
		return false, false
	}
	given := c.CompileBytes(document)
	return true, given.Err() == nil && wanted.Unify(given).Validate() == nil
}

// TestLikePolicyController: documents are encoded here, and compiled there. No
// pair of these may tell.
func TestLikePolicyController(t *testing.T) {
	t.Parallel()
	values := []string{
		`null`, `true`, `0`, `-0`, `1`, `1.0`, `1e3`, `-1E-2`, `0.5`, `12345678901234567890123`, `""`, `"a"`, `"b\u00e4\n"`, `"1"`, `[]`, `{}`,
		`[1]`, `["a", 1]`, `[null, [1]]`, `{"a": 1}`, `{"a": 1.0, "b": "x"}`, `{"b": {"a": [1, 2]}}`, `{"_a": 1}`, `{"#a": 1}`,
		`{"a b": {}, "$c": null}`, `[{"a": 1}, {"a": 2, "b": 3}]`, `"2020-01-01T00:00:00Z"`, `{"a": "b", "b": "b"}`, `{"a": {"b": "x"}, "b": "x"}`,
	}
	constraints := []string{
		`_`, `null`, `bool`, `true`, `int`, `float`, `number`, `string`, `bytes`, `1`, `1.0`, `>0`, `>=0 & <1`, `!=1`, `uint8`, `"a"`, `=~"^a"`,
		`!="a"`, `int | string`, `*1 | int`, `*"a" | _`, `[...]`, `[]`, `[int]`, `[...int]`, `[_, ...]`, `[...{a: int, ...}]`, `[...{a: 1} | {a: 2, b: _}]`,
		`{}`, `{...}`, `close({})`, `close({a: _})`, `#D`, `{a: int}`, `{a?: string}`, `{a!: string}`, `{[string]: int}`, `{[=~"^a"]: 1}`, `{_a: 2}`,
		`{"_a": 2}`, `{#a: 2}`, `{a: b, b: _}`, `{a: b: c, let c = "x"}`, `{b: _, if b != _|_ {a: string}}`, `{for k, v in {a: 1, z: 2} {(k): v}}`,
		`struct.MinFields(1)`, `struct.MaxFields(1)`, `list.MinItems(1)`, `list.UniqueItems()`, `list.Contains(1)`, `strings.MinRunes(1)`, `time.Time`,
		`<time.Parse(time.RFC3339, "2021-01-01T00:00:00Z")`, `and([int, >0])`, `or([1, "a"])`, `{a: _, b: "\(a)"}`, `{a: _, n: len(a)}`,
	}
	seen := map[[2]bool]int{}
	for _, constraint := range constraints {
		for _, form := range []string{"v: ", "v?: ", "v: b: "} {
			text := importing(form + constraint + "\n#D: {a: int, b?: _}\n")
			for _, value := range values {
				document := []byte(`{"v": ` + value + `}`)
				compiles, complies := asPolicyController(text, document)
				got, err := cuePolicy(text).evaluate(t.Context(), document)
				if (err == nil) != compiles || got.Compliant != complies || (got.Message == "") != (complies || !compiles) {
					t.Errorf("%s and %s: got %+v, %v; want %t, %t", form+constraint, document, got, err, compiles, complies)
				}
				seen[[2]bool{compiles, complies}]++
			}
		}
	}
	if seen[[2]bool{true, true}] < 500 || seen[[2]bool{true, false}] < 500 {
		t.Errorf("the test sees too little: %v", seen)
	}
}

// importing adds what a text uses: CUE refuses imports that it does not.
func importing(text string) string {
	head := ""
	for _, name := range []string{"list", "strings", "struct", "time"} {
		if strings.Contains(text, name+".") {
			head += "import \"" + name + "\"\n"
		}
	}
	return head + text
}

// TestRegoCapabilities: a new version of OPA does not bring a function that
// reaches something, or none of those that policies use.
func TestRegoCapabilities(t *testing.T) {
	t.Parallel()
	var names, nondeterministic []string
	for _, b := range regoCapabilities().Builtins {
		names = append(names, b.Name)
		if b.Nondeterministic {
			nondeterministic = append(nondeterministic, b.Name)
		}
	}
	if diff := cmp.Diff([]string{"io.jwt.decode_verify", "time.now_ns"}, nondeterministic); diff != "" {
		t.Errorf("nondeterministic (-want +got):\n%s", diff)
	}
	for _, name := range []string{"http.send", "net.lookup_ip_addr", "opa.runtime", "rand.intn", "json.match_schema", "json.verify_schema"} {
		known := slices.ContainsFunc(ast.CapabilitiesForThisVersion().Builtins, func(b *ast.Builtin) bool { return b.Name == name })
		if !known || slices.Contains(names, name) {
			t.Errorf("%s is known: %t, and callable: %t", name, known, slices.Contains(names, name))
		}
	}
	for _, name := range []string{"count", "time.parse_rfc3339_ns", "semver.compare", "regex.match", "startswith", "json.unmarshal"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	var wire bytes.Buffer
	q := request{Language: Rego, Text: strings.Repeat("\x01", MaxText), Check: true, Budget: 7, document: []byte(`{}`)}
	if err := q.write(&wire); err != nil {
		t.Fatal(err)
	}
	whole := wire.Bytes()
	got, err := readRequest(bytes.NewReader(whole))
	if diff := cmp.Diff(q, got, cmp.AllowUnexported(request{})); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	for _, n := range []int{0, 2, 4, 100, len(whole) - 3, len(whole) - 1} {
		if _, err := readRequest(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("a request cut after %d bytes is read", n)
		}
	}
	// A length must not make anybody take memory.
	for _, length := range []string{"\xff\xff\xff\xff", "\x00\x00\x00\x09"} {
		if _, err := readFrame(strings.NewReader(length+"123456789"), 8); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a frame of %x: %v", length, err)
		}
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                         "",
		"\na\n\tb\r":               "a b",
		"\x1b[31m\x00\u202e\u2028": `\x1b[31m\x00\u202e`,
		"'\"“Ä”\\":                 "'\"“Ä”\\",
		"a\xffb":                   "a\ufffdb",
	} {
		if got := oneLine(text); got != want {
			t.Errorf("%q is written %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{strings.Repeat("a", 512), strings.Repeat("a", 513), strings.Repeat("\x00", 10_000), strings.Repeat("😀", 10_000)} {
		got := oneLine(text)
		if len(got) > maxMessage || len(got) < maxMessage-8 || !utf8.ValidString(got) {
			t.Errorf("%.10q is written in %d bytes: %q", text, len(got), got)
		}
	}
}
