// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/language"
)

// endless are policies that do not end in any time one would wait, and need
// little memory.
var endless = map[language.Language]language.Policy{
	language.CUE: {Language: language.CUE, Text: `import "list"
x: [for a in list.Range(0, 100000, 1) for b in list.Range(0, 100000, 1) if a*b < 0 {a}]`},
	language.Rego: {Language: language.Rego, Text: `package sigstore
isCompliant { n := numbers.range(1, 10000); count([1 | n[_] + n[_] + n[_] == 0]) == 0 }`},
	language.CEL: {Language: language.CEL, Text: `[1].map(z, lists.range(1000)).all(n, n.all(a, n.all(b, n.all(c, true))))`},
}

// verdict is what an error means; it fails unless there is one.
func verdict(t *testing.T, result language.Result, err error) policy.Verdict {
	t.Helper()
	if err == nil || result.Compliant {
		t.Fatalf("got %+v, %v; want an error", result, err)
	}
	if _, ok := errors.AsType[policy.Judged](err); !ok {
		t.Errorf("the error knows no verdict: %v", err)
	}
	v := policy.VerdictOf(err)
	if v.Outcome != policy.Inconclusive {
		t.Errorf("the verdict is %+v", v)
	}
	return v
}

// stillServes: what one request did must not be felt by the next.
func stillServes(t *testing.T, e *language.Evaluator) {
	t.Helper()
	for _, p := range anything {
		if got, err := e.Evaluate(t.Context(), p, []byte(`{}`)); err != nil || !got.Compliant {
			t.Errorf("afterwards, %s: %+v, %v", p.Language, got, err)
		}
	}
}

// TestRunAway: a policy that takes all time or all memory, or that goes too
// deep, says nothing of its image, and no other suffers.
func TestRunAway(t *testing.T) {
	t.Parallel()
	const long, large, deep = "the policy did not end within 2s", "evaluating the policy used more than 256 MiB", "the policy or the document nests too deeply"
	for name, test := range map[string]struct {
		language       language.Language
		text, document string
		want           string
	}{
		"CUE, time":               {language.CUE, endless[language.CUE].Text, `{}`, long},
		"CUE, memory":             {language.CUE, "import \"list\"\nx: list.Repeat([for a in list.Range(0, 1000, 1) {a}], 1000000)", `{}`, large},
		"CUE, memory at once":     {language.CUE, "import \"strings\"\nx: strings.Repeat(\"abcdefgh\", 1000000000)", `{}`, large},
		"CUE, memory by document": {language.CUE, "import \"strings\"\na: *0 | int\nif a > 0 {x: strings.Repeat(\"abcdefgh\", a)}", `{"a": 1000000000}`, large},
		"CUE, depth":              {language.CUE, "a: uint8\nif a != _|_ {a: {b: 1}}", `{}`, deep},
		"Rego, time":              {language.Rego, endless[language.Rego].Text, `{}`, long},
		"Rego, memory":            {language.Rego, "package sigstore\nisCompliant { concat(\"\", [input.a | numbers.range(1, 20000)[_]]) != \"\" }", `{"a": "` + strings.Repeat("a", 100_000) + `"}`, large},
		"CEL, time":               {language.CEL, endless[language.CEL].Text, `{}`, ""}, // or its cost
		"CEL, memory":             {language.CEL, `statement.a.replace("", statement.a) != ""`, `{"a": "` + strings.Repeat("a", 100_000) + `"}`, large},
		"CEL, cost":               {language.CEL, `["0123456789abcdef"]` + strings.Repeat(`.map(s, s+s+s+s+s+s+s+s)`, 20) + ` != []`, `{}`, "the policy costs more than 10000000 steps"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEvaluator(t, "child", 1)
			if test.text == endless[test.language].Text {
				e = newHurried(t, "child")
			}
			p := language.Policy{Language: test.language, Text: test.text}
			got, err := e.Evaluate(t.Context(), p, []byte(test.document))
			if v := verdict(t, got, err); v.Reason != policy.ReasonLimit || test.want != "" && v.Message != test.want {
				t.Errorf("the verdict is %+v", v)
			}
			stillServes(t, e)
		})
	}
}

