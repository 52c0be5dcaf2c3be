// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/language"
)

// statement is what the policies below are asked about.
const statement = `{
  "_type": "https://in-toto.io/Statement/v0.1",
  "predicateType": "https://slsa.dev/provenance/v1",
  "subject": [{"name": "app", "digest": {"sha256": "abc"}}],
  "predicate": {
    "builder": {"id": "https://good.example/builder"},
    "steps": 3, "share": 0.5, "whole": 1.0, "nothing": null,
    "emoji": "\ud83d\ude00\u2028\/",
    "tags": ["a", "b"]
  }
}`

var good = language.Result{Compliant: true}

func bad(message string) language.Result { return language.Result{Message: message} }

// TestPolicies: what each language says of one statement. A message that ends in
// "…" here is only the beginning.
func TestPolicies(t *testing.T) {
	t.Parallel()
	e := newEvaluator(t, "child", 2)
	for name, test := range map[string]struct {
		language language.Language
		text     string
		want     language.Result
	}{
		"CUE, equal":           {language.CUE, `predicate: builder: id: "https://good.example/builder"`, good},
		"CUE, expression":      {language.CUE, `predicate: builder: id: =~"^https://good[.]example/"`, good},
		"CUE, other":           {language.CUE, `predicate: builder: id: "x"`, bad(`predicate.builder.id: conflicting values "https://good.example/builder" and "x"`)},
		"CUE, types":           {language.CUE, `predicate: {steps: int & >2, share: float, nothing: null, tags: [...string]}`, good},
		"CUE, as written":      {language.CUE, `predicate: whole: int`, bad("predicate.whole: conflicting values int and 1.0…")},
		"CUE, null":            {language.CUE, `predicate: nothing: string`, bad("predicate.nothing: conflicting values string and null…")},
		"CUE, escapes":         {language.CUE, `predicate: emoji: "😀\u2028/"`, good},
		"CUE, closed":          {language.CUE, "#P: builder: _\npredicate: #P", bad("predicate.emoji: field not allowed; …")},
		"CUE, builtin package": {language.CUE, "import \"strings\"\npredicate: tags: [...strings.MaxRunes(1)]", good},
		// As policy-controller has it, and as the documentation warns.
		"CUE, missing":           {language.CUE, `predicate: missing: "x"`, good},
		"CUE, required, missing": {language.CUE, `predicate: missing!: "x"`, good},
		"CUE, asked whether it is missing": {language.CUE, `predicateType?: string
predicate?: {missing?: "x", ...}
if predicateType != _|_ if predicate.missing == _|_ {absent: "predicate.missing" & "is absent"}`, bad("absent: conflicting values…")},
		"CUE, tools do nothing": {language.CUE, "import \"tool/os\"\nenv: os.Getenv & {HOME: string}\nhome: env.HOME\npredicate: builder: id: \"x\"", bad(`predicate.builder.id: conflicting…`)},

		"Rego":                 {language.Rego, "package sigstore\nisCompliant { input.predicate.steps == 3 }", good},
		"Rego, set":            {language.Rego, "package sigstore\nisCompliant[r] { r := {\"result\": input.predicate.steps == 3} }", good},
		"Rego, version 1":      {language.Rego, "package sigstore\nimport rego.v1\nisCompliant if input.predicate.steps == 3", good},
		"Rego, no value":       {language.Rego, "package sigstore\nisCompliant { input.predicate.steps == 4 }", bad("isCompliant has no value for this document")},
		"Rego, false":          {language.Rego, "package sigstore\ndefault isCompliant = false\nisCompliant { input.predicate.missing }", bad("isCompliant is false")},
		"Rego, neither":        {language.Rego, "package sigstore\nisCompliant = \"yes\" { true }", bad("isCompliant is neither a bool nor a list")},
		"Rego, warning":        {language.Rego, regoList(`{"result": true, "warning": "old"}`), language.Result{Compliant: true, Message: "old"}},
		"Rego, error":          {language.Rego, regoList(`{"result": false, "error": "too old", "warning": "w"}, {"result": false, "error": "too big"}`), bad("too old; w; too big")},
		"Rego, first good one": {language.Rego, regoList(`{"result": false, "error": "too old"}, {"result": true}, 7`), good},
		"Rego, no entry":       {language.Rego, regoList(``), bad("isCompliant holds no good result")},
		"Rego, no object":      {language.Rego, regoList(`true`), bad("isCompliant holds what is not an object")},
		"Rego, no bool":        {language.Rego, regoList(`{"result": "true"}`), bad("isCompliant holds what is not a bool result with an error and a warning")},
		"Rego, conflict":       {language.Rego, "package sigstore\nisCompliant = x { x := input.predicate.tags[_] == \"a\" }", bad("policy.rego:2: eval_conflict_error: …")},
		"Rego, clock":          {language.Rego, "package sigstore\nisCompliant { time.now_ns() > 1577836800000000000 }", good},
		"Rego, one line":       {language.Rego, regoList(`{"error": "a\nb\u001b[31m\u202e"}`), bad(`a b\x1b[31m\u202e`)},
		"Rego, long":           {language.Rego, regoList(`{"error": "` + strings.Repeat("ä", 600) + `"}`), bad(strings.Repeat("ä", 254) + "…")},

		"CEL":                 {language.CEL, `predicate.builder.id.startsWith("https://good.example/")`, good},
		"CEL, variables":      {language.CEL, `predicateType == "https://slsa.dev/provenance/v1" && subject.exists(s, s.name == "app") && statement.predicate == predicate`, good},
		"CEL, numbers":        {language.CEL, `predicate.steps + 1 == 4 && predicate.share < 1.0 && predicate.whole == 1 && predicate.nothing == null`, good},
		"CEL, extensions":     {language.CEL, `sets.contains(predicate.tags, ["a"]) && predicate.tags.distinct().size() == 2 && math.greatest(predicate.steps, 5) == 5 && "A".lowerAscii() == "a"`, good},
		"CEL, false":          {language.CEL, `predicate.steps == 4`, bad("the expression is false")},
		"CEL, missing":        {language.CEL, `predicate.missing == 4`, bad("no such key: missing")},
		"CEL, asked for":      {language.CEL, `has(predicate.missing) && predicate.missing == 4`, bad("the expression is false")},
		"CEL, types":          {language.CEL, `predicate.builder > 4`, bad("no such overload…")},
		"CEL, no clock":       {language.CEL, `timestamp("2020-01-01T00:00:00Z") < timestamp("2021-01-01T00:00:00Z")`, good},
		"CEL, quoting itself": {language.CEL, `predicate.builder.id == "\x1b[31m"`, bad("the expression is false")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := language.Policy{Language: test.language, Text: test.text}
			if err := e.Check(t.Context(), p); err != nil {
				t.Errorf("it does not compile: %v", err)
			}
			got, err := e.Evaluate(t.Context(), p, []byte(statement))
			if err != nil {
				t.Fatal(err)
			}
			if beginning, cut := strings.CutSuffix(test.want.Message, "…"); cut && strings.HasPrefix(got.Message, beginning) {
				got.Message = test.want.Message
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func regoList(entries string) string {
	return "package sigstore\nisCompliant = [" + entries + "] { true }"
}

// TestSyntax: what does not compile is told with its place, by Check and by
// Evaluate, and leaves images unexamined.
func TestSyntax(t *testing.T) {
	t.Parallel()
	e := newEvaluator(t, "child", 2)
	for name, test := range map[string]struct {
		language language.Language
		text     string
		want     string
	}{
		"CUE, cut":           {language.CUE, "a: 1\nb: {", `line 2, column 5: expected '}', found 'EOF'`},
		"CUE, reference":     {language.CUE, "a: 1\nb:  c", `line 2, column 5: b: reference "c" not found`},
		"CUE, contradiction": {language.CUE, "a: 1 & 2", `line 1, column 4: a: conflicting values 2 and 1`},
		"CUE, import":        {language.CUE, "import \"example.com/x\"\na: x.y", `line 1, column 8: package "example.com/x" imported but not defined`},
		"CUE, empty":         {language.CUE, " \n", "the policy is empty"},
		"Rego, token":        {language.Rego, "package sigstore\nisCompliant { input.a = = 1 }", "line 2, column 25: unexpected eq token"},
		"Rego, variable":     {language.Rego, "package sigstore\nisCompliant { x > 1 }", "line 2, column 15: var x is unsafe"},
		"Rego, package":      {language.Rego, "package other\nisCompliant { true }", "line 1, column 1: the package must be sigstore"},
		"Rego, inner":        {language.Rego, "package sigstore.inner\nisCompliant { true }", "line 1, column 1: the package must be sigstore"},
		"Rego, rule":         {language.Rego, "\npackage sigstore\nisGood { true }", "line 2, column 1: there is no rule isCompliant"},
		"Rego, network":      {language.Rego, "package sigstore\nisCompliant { http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1/\"}) }", "line 2, column 15: undefined function http.send"},
		"Rego, resolver":     {language.Rego, "package sigstore\nisCompliant { net.lookup_ip_addr(\"localhost\") }", "line 2, column 15: undefined function net.lookup_ip_addr"},
		"Rego, environment":  {language.Rego, "package sigstore\nisCompliant { opa.runtime().env.HOME }", "line 2, column 15: undefined function opa.runtime"},
		"Rego, schema":       {language.Rego, "package sigstore\nisCompliant { json.match_schema({}, {\"$ref\": \"http://127.0.0.1/\"})[0] }", "line 2, column 15: undefined function json.match_schema"},
		"CEL, cut":           {language.CEL, "true &&\n (", "line 2, column 3: Syntax error"},
		"CEL, name":          {language.CEL, "true &&\n now()", "line 2, column 5: undeclared reference to 'now'"},
		"CEL, no bool":       {language.CEL, "1 + 1", "line 1, column 1: the expression must be a bool; its type is int"},
		"CEL, dyn":           {language.CEL, "predicate.good", "line 1, column 1: the expression must be a bool; its type is dyn"},
		"CEL, depth":         {language.CEL, strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + " == []", "expression recursion limit exceeded"},
		"long":               {language.CEL, strings.Repeat(" ", language.MaxText) + "true", "the policy has more than 64 KiB"},
		"no language":        {"jsonnet", "true", `there is no language "jsonnet"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := language.Policy{Language: test.language, Text: test.text}
			_, evaluated := e.Evaluate(t.Context(), p, []byte(statement))
			for _, err := range []error{e.Check(t.Context(), p), evaluated} {
				syntax, ok := errors.AsType[*language.SyntaxError](err)
				if !ok || !strings.HasPrefix(syntax.Error(), test.want) || strings.Contains(syntax.Error(), "\n") {
					t.Errorf("got %v, want %s", err, test.want)
				}
				if v := policy.VerdictOf(err); v.Outcome != policy.Inconclusive || v.Reason != policy.ReasonNotReady {
					t.Errorf("the verdict is %+v", v)
				}
			}
		})
	}
}

// anything are policies that every document fulfils.
var anything = []language.Policy{
	{Language: language.CUE, Text: "_"},
	{Language: language.Rego, Text: "package sigstore\nisCompliant { true }"},
	{Language: language.CEL, Text: "true"},
}

// TestDocuments: what the languages would read differently complies with
// nothing, whatever the language.
func TestDocuments(t *testing.T) {
	t.Parallel()
	e := newEvaluator(t, "child", 2)
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for name, test := range map[string]struct {
		document string
		want     language.Result
	}{
		"object":                  {`{"a": {"b": 1}, "c": {"b": 1}}`, good},
		"list":                    {` [1, "a", null, -0.5e-3] `, good},
		"text":                    {`"a"`, good},
		"deep":                    {nested(5000), good},
		"too deep":                {nested(10_001), bad("the document is not good JSON: …")},
		"nothing":                 {``, bad("the document is not good JSON: …")},
		"cut":                     {`{"a": 1`, bad("the document is not good JSON: …")},
		"two":                     {`{"a": 1} {"a": 2}`, bad("the document is not good JSON: something follows it")},
		"a name twice":            {`{"a": 1, "a": 1}`, bad("the document is not good JSON: …")},
		"a name twice, escaped":   {`{"a": 1, "\u0061": 1}`, bad("the document is not good JSON: …")},
		"a name twice, deep":      {`[{"a": [{"b": {}, "b": {}}]}]`, bad("the document is not good JSON: …")},
		"CUE":                     {`{a: 1}`, bad("the document is not good JSON: …")},
		"interpolation":           {`{"a": "\(a)"}`, bad("the document is not good JSON: …")},
		"not UTF-8":               {"{\"a\": \"\xff\"}", bad("the document is not good JSON: …")},
		"half a surrogate":        {`{"a": "\ud83d"}`, bad("the document is not good JSON: …")},
		"exponent":                {`{"a": 1e1000000000}`, bad("the document holds a number that is too large or too small")},
		"negative exponent":       {`{"a": 1e-1000000000}`, bad("the document holds a number that is too large or too small")},
		"digits":                  {`{"a": ` + strings.Repeat("9", 400) + `}`, bad("the document holds a number that is too large or too small")},
		"zero with an exponent":   {`{"a": 0e-5}`, good},
		"the largest, and beyond": {`{"a": [1.7976931348623157e308, 5e-324, 18446744073709551616]}`, good},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, p := range anything {
				got, err := e.Evaluate(t.Context(), p, []byte(test.document))
				if err != nil {
					t.Fatalf("%s: %v", p.Language, err)
				}
				beginning, _ := strings.CutSuffix(test.want.Message, "…")
				if got.Compliant != test.want.Compliant || !strings.HasPrefix(got.Message, beginning) || len(got.Message) > 512 {
					t.Errorf("%s: got %+v", p.Language, got)
				}
			}
		})
	}
}

// TestPartsOfStatements: what a document lacks, or has in another form, is no
// variable.
func TestPartsOfStatements(t *testing.T) {
	t.Parallel()
	e := newEvaluator(t, "child", 1)
	for document, expression := range map[string]string{
		`{"predicateType": 7}`:   `predicateType != "x"`,
		`{"subject": {"a": {}}}`: `subject.all(s, s.name == "x")`,
		`{}`:                     `predicate != 1`,
		`[]`:                     `predicate != 1`,
	} {
		got, err := e.Evaluate(t.Context(), language.Policy{Language: language.CEL, Text: expression}, []byte(document))
		if err != nil || got.Compliant || !strings.HasPrefix(got.Message, "no such attribute") {
			t.Errorf("%s: %+v, %v", document, got, err)
		}
	}
}
