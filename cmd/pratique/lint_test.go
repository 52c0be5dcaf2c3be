// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy/containers/containerstest"
)

// lintFolder writes files and returns the folder that they are in.
func lintFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

const (
	lintedName  = "apiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: acme}\n"
	lintedGood  = lintedName + "spec:\n  matchImages: [{prefix: a.io/acme/}]\n"
	lintedKey   = "apiVersion: v1\nkind: Secret\nmetadata: {name: acme}\nstringData:\n  cosign.pub: nothing\n"
	lintedBySec = lintedGood + `  verification:
    provider: Cosign
    cosign:
      authorities:
      - name: release
        key:
          secretRef: {name: acme, key: cosign.pub}
`
	goodPolicy = `{"default": [{"type": "reject"}]}`
)

// TestLint: each kind of file is known by what it says, and its mistakes are told
// with their lines. DIR stands for the folder.
func TestLint(t *testing.T) {
	t.Parallel()
	gpgKey := base64.StdEncoding.EncodeToString(containerstest.NewGPG(t, containerstest.KeyOptions{}).Public(t))
	for name, test := range map[string]struct {
		files map[string]string
		args  []string // in the folder; the folder itself without any
		code  int
		want  string
	}{
		"good": {
			files: map[string]string{"acme.yaml": lintedGood, "policy.json": goodPolicy, "a.yaml": "docker: {}\n", "notes.txt": "x"},
			want:  "no mistakes in 3 files\n",
		},
		"one file": {files: map[string]string{"policy.json": goodPolicy}, args: []string{"policy.json"}, want: "no mistakes in 1 file\n"},
		"a file twice": {
			files: map[string]string{"policy.json": "{}"}, args: []string{"policy.json", "policy.json"}, code: exitUsage,
			want: "DIR/policy.json:1: error: the policy has no \"default\"; write \"default\": [{\"type\": \"reject\"}]\n1 error\n",
		},
		"policy": {
			files: map[string]string{"policy.json": "{\"default\": [{\"type\": \"reject\"}],\n\"transports\": {\"docker\": {\"busybox\": [{\"type\": \"rejct\"}]}}}"}, code: exitUsage,
			want: "DIR/policy.json:2: error: \"rejct\" is no type of requirement; write \"reject\"\n" +
				"DIR/policy.json:2: warning: the scope \"busybox\" never matches: it has no host; write \"docker.io/library/busybox\"\n1 error, 1 warning\n",
		},
		"broken policy":         {files: map[string]string{"x.json": "{\n"}, code: exitUsage, want: "DIR/x.json:1: error: the \"{\" is not closed; write } where it ends\n1 error\n"},
		"policy in YAML's name": {files: map[string]string{"x.yaml": goodPolicy}, want: "no mistakes in 1 file\n"},
		"registries.d": {
			files: map[string]string{
				"a.yaml": "docker:\n  a.io:\n    lookaside: http://s.io\n", "b.yaml": "docker:\n  a.io: {}\n", "c.yaml": "dockre: {}\n", "d.yml": "docker: {}\n",
			}, code: exitUsage,
			want: "DIR/a.yaml:3: warning: lookaside is without TLS: signatures cannot be forged on the way, but held back, or replaced by older ones; write https:// if the server has it\n" +
				"DIR/b.yaml:2: error: \"a.io\" is there twice: \"a.io\" in DIR/a.yaml:2 says it too; keep one\n" +
				"DIR/c.yaml:1: warning: the file knows no \"dockre\": it is passed over; write docker\n" +
				"DIR/d.yml: warning: not read: its name does not end in .yaml; name it *.yaml, or remove it\n1 error, 3 warnings\n",
		},
		"warnings alone": {
			files: map[string]string{"a.yaml": "default-docker: {sigstore: 'https://s.io'}\n"},
			want:  "DIR/a.yaml:1: warning: sigstore is the old name of lookaside; write lookaside\n1 warning\n",
		},
		"broken registries.d": {
			files: map[string]string{"a.yaml": "docker:\n\tx: y\n"}, code: exitUsage,
			want: "DIR/a.yaml:2: error: not YAML as it is meant: found character that cannot start any token\n1 error\n",
		},
		"unknown name": {
			files: map[string]string{"acme.yaml": "# of acme\n---\n" + lintedGood + "  modus: Audit\n  verificaton: {}\n"}, code: exitUsage,
			want: "DIR/acme.yaml:8: error: ImageConfig \"acme\": unknown field \"spec.modus\"\n" +
				"DIR/acme.yaml:9: error: ImageConfig \"acme\": unknown field \"spec.verificaton\"\n2 errors\n",
		},
		"invalid": {
			files: map[string]string{"acme.yaml": lintedName + "spec:\n  matchImages:\n  - prefix: a.io/\n  - prefix: https://b.io\n  mode: audit\n"}, code: exitUsage,
			want: "DIR/acme.yaml:7: error: ImageConfig \"acme\": spec.matchImages[1].prefix: Invalid value: \"https://b.io\": a prefix has no scheme: write the host first, without https://\n" +
				"DIR/acme.yaml:8: error: ImageConfig \"acme\": spec.mode: Unsupported value: \"audit\": supported values: \"Enforce\", \"Audit\"\n2 errors\n",
		},
		"prefix": {
			files: map[string]string{"acme.yaml": lintedName + "spec:\n  matchImages:\n  - prefix: a.io/acme\n  - prefix: b.io\n  - prefix: c.io/x/\n  - prefix: d.io/x:v1\n"},
			want:  "DIR/acme.yaml:6: warning: ImageConfig \"acme\": spec.matchImages[0].prefix: \"a.io/acme\" ends inside a component: it matches a.io/acme-other too; write \"a.io/acme/\" for all that is below it, or leave it for names that begin so\n1 warning\n",
		},
		"no secret": {
			files: map[string]string{"acme.yaml": lintedBySec},
			want:  "DIR/acme.yaml:12: warning: ImageConfig \"acme\": spec.verification.cosign.authorities[0].key.secretRef: secret \"acme\" does not exist in Pratique's namespace \"pratique-system\" (set by --namespace); name its manifest too, if it is not in the cluster\n1 warning\n",
		},
		"bad secret": {
			files: map[string]string{"acme.yaml": lintedBySec, "secret.yaml": lintedKey}, code: exitUsage,
			want: "DIR/acme.yaml:12: error: ImageConfig \"acme\": spec.verification.cosign.authorities[0].key.secretRef: secret \"acme\", key \"cosign.pub\": …\n1 error\n",
		},
		"bad key": {
			files: map[string]string{"acme.yaml": lintedGood + "  verification:\n    provider: Cosign\n    cosign:\n      authorities:\n      - name: release\n        key:\n          data: |\n            -----BEGIN PUBLIC KEY-----\n            AAAA\n            -----END PUBLIC KEY-----\n"}, code: exitUsage,
			want: "DIR/acme.yaml:12: error: ImageConfig \"acme\": spec.verification.cosign.authorities[0].key.data: …\n1 error\n",
		},
		"bad expression": {
			files: map[string]string{"acme.yaml": lintedGood + "  verification:\n    provider: Cosign\n    cosign:\n      authorities:\n      - name: release\n        keyless:\n          identities:\n          - issuer: https://i\n            subjectRegExp: (\n"}, code: exitUsage,
			want: "DIR/acme.yaml:14: error: ImageConfig \"acme\": spec.verification.cosign.authorities[0].keyless.identities[0].subjectRegExp: …\n1 error\n",
		},
		"requirements": {
			files: map[string]string{"acme.yaml": "---\n" + lintedGood + `  verification:
    provider: ContainersPolicy
    containersPolicy:
      requirements:
      - type: signedBy
        keyType: GPGKeys
        keyPath: secret://acme/key
        signedIdentity: {type: matchRespository}
      - type: sigstoreSigned
        keyPath: secret://acme
        signedIdentity: {type: matchRepository}
`}, code: exitUsage,
			want: "DIR/acme.yaml:14: error: ImageConfig \"acme\": \"matchRespository\" is no type of identity; write \"matchRepository\"\n" +
				"DIR/acme.yaml:16: error: ImageConfig \"acme\": \"secret://acme\" names no key of a Secret; write secret://name/key\n2 errors\n",
		},
		"requirements with their keys": {
			files: map[string]string{
				"acme.yaml": lintedGood + `  verification:
    provider: ContainersPolicy
    containersPolicy:
      requirements:
      - type: signedBy
        keyType: GPGKeys
        keyPath: secret://acme/key
`,
				"secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: acme, namespace: pratique-system}\ndata: {key: " + gpgKey + "}\n",
			},
			want: "no mistakes in 2 files\n",
		},
		"requirements with a bad key": {
			files: map[string]string{
				"acme.yaml":   lintedGood + "  verification:\n    provider: ContainersPolicy\n    containersPolicy:\n      requirements:\n      - {type: signedBy, keyType: GPGKeys, keyPath: \"secret://acme/key\"}\n",
				"secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: acme, namespace: pratique-system}\nstringData: {key: x}\n",
			}, code: exitUsage,
			want: "DIR/acme.yaml:10: error: ImageConfig \"acme\": spec.verification.containersPolicy.requirements[0].keyPath …\n1 error\n",
		},
		"a folder of signatures": {
			files: map[string]string{"a.yaml": "default-docker: {lookaside: \"file:///sigs\"}\n"},
			want:  "DIR/a.yaml:1: warning: lookaside: \"file:///sigs\" is a folder, and folders are read on the command line only; serve it, and write https://…\n1 warning\n",
		},
		"list": {
			files: map[string]string{"acme.yaml": "apiVersion: v1\nkind: List\nitems:\n- apiVersion: pratique.dev/v1alpha1\n  kind: ImageConfig\n  metadata: {name: acme}\n  spec:\n    matchImages: [{prefix: a.io/}]\n    more: x\n"}, code: exitUsage,
			want: "DIR/acme.yaml:9: error: ImageConfig \"acme\": unknown field \"spec.more\"\n1 error\n",
		},
		"JSON": {
			files: map[string]string{"acme.json": "{\"apiVersion\": \"pratique.dev/v1alpha1\", \"kind\": \"ImageConfig\", \"metadata\": {\"name\": \"acme\"},\n\"spec\": {\"matchImages\": [{\"prefix\": \"a.io/\"}],\n\t\"more\": 1}}"}, code: exitUsage,
			want: "DIR/acme.json:3: error: ImageConfig \"acme\": unknown field \"spec.more\"\n1 error\n",
		},
		"twice": {
			files: map[string]string{"a.yaml": lintedGood, "b.yaml": "# again\n---\n" + lintedGood}, code: exitUsage,
			want: "DIR/b.yaml:3: error: ImageConfig \"acme\" is there twice\n1 error\n",
		},
		"broken YAML": {
			files: map[string]string{"acme.yaml": lintedGood + "---\nkind: [\n"}, code: exitUsage,
			want: "DIR/acme.yaml:7: error: not YAML: …\n1 error\n",
		},
		"name twice": {
			files: map[string]string{"acme.yaml": lintedGood + "  mode: Audit\n  mode: Enforce\n"}, code: exitUsage,
			want: "DIR/acme.yaml:7: error: not YAML: key \"mode\" already set in map\n1 error\n",
		},
		"no such kind": {
			files: map[string]string{"acme.yaml": "apiVersion: pratique.dev/v1\nkind: ImageConfig\nmetadata: {name: acme}\n"}, code: exitUsage,
			want: "DIR/acme.yaml:1: error: there is no kind \"ImageConfig\" of \"pratique.dev/v1\"; write \"pratique.dev/v1alpha1\" and \"ImageConfig\"\n1 error\n",
		},
		"other manifests": {
			files: map[string]string{
				"a.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n",
				"b.yaml": "apiVersion: pkg.crossplane.io/v1beta1\nkind: ImageConfig\nmetadata: {name: x}\nspec: {}\n",
			},
			want: "no mistakes in 2 files\n",
		},
		"something else": {
			files: map[string]string{"a.yaml": "\nimage: x\n"}, code: exitUsage,
			want: "DIR/a.yaml:2: error: neither a Kubernetes object, which has apiVersion and kind, nor a policy.json or a file of registries.d\n1 error\n",
		},
		"nothing":      {files: map[string]string{"a.yaml": "# nothing\n"}, code: exitUsage, want: "DIR/a.yaml: error: no document in it: delete the file if nothing shall be there\n1 error\n"},
		"empty folder": {code: exitUsage, want: "DIR: error: no *.yaml, *.yml or *.json in it\n1 error\n"},
		"no such file": {files: map[string]string{"policy.json": goodPolicy}, args: []string{"policy.json", "none.json"}, code: exitUsage, want: "DIR/none.json: error: cannot be read: no such file or directory\n1 error\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := lintFolder(t, test.files)
			args := []string{"lint"}
			for _, arg := range test.args {
				args = append(args, filepath.Join(folder, arg))
			}
			if len(test.args) == 0 {
				args = append(args, folder)
			}
			stdout, stderr, code := call(t, args...)
			got := strings.ReplaceAll(stdout, folder, "DIR")
			if code != test.code || stderr != "" {
				t.Errorf("exit code %d, want %d; %q", code, test.code, stderr)
			}
			if !fits(got, test.want) {
				t.Errorf("(-want +got):\n%s", cmp.Diff(test.want, got))
			}
		})
	}
}