// TestCheckRunsAway: CUE evaluates when it compiles.
func TestCheckRunsAway(t *testing.T) {
	t.Parallel()
	err := newHurried(t, "child").Check(t.Context(), endless[language.CUE])
	if v := verdict(t, language.Result{}, err); v.Reason != policy.ReasonLimit {
		t.Errorf("the verdict is %+v", v)
	}
}

// TestDeadline: a request's own time may be shorter, and is not the policy's
// fault.
func TestDeadline(t *testing.T) {
	t.Parallel()
	for _, p := range endless {
		t.Run(string(p.Language), func(t *testing.T) {
			t.Parallel()
			e := newEvaluator(t, "child", 1)
			stillServes(t, e)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			got, err := e.Evaluate(ctx, p, []byte(`{}`))
			if v := verdict(t, got, err); v.Reason != policy.ReasonDeadline {
				t.Errorf("the verdict is %+v", v)
			}
			stillServes(t, e)
		})
	}
}

// TestWaiting: who finds no child free waits, but not beyond his time; and who
// is gone leaves the child to others.
func TestWaiting(t *testing.T) {
	t.Parallel()
	e := newEvaluator(t, "child", 1)
	stillServes(t, e)
	busy, free := context.WithCancel(t.Context())
	first := occupy(busy, t, e)
	free()
	if v := verdict(t, language.Result{}, <-first); v.Reason != policy.ReasonDeadline {
		t.Errorf("the verdict is %+v", v)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Evaluate(gone, anything[2], []byte(`{}`)); policy.VerdictOf(err).Reason != policy.ReasonDeadline {
		t.Errorf("got %v", err)
	}
	stillServes(t, e)
}

// occupy has the only child evaluate something endless.
func occupy(ctx context.Context, t *testing.T, e *language.Evaluator) (ended <-chan error) {
	t.Helper()
	first := make(chan error, 1)
	go func() {
		_, err := e.Evaluate(ctx, endless[language.CUE], []byte(`{}`))
		first <- err
	}()
	for { // until the first has the child
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		got, err := e.Evaluate(short, anything[2], []byte(`{}`))
		cancel()
		if err == nil {
			continue
		}
		if v := verdict(t, got, err); v.Reason != policy.ReasonDeadline {
			t.Errorf("the verdict is %+v", v)
		}
		return first
	}
}

// TestConcurrency: many requests share two children, and each gets the answer to
// its own question.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "children")
	e := newEvaluator(t, "child", 2, fileVariable+"="+path)
	var group sync.WaitGroup
	for i := range 50 {
		group.Go(func() {
			p := []language.Policy{
				{Language: language.CUE, Text: fmt.Sprintf("n: %d", i%7)},
				{Language: language.Rego, Text: fmt.Sprintf("package sigstore\nisCompliant { input.n == %d }", i%7)},
				{Language: language.CEL, Text: fmt.Sprintf("statement.n == %d", i%7)},
			}[i%3]
			got, err := e.Evaluate(t.Context(), p, fmt.Appendf(nil, `{"n": %d}`, i%5))
			if err != nil || got.Compliant != (i%7 == i%5) {
				t.Errorf("%d: %+v, %v", i, got, err)
			}
		})
	}
	group.Wait()
	if n := started(t, path); n != 2 {
		t.Errorf("%d children were started", n)
	}
}

func started(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return len(text)
}

// TestManyPolicies: a child keeps only some that it compiled, and needs none of
// them.
func TestManyPolicies(t *testing.T) {
	t.Parallel()
	e := newEvaluator(t, "child", 1)
	for i := range 200 {
		p := language.Policy{Language: language.CEL, Text: fmt.Sprintf("statement == %d", i%100)}
		if got, err := e.Evaluate(t.Context(), p, fmt.Appendf(nil, "%d", i%100)); err != nil || !got.Compliant {
			t.Fatalf("%d: %+v, %v", i, got, err)
		}
	}
}

// TestNames: the names of a document's fields stay in CUE's memory for good. It
// must not add up to the limit.
func TestNames(t *testing.T) {
	t.Parallel()
	e := newEvaluator(t, "child", 1)
	name := strings.Repeat("x", 2<<20)
	for i := range 140 {
		got, err := e.Evaluate(t.Context(), anything[0], fmt.Appendf(nil, `{"%d%s": 1}`, i, name))
		if err != nil || !got.Compliant {
			t.Fatalf("%d: %+v, %v", i, got, err)
		}
	}
}

