// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/pratique-dev/pratique/api/v1alpha1"
)

// valid is an object with nothing to complain of; the tests break one thing.
const valid = `{
  "apiVersion": "pratique.dev/v1alpha1",
  "kind": "ImageConfig",
  "metadata": {"name": "acme", "generation": 3},
  "spec": {
    "matchImages": [{"prefix": "registry1.com/acme-co/"}],
    "verification": {
      "provider": "Cosign",
      "cosign": {"authorities": [{
        "name": "release",
        "key": {"secretRef": {"name": "keys", "key": "cosign.pub"}},
        "annotations": {"stage": "prod"}
      }]}
    }
  },
  "status": {"conditions": [{"type": "Ready", "status": "True"}]}
}`

func TestDecode(t *testing.T) {
	got, err := v1alpha1.Decode([]byte(valid))
	if err != nil {
		t.Fatal(err)
	}
	want := &v1alpha1.ImageConfig{
		TypeMeta:   metav1.TypeMeta{APIVersion: "pratique.dev/v1alpha1", Kind: "ImageConfig"},
		ObjectMeta: metav1.ObjectMeta{Name: "acme", Generation: 3},
		Spec: v1alpha1.ImageConfigSpec{
			MatchImages: []v1alpha1.ImageMatch{{Type: v1alpha1.MatchPrefix, Prefix: "registry1.com/acme-co/"}},
			Mode:        v1alpha1.ModeEnforce,
			Verification: &v1alpha1.Verification{
				Provider: v1alpha1.ProviderCosign,
				Cosign: &v1alpha1.Cosign{Authorities: []v1alpha1.Authority{{
					Name: "release",
					Key: &v1alpha1.Key{
						SecretRef:     &v1alpha1.SecretKeyReference{Name: "keys", Key: "cosign.pub"},
						HashAlgorithm: v1alpha1.SHA256,
					},
					Annotations: map[string]string{"stage": "prod"},
				}}},
			},
		},
		Status: v1alpha1.ImageConfigStatus{Conditions: []metav1.Condition{{Type: "Ready", Status: "True"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if errs := got.Validate(); errs != nil {
		t.Errorf("Validate: %v", errs)
	}
}

func TestDecodeStrictly(t *testing.T) {
	for _, c := range []struct {
		name     string
		old, new string // what is broken in the valid object
		want     []string
	}{
		{"misspelt", `"annotations"`, `"annotatons"`, []string{`unknown field "spec.verification.cosign.authorities[0].annotatons"`}},
		{"other case", `"annotations"`, `"Annotations"`, []string{`unknown field "spec.verification.cosign.authorities[0].Annotations"`}},
		{"other case of spec", `"spec"`, `"Spec"`, []string{`unknown field "Spec"`, "spec: Required value"}},
		{"unknown beside spec", `"spec"`, `"specs": {}, "spec"`, []string{`unknown field "specs"`}},
		{"two mistakes", `"key": {"secretRef"`, `"ket": 1, "key": {"secretref"`, []string{
			`unknown field "spec.verification.cosign.authorities[0].ket"`,
			`unknown field "spec.verification.cosign.authorities[0].key.secretref"`,
		}},
		{"twice", `"annotations"`, `"annotations": {"a": "b"}, "annotations"`, []string{`duplicate field "spec.verification.cosign.authorities[0].annotations"`}},
		{"key of a map twice", `"stage": "prod"`, `"stage": "dev", "stage": "prod"`, []string{`duplicate field "spec.verification.cosign.authorities[0].annotations.stage"`}},
		{"spec twice", `"spec"`, `"spec": {}, "spec"`, []string{`duplicate field "spec"`}},
		{"kind twice", `"kind"`, `"kind": "Pod", "kind"`, []string{`duplicate field "kind"`}},
		{"twice, free of form", `"cosign": {`, `"containersPolicy": {"requirements": [{"type": "reject", "type": "insecureAcceptAnything"}]}, "cosign": {`, []string{
			`duplicate field "spec.verification.containersPolicy.requirements[0].type"`,
		}},
		{"null", `{"stage": "prod"}`, `null`, []string{"spec.verification.cosign.authorities[0].annotations: null: leave it out, or give it a value"}},
		{"null, free of form", `"cosign": {`, `"containersPolicy": {"requirements": [{"type": null}]}, "cosign": {`, []string{
			"spec.verification.containersPolicy.requirements[0].type: null",
		}},
		{"wrong type", `"prod"`, `17`, []string{"spec.verification.cosign.authorities.annotations: number where string is expected"}},
		{"list for text", `"provider": "Cosign"`, `"provider": ["Cosign"]`, []string{"spec.verification.provider: array where string is expected"}},
		{"spec is a list", `"spec": {`, `"spec": [], "rest": {`, []string{`unknown field "rest"`, "spec: array where object is expected"}},
		{"metadata is text", `{"name": "acme", "generation": 3}`, `"acme"`, []string{"metadata: string where object is expected"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := strings.Replace(valid, c.old, c.new, 1)
			if raw == valid {
				t.Fatalf("%q is not in the valid object", c.old)
			}
			got, err := v1alpha1.Decode([]byte(raw))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
			if n := strings.Count(err.Error(), "\n") + 1; n != len(c.want) {
				t.Errorf("%d problems, want %d:\n%v", n, len(c.want), err)
			}
			if got == nil {
				t.Error("no object: the images it names could not be held back")
			}
		})
	}
}

func TestDecodeNoImageConfig(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"empty", "", "unexpected end of JSON input"},
		{"not JSON", "apiVersion: pratique.dev/v1alpha1", "invalid character"},
		{"cut short", valid[:len(valid)-1], "unexpected end of JSON input"},
		{"something after it", valid + "{}", "after top-level value"},
		{"null", "null", `apiVersion "" and kind ""`},
		{"list", "[]", "cannot unmarshal array"},
		{"Crossplane's kind", strings.Replace(valid, "pratique.dev/v1alpha1", "pkg.crossplane.io/v1beta1", 1), `apiVersion "pkg.crossplane.io/v1beta1" and kind "ImageConfig"`},
		{"other kind", strings.Replace(valid, `"ImageConfig"`, `"imageconfig"`, 1), `kind "imageconfig"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := v1alpha1.Decode([]byte(c.raw))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if got != nil {
				t.Errorf("object %v, want none", got)
			}
		})
	}
}

// TestDecodeFromLaterVersions holds what is not Pratique's to names that this
// version does not know.
func TestDecodeFromLaterVersions(t *testing.T) {
	raw := strings.NewReplacer(
		`"generation": 3`, `"generation": 3, "shinyNewField": {"a": null}, "managedFields": [{"manager": "x", "new": 1}]`,
		`"status": {`, `"status": {"phase": "Happy", `,
		`"type": "Ready"`, `"type": "Ready", "severity": "low"`,
	).Replace(valid)
	got, err := v1alpha1.Decode([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if got.Generation != 3 || len(got.Status.Conditions) != 1 {
		t.Errorf("generation %d and conditions %v are lost", got.Generation, got.Status.Conditions)
	}
}

// TestTestdata judges, with this package alone, the table that is also sent to
// a real API server: good objects, bad ones that both refuse, and ones that an
// API server stores with an unknown name in them and only Decode refuses.
func TestTestdata(t *testing.T) {
	for _, dir := range []string{"good", "bad", "unknown"} {
		files, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
		if err != nil || len(files) < 10 {
			t.Fatalf("reading testdata/%s: %d files, %v", dir, len(files), err)
		}
		for _, file := range files {
			t.Run(dir+"/"+filepath.Base(file), func(t *testing.T) {
				judgeFile(t, dir, file)
			})
		}
	}
}

func judgeFile(t *testing.T, dir, file string) {
	t.Helper()
	raw, want := readObject(t, file)
	config, err := v1alpha1.Decode(raw)
	if config == nil {
		t.Fatalf("Decode: %v", err)
	}
	if (want == "") != (dir == "good") {
		t.Fatalf("the first line should be %q, in all but good objects", "# want: …")
	}
	switch dir {
	case "good":
		if err != nil || config.Validate() != nil {
			t.Errorf("Decode: %v\nValidate: %v", err, config.Validate())
		}
		if diff := cmp.Diff(config, config.DeepCopy()); diff != "" {
			t.Errorf("DeepCopy (-object +copy):\n%s", diff)
		}
	case "bad":
		problem := ""
		if err != nil {
			problem = err.Error()
		} else if errs := config.Validate(); errs != nil {
			problem = errs.ToAggregate().Error()
		}
		if !strings.Contains(problem, want) || problem == "" || strings.Contains(problem, `Invalid value: ""`) {
			t.Errorf("got %q, want %q", problem, want)
		}
	case "unknown":
		if err == nil || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("got %v, want %q alone", err, want)
		}
		if len(config.Spec.MatchImages) == 0 || config.Spec.MatchImages[0].Prefix == "" {
			t.Error("the images it names are not read")
		}
	}
}

// readObject returns a YAML file as JSON, and what its first line says is wanted.
func readObject(t *testing.T, file string) (raw []byte, want string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	if rest, ok := bytes.CutPrefix(line, []byte("# want: ")); ok {
		want = string(rest)
	}
	if raw, err = yaml.YAMLToJSONStrict(text); err != nil {
		t.Fatal(err)
	}
	return raw, want
}

func TestAsSelector(t *testing.T) {
	for _, c := range []struct {
		name     string
		selector *v1alpha1.LabelSelector
		labels   map[string]string
		want     bool
		wantErr  bool
	}{
		{name: "absent", want: true},
		{name: "empty", selector: &v1alpha1.LabelSelector{}, want: true},
		{name: "label", selector: &v1alpha1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, labels: map[string]string{"a": "b"}, want: true},
		{name: "other label", selector: &v1alpha1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, labels: map[string]string{"a": "c"}},
		{name: "expression", selector: exists("a"), labels: map[string]string{"a": ""}, want: true},
		{name: "expression, not met", selector: exists("a")},
		{name: "no label's name", selector: exists("a b"), wantErr: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.selector.AsSelector()
			if (err != nil) != c.wantErr {
				t.Fatalf("error %v", err)
			}
			if err == nil && got.Matches(labelSet(c.labels)) != c.want {
				t.Errorf("%v matches %v: want %t", got, c.labels, c.want)
			}
		})
	}
}

func exists(key string) *v1alpha1.LabelSelector {
	return &v1alpha1.LabelSelector{MatchExpressions: []v1alpha1.LabelSelectorRequirement{{Key: key, Operator: metav1.LabelSelectorOpExists}}}
}

// FuzzDecode looks for a panic, and for text that is accepted although it does
// not come out again as it went in.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(valid))
	f.Add([]byte(`{"apiVersion":"pratique.dev/v1alpha1","kind":"ImageConfig","spec":{"matchImages":[null]}}`))
	f.Add([]byte(`{"apiVersion":"pratique.dev/v1alpha1","kind":"ImageConfig","spec":{}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		config, err := v1alpha1.Decode(raw)
		if config == nil {
			return
		}
		if problems := config.Validate(); err != nil || problems != nil {
			return
		}
		again, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		second, err := v1alpha1.Decode(again)
		if err != nil {
			t.Fatalf("decoding what was encoded: %v\n%s", err, again)
		}
		if diff := cmp.Diff(config.Spec, second.Spec, cmp.Comparer(sameJSON)); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
}