// fits compares texts in which … stands for what others say, on its line.
func fits(got, want string) bool {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	if len(g) != len(w) {
		return false
	}
	for i := range w {
		prefix, any := strings.CutSuffix(w[i], "…")
		if !strings.HasPrefix(g[i], prefix) || !any && g[i] != w[i] {
			return false
		}
	}
	return true
}

func TestLintStdin(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		input, want string
		code        int
	}{
		"policy":       {"{\"default\":\n[]}", "<stdin>:2: error: \"default\" asks nothing: its list is empty; write a list such as [{\"type\": \"reject\"}]\n1 error\n", exitUsage},
		"registries.d": {"docker:\n  A: {}\n", "<stdin>:2: warning: the namespace \"A\" never matches: it has no host; write one such as registry.example.com/team\n1 warning\n", exitOK},
		"manifest":     {lintedBySec + "---\n" + lintedGood, "<stdin>:14: error: ImageConfig \"acme\" is there twice\n1 error\n", exitUsage},
		"good":         {lintedGood, "no mistakes in 1 file\n", exitOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			l := &linter{namespace: "pratique-system", stdin: strings.NewReader(test.input)}
			if err := l.run(t.Context(), []string{"-"}); err != nil {
				t.Fatal(err)
			}
			code := exitOK
			if l.print(&out, outputText) != nil {
				code = exitUsage
			}
			if diff := cmp.Diff(test.want, out.String()); diff != "" || code != test.code {
				t.Errorf("exit code %d, want %d (-want +got):\n%s", code, test.code, diff)
			}
		})
	}
}

