// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

func TestCheck(t *testing.T) {
	const good = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u","allowed":true,` +
		`"auditAnnotations":{"verdict":"Accepted"}}}`
	for _, tt := range []struct {
		name     string
		old, new string
		status   int
		patched  bool
		wrong    string // part of the error; empty for none
	}{
		{name: "good"},
		{name: "status", status: 503, wrong: "status 503"},
		{name: "no JSON", old: good, new: "ok", wrong: "reading"},
		{name: "kind", old: "AdmissionReview", new: "Review", wrong: "not an AdmissionReview"},
		{name: "no response", old: `"response"`, new: `"request"`, wrong: "not an AdmissionReview"},
		{name: "another uid", old: `"u"`, new: `"v"`, wrong: "uid"},
		{name: "denied", old: "true", new: "false", wrong: "not allowed"},
		{name: "not examined", old: "Accepted", new: "Skipped", wrong: "verdict"},
		{name: "warned", old: `"allowed"`, new: `"warnings":["w"],"allowed"`, wrong: "warnings"},
		{name: "patched", old: `"allowed"`, new: `"patch":"W10=","allowed"`, wrong: "patch"},
		{name: "not patched", patched: true, wrong: "patch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status := tt.status
			if status == 0 {
				status = 200
			}
			want := expected{uid: "u", verdict: "Accepted", patched: tt.patched}
			_, err := want.check(status, []byte(strings.Replace(good, tt.old, tt.new, 1)))
			if tt.wrong == "" && err != nil {
				t.Errorf("check = %v", err)
			}
			if tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
				t.Errorf("check = %v, want an error about %q", err, tt.wrong)
			}
		})
	}
}

func TestApply(t *testing.T) {
	images := []string{"h/a:1", "h/b:1"}
	const digest = "@sha256:00"
	got, err := apply([]byte(`[{"op":"replace","path":"/spec/containers/1/image","value":"h/b:1`+digest+`"},`+
		`{"op":"replace","path":"/spec/containers/0/image","value":"h/a:1`+digest+`"}]`), images)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"h/a:1" + digest, "h/b:1" + digest}, got); diff != "" {
		t.Error(diff)
	}
	for name, patch := range map[string]string{
		"one left out":  `[{"op":"replace","path":"/spec/containers/1/image","value":"h/b:1` + digest + `"}]`,
		"another image": `[{"op":"replace","path":"/spec/containers/0/image","value":"h/c:1` + digest + `"}]`,
		"elsewhere":     `[{"op":"replace","path":"/metadata/name","value":"x"}]`,
		"out of range":  `[{"op":"replace","path":"/spec/containers/2/image","value":"x"}]`,
		"added":         `[{"op":"add","path":"/spec/containers/0/image","value":"h/a:1` + digest + `"}]`,
		"malformed":     `{`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := apply([]byte(patch), images); err == nil {
				t.Errorf("apply = %q, want an error", got)
			}
		})
	}
}