// TestLargeDocuments: there is a bound, and below it there is none.
func TestLargeDocuments(t *testing.T) {
	t.Parallel()
	e := newEvaluator(t, "child", 1)
	document := []byte(`"` + strings.Repeat("a", language.MaxDocument-2) + `"`)
	got, err := e.Evaluate(t.Context(), anything[2], document)
	if err != nil || !got.Compliant {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = e.Evaluate(t.Context(), anything[2], append(document, ' '))
	if v := verdict(t, got, err); v.Reason != policy.ReasonLimit || v.Message != "the document has more than 8 MiB" {
		t.Errorf("the verdict is %+v", v)
	}
}

// TestBadChildren: whatever a child says or does, it lets nothing in, and is not
// asked twice.
func TestBadChildren(t *testing.T) {
	t.Parallel()
	const notStarted, unexpected = "the evaluator of policies could not be started: ", "evaluating the policy failed unexpectedly"
	for role, want := range map[string]string{
		"rude": notStarted, "loud": notStarted, "gone": notStarted,
		"garbage": unexpected, "unknown field": unexpected, "unknown kind": unexpected, "huge": unexpected, "cut": unexpected,
		"killed": unexpected,
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "children")
			e := newEvaluator(t, role, 1, fileVariable+"="+path)
			for n := range 2 {
				got, err := e.Evaluate(t.Context(), anything[2], []byte(`{}`))
				if v := verdict(t, got, err); v.Reason != policy.ReasonInternal || !strings.HasPrefix(v.Message, want) {
					t.Errorf("the verdict is %+v", v)
				}
				if got := started(t, path); got != n+1 {
					t.Errorf("%d children were started", got)
				}
			}
		})
	}
	t.Run("hanging", func(t *testing.T) {
		t.Parallel()
		got, err := newHurried(t, "hanging").Evaluate(t.Context(), anything[2], []byte(`{}`))
		if v := verdict(t, got, err); v.Reason != policy.ReasonLimit {
			t.Errorf("the verdict is %+v", v)
		}
	})
	t.Run("no program", func(t *testing.T) {
		t.Parallel()
		for _, command := range [][]string{nil, {filepath.Join(t.TempDir(), "none")}} {
			e := language.New(language.Options{Command: command})
			got, err := e.Evaluate(t.Context(), anything[2], []byte(`{}`))
			e.Close()
			if v := verdict(t, got, err); v.Reason != policy.ReasonInternal || !strings.HasPrefix(v.Message, notStarted) {
				t.Errorf("the verdict is %+v", v)
			}
		}
	})
}

// TestEnvironment: a child has no environment but what it is given, and what it
// says is made fit to be shown.
func TestEnvironment(t *testing.T) {
	t.Setenv("PRATIQUE_TEST_SECRET", "hidden")
	got, err := newEvaluator(t, "telling", 1).Evaluate(t.Context(), anything[2], []byte(`{}`))
	if want := roleVariable + `=telling\x1b[31m`; err != nil || got.Message != want {
		t.Errorf("got %+v, %v; want %q", got, err, want)
	}
}

// TestClose ends what is being evaluated, and what comes later.
func TestClose(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "children")
	e := newEvaluator(t, "child", 1, fileVariable+"="+path)
	stillServes(t, e)
	ended := occupy(t.Context(), t, e)
	e.Close()
	if v := verdict(t, language.Result{}, <-ended); v.Reason != policy.ReasonInternal {
		t.Errorf("the verdict is %+v: nobody ended it", v)
	}
	wholly(t, path)
	got, err := e.Evaluate(t.Context(), anything[2], []byte(`{}`))
	if v := verdict(t, got, err); v.Reason != policy.ReasonInternal {
		t.Errorf("the verdict is %+v", v)
	}
	e.Close()
}

// TestOrphan: a child ends with its parent, whatever it is doing and however
// that ended.
func TestOrphan(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "children")
	o := options(t, "parent", 1, fileVariable+"="+path)
	parent := exec.CommandContext(t.Context(), o.Command[0])
	parent.Env = o.Env
	if err := parent.Run(); err == nil {
		t.Error("the parent did not kill itself")
	}
	wholly(t, path)
}

// wholly waits until no child holds the file any more.
func wholly(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}