func TestLintJSON(t *testing.T) {
	t.Parallel()
	folder := lintFolder(t, map[string]string{"policy.json": "{\"default\": []}", "b.yaml": "docker: {x: }\n"})
	stdout, _, code := call(t, "lint", "-o", "json", folder)
	var got lintReport
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitUsage {
		t.Fatalf("exit code %d, %v in\n%s", code, err, stdout)
	}
	want := lintReport{Files: 2, Errors: 1, Warnings: 1, Problems: []lintProblem{
		{filepath.Join(folder, "b.yaml"), 1, "warning", `the namespace "x" never matches: it has no host`, `write "docker.io/library/x"`},
		{filepath.Join(folder, "policy.json"), 1, "error", `"default" asks nothing: its list is empty`, `write a list such as [{"type": "reject"}]`},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	stdout, _, code = call(t, "lint", "-o", "json", filepath.Join("..", "..", "examples", "policies"))
	if code != exitOK || !strings.Contains(stdout, `"problems": []`) {
		t.Errorf("exit code %d for the examples:\n%s", code, stdout)
	}
}

// TestLintKiOS: the sample policy of the kiOS documentation has five mistakes.
func TestLintKiOS(t *testing.T) {
	t.Parallel()
	stdout, _, code := call(t, "lint", filepath.Join("..", "..", "policy", "containers", "config", "testdata", "kios.json"))
	if code != exitUsage || !strings.HasSuffix(stdout, "\n5 errors\n") {
		t.Errorf("exit code %d and\n%s", code, stdout)
	}
}

func TestLintUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"lint"}, "no file to check\nhint: pratique lint --help"},
		{[]string{"lint", ""}, "no file to check\nhint: pratique lint --help"},
		{[]string{"lint", "x", "-o", "xml"}, "must be text|json"},
		{[]string{"lint", "x", "--namespace", "A"}, `--namespace: "A" is not a namespace's name`},
	} {
		if _, stderr, code := call(t, test.args...); code != exitUsage || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: exit code %d and %q, want %q", test.args, code, stderr, test.want)
		}
	}
}