func TestRow(t *testing.T) {
	for _, tt := range []struct {
		name string
		row  row
		want []string
	}{
		{"ratio within", atMost("", 1.5, micros).compared(1000, 1500, 1.5), []string{"1 µs", "2 µs", "1.50", "≤ 1.5 ×", "ok"}},
		{"ratio beyond", atMost("", 1.5, micros).compared(1000, 1600, 1.6), []string{"1 µs", "2 µs", "1.60", "≤ 1.5 ×", "NOT REACHED"}},
		{"too few", atLeast("", 0.6, whole).compared(10, 5, 0.5), []string{"10", "5", "0.50", "≥ 0.6 ×", "NOT REACHED"}},
		{"figure within", atMost("", 4, whole).measured(4), []string{"-", "4", "-", "≤ 4", "ok"}},
		{"figure beyond", atMost("", 4, whole).measured(5), []string{"-", "5", "-", "≤ 4", "NOT REACHED"}},
		{"told", told("", mebibytes).measured(3 << 20), []string{"-", "3 MiB", "-", "-", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.row.cells()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestReport makes sure that a count beyond its limit is an error, and a time
// is not.
func TestReport(t *testing.T) {
	slow := atMost("slow", 1, micros).compared(1, 2, 2)
	many := atMost("many", 4, whole).measured(5)
	many.counted = true
	b := &bench{out: io.Discard}
	if err := b.report(table{rows: []row{slow}}); err != nil {
		t.Errorf("report of a time that is not reached = %v", err)
	}
	if err := b.report(table{rows: []row{slow}}, table{rows: []row{many}}); !errors.Is(err, errTooMany) {
		t.Errorf("report of too many requests = %v, want %v", err, errTooMany)
	}
}

func TestCompare(t *testing.T) {
	u := &duel{}
	for _, pair := range [][2]float64{{1, 2}, {10, 11}, {2, 3}} { // ratios 2, 1.1, 1.5
		u.floor = append(u.floor, sample{perSecond: pair[0]})
		u.pratique = append(u.pratique, sample{perSecond: pair[1]})
	}
	floor, pratique, ratio := u.compare(func(s sample) float64 { return s.perSecond })
	if floor != 2 || pratique != 3 || ratio != 1.5 {
		t.Errorf("compare = %v, %v, %v, want 2, 3, 1.5", floor, pratique, ratio)
	}
}

func TestProcess(t *testing.T) {
	// A process that uses time until it is stopped.
	p, err := launch("busy", t.TempDir(), exec.Command("sh", "-c", "while :; do :; done"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	const enough = 50 * time.Millisecond
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		used, err := p.cpu()
		if err != nil {
			t.Fatal(err)
		}
		if used >= enough {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a busy process used %s", used)
		}
	}
	memory, err := resident("self")
	if err != nil {
		t.Fatal(err)
	}
	if memory < 1<<20 || memory > 16<<30 {
		t.Errorf("this process has %d bytes", memory)
	}
}

func TestWithin(t *testing.T) {
	var cleaned []int
	err := within(func(s *scope) error {
		s.Cleanup(func() { cleaned = append(cleaned, 1) })
		s.Cleanup(func() { cleaned = append(cleaned, 2) })
		s.Fatalf("no %s", "good")
		return nil
	})
	if err == nil || err.Error() != "no good" {
		t.Errorf("within = %v", err)
	}
	if diff := cmp.Diff([]int{2, 1}, cleaned); diff != "" {
		t.Error(diff)
	}
}

func TestFill(t *testing.T) {
	var out strings.Builder
	if err := fill(t.Context(), 1000, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"Verdicts":1000}`) {
		t.Errorf("fill printed %s", out.String())
	}
}

// TestJudge makes sure that an image which nobody signed is noticed when it is
// let in, whatever else the answer says.
func TestJudge(t *testing.T) {
	image := registrytest.Image{Registry: "h", Repository: "a", Tag: "1", Digest: "sha256:00"}
	answer := func(rest string) string {
		return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u",` + rest + `}}`
	}
	patch := func(to string) string {
		operations := `[{"op":"replace","path":"/spec/containers/0/image","value":"` + to + `"}]`
		return answer(`"allowed":true,"patch":"` + base64.StdEncoding.EncodeToString([]byte(operations)) + `"`)
	}
	for name, tt := range map[string]struct {
		path, written, answer string
		status                int
		left, wrong           string
	}{
		"let in, signed":    {validatePath, image.ByBoth(), answer(`"allowed":true`), 200, image.ByBoth(), ""},
		"denied":            {validatePath, image.ByTag(), answer(`"allowed":false`), 200, image.ByTag(), ""},
		"let in by tag":     {validatePath, image.ByTag(), answer(`"allowed":true`), 200, "", "let in"},
		"let in by another": {validatePath, image.ByTag() + "@sha256:11", answer(`"allowed":true`), 200, "", "let in"},
		"pinned":            {mutatePath, image.ByTag(), patch(image.ByBoth()), 200, image.ByBoth(), ""},
		"pinned to another": {mutatePath, image.ByTag(), patch("h/b:1@sha256:00"), 200, "", "was pinned"},
		"left alone":        {mutatePath, image.ByTag(), answer(`"allowed":true`), 200, image.ByTag(), ""},
		"another uid":       {validatePath, image.ByTag(), strings.Replace(answer(`"allowed":false`), `"u"`, `"v"`, 1), 200, "", "uid"},
		"no answer":         {validatePath, image.ByTag(), "gone", 200, "", "gone"},
		"an error":          {validatePath, image.ByTag(), answer(`"allowed":false`), 500, "", "status 500"},
	} {
		t.Run(name, func(t *testing.T) {
			a := attempt{path: tt.path, image: image, written: tt.written}
			left, err := a.judge(exchange{uid: "u", status: tt.status, answer: []byte(tt.answer)})
			if left != tt.left || (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("judge = %q, %v; want %q, %q", left, err, tt.left, tt.wrong)
			}
		})
	}
}

// TestGauges reads a server of the test's own, which is a process as good as
// any.
func TestGauges(t *testing.T) {
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "# TYPE go_goroutines gauge\ngo_goroutines 17\ngo_threads 3\n") // the client may be gone
	}))
	defer metrics.Close()
	p, err := launch("idle", t.TempDir(), exec.Command("sleep", "60"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	p.metrics = strings.TrimPrefix(metrics.URL, "http://")
	if n, err := p.goroutines(t.Context()); n != 17 || err != nil {
		t.Errorf("goroutines = %d, %v, want 17", n, err)
	}
	if err := p.resetPeak(); err != nil {
		t.Fatal(err)
	}
	if n, err := p.peak(); n <= 0 || n > 1<<30 || err != nil {
		t.Errorf("peak = %d, %v", n, err)
	}
}

func TestOthersRows(t *testing.T) {
	before := []times{{1, 10, 1, 10}, {1, 20, 1, 20}, {1, 30, 1, 30}}
	meanwhile := []times{{1, 10, 1, 30}, {1, 30, 1, 60}, {1, 90, 1, 60}} // ratios of the p99s: 1, 1.5, 3 and 3, 3, 2
	rows := othersRows(before, meanwhile)
	for i, want := range map[int]string{1: "1.50 ok", 3: "3.00 NOT REACHED"} {
		cells := rows[i].cells()
		if got := cells[2] + " " + cells[4]; got != want {
			t.Errorf("%s: %s, want %s", rows[i].what, got, want)
		}
	}
}

// TestFaultsHaveNames makes sure that each row is about one fault.
func TestFaultsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range faults {
		if f.name == "" || seen[f.name] {
			t.Errorf("fault %q is there twice", f.name)
		}
		seen[f.name] = true
	}
}
