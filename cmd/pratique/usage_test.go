// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	bad := f.write(t, "bad.txt", "a: [")
	busy, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() })
	port := busy.Addr().String()
	verify := func(args ...string) []string { return append([]string{"verify", "x", "-f", f.policies}, args...) }
	serve := func(args ...string) []string { return append([]string{"serve", "--policies", f.policies}, args...) }
	config := func(name, content string) []string { return []string{"serve", "--config", f.write(t, name, content)} }
	const help, serveHelp = "\nhint: pratique verify --help", "\nhint: pratique serve --help"
	for name, test := range map[string]struct {
		args []string
		want string // … stands for what others say
	}{
		"no image":       {[]string{"verify", "-f", f.policies}, "no image to examine" + help},
		"files, cluster": {verify("--cluster"), "-f or --cluster, not both" + help},
		"unknown flag":   {[]string{"verify", "--no-such"}, "unknown flag: --no-such" + help},
		"unknown verb":   {[]string{"verfy"}, `unknown command "verfy"`},
		"output":         {[]string{"version", "-o", "xml"}, "must be text|json"},
		"version an arg": {[]string{"version", "now"}, "unexpected argument \"now\"\nhint: pratique version --help"},
		"serve an arg":   {[]string{"serve", "now"}, `unexpected argument "now"` + serveHelp},
		"mode":           {[]string{"serve", "--mode", "Observe"}, `"--mode" flag: must be Enforce|Audit` + serveHelp},

		"no folder":     {[]string{"serve", "--policies", "/no/such/folder"}, "--policies: …/no/such/folder"},
		"empty folder":  {[]string{"serve", "--policies", ""}, "--policies: it names no folder" + serveHelp},
		"config folder": {config("c0", "policies: ''"), "--policies: it names no folder"},
		"bad file":      {[]string{"verify", "x", "-f", bad}, "bad.txt"},
		"no file":       {[]string{"verify", "x", "-f", ""}, "-f: it names no file" + help},
		"file twice":    {verify("-f", f.policies), `-f: …ImageConfig "acme" is there twice`},

		"CIDR":               {verify("--registry-allow-cidrs", "10.0.0.0"), `--registry-allow-cidrs: "10.0.0.0" is not an address range such as 10.0.0.0/8`},
		"CA file":            {verify("--ca-file", bad), "--ca-file: " + bad + " holds no certificate"},
		"host with a scheme": {verify("--insecure-registries", "http://a.io"), `--insecure-registries: "http://a.io" is not`},
		"host with a path":   {verify("--insecure-registries", "a.io:5000,b.io/team"), `--insecure-registries: "b.io/team" is not`},
		"host with a slash":  {verify("--insecure-registries", "a.io/"), `--insecure-registries: "a.io/" is not`},
		"host with a user":   {verify("--insecure-registries", "me@a.io"), `--insecure-registries: "me@a.io" is not`},
		"host of one word":   {verify("--insecure-registries", "registry"), `--insecure-registries: "registry" is not`},
		"host's port":        {verify("--insecure-registries", "a.io:65536"), `--insecure-registries: "a.io:65536" is not`},
		"no host":            {verify("--insecure-registries", "a.io,"), `--insecure-registries: "" is not`},
		"namespace":          {verify("--namespace", "Nope"), `--namespace: "Nope" is not a namespace's name` + help},
		"no namespace":       {serve("--namespace", ""), `--namespace: "" is not a namespace's name` + serveHelp},
		"crossplane":         {serve("--crossplane-namespace", "a b"), `--crossplane-namespace: "a b" is not a namespace's name`},
		"for namespace":      {verify("-n", "a/b"), `-n: "a/b" is not a namespace's name`},
		"pull secret":        {verify("-n", "team", "--pull-secret", "a/b"), `--pull-secret: "a/b" is not a Secret's name`},
		"pull secret alone":  {verify("--pull-secret", "creds"), "--pull-secret needs -n" /* … */},
		"account":            {verify("-n", "team", "--service-account", "a/b"), `--service-account: "a/b" is not a ServiceAccount's name`},
		"account alone":      {verify("--service-account", "robot"), "--service-account needs -n" /* … */},
		"no time":            {verify("--timeout", "0s"), "--timeout: 0s" /* … */},
		"negative time":      {verify("--timeout", "-1s"), "--timeout: -1s" /* … */},
		"negative staleness": {serve("--stale-tags", "-5m"), "--stale-tags: -5m0s is negative" + serveHelp},

		"address":         {serve("--bind-address", "9443"), "--bind-address: address 9443: missing port"},
		"busy port":       {serve("--health-address", "0", "--metrics-address", port), "--metrics-address"},
		"clients":         {serve("--client-ca-file", "/no/such/file"), "--client-ca-file: open /no/such/file"},
		"bad clients":     {serve("--client-ca-file", bad), "--client-ca-file: …bad.txt holds no certificate"},
		"no clients":      {serve("--client-ca-file", ""), "--client-ca-file: it names no file" + serveHelp},
		"names alone":     {serve("--client-names", "a"), "--client-names needs --client-ca-file" /* … */},
		"no names":        {serve("--client-ca-file", bad, "--client-names", ""), `--client-names: an empty name in []` + serveHelp},
		"an empty name":   {serve("--client-ca-file", bad, "--client-names", "a,,b"), `--client-names: an empty name in ["a" "" "b"]` + serveHelp},
		"config names":    {config("c8", "client-names: [a]"), "--client-names needs --client-ca-file"},
		"config no name":  {config("c9", "client-ca-file: x\nclient-names: []"), "--client-names: an empty name"},
		"no certificates": {serve("--cert-dir", "/no/such/folder"), `--cert-dir "/no/such/folder": open`},

		"config":         {config("c1", "no-such: 1"), `no such flag: "no-such"`},
		"config value":   {config("c2", "mode: Observe"), `"--mode" flag: must be Enforce|Audit`},
		"config twice":   {config("c3", "mode: Audit\nmode: Enforce"), `"mode" already set`},
		"config a list":  {config("c4", "- mode"), "it must map flags to values"},
		"config a map":   {config("c5", "mode: {a: b}"), "mode: must be a value or a list"},
		"config a comma": {config("c6", "insecure-registries: ['a,b']"), "insecure-registries: a list's items must not hold commas"},
		"catalog":        {append(serve(), config("c7", "catalog: {rows: [{no: 1}]}")[1:]...), "reading the catalog"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := call(t, test.args...)
			if code != exitUsage {
				t.Errorf("exit code %d, want %d\n%s", code, exitUsage, stdout)
			}
			rest := stderr
			for part := range strings.SplitSeq(test.want, "…") {
				_, after, found := strings.Cut(rest, part)
				if !found {
					t.Errorf("%q; want %q", stderr, test.want)
				}
				rest = after
			}
		})
	}
}

// TestNoImageConfig: files that hold nothing to examine by are a mistake of
// whoever named them, and not a reason to skip everything.
func TestNoImageConfig(t *testing.T) {
	t.Parallel()
	empty, other := t.TempDir(), filepath.Join(t.TempDir(), "namespace.yaml")
	if err := os.WriteFile(other, []byte("{apiVersion: v1, kind: Namespace, metadata: {name: team}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := call(t, "verify", "registry.example.com/app:v1", "-f", empty, "-f", other)
	if want := fmt.Sprintf("no ImageConfig in %s, %s", empty, other); code != exitUsage || stderr != want {
		t.Errorf("exit code %d and %q; want %d and %q", code, stderr, exitUsage, want)
	}
}

// TestNoCluster: without files the cluster decides, and if there is none, the
// message says what was looked for, and which flag does without.
func TestNoCluster(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := "https://" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := write("empty", "")
	dead := write("dead", fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
  clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}]}`, away))
	missing := filepath.Join(folder, "missing")
	for name, test := range map[string]struct {
		kubeconfig string
		verb       []string
		want       []string
	}{
		"missing": {missing, []string{"verify", "x"}, []string{"KUBECONFIG names " + missing + ", which cannot be read\n", "\nhint: -f "}},
		"one of two": {
			empty + string(os.PathListSeparator) + missing, []string{"verify", "x", "--cluster"},
			[]string{"KUBECONFIG names " + missing + ", which"},
		},
		"empty":       {empty, []string{"verify", "x"}, []string{"neither KUBECONFIG nor ", "\nhint: -f "}},
		"serve":       {missing, []string{"serve"}, []string{missing, "\nhint: --policies "}},
		"unreachable": {dead, []string{"verify", "x"}, []string{"the API server at " + away + " cannot be reached: dial tcp"}},
		"serve alone": {dead, []string{"serve"}, []string{"the API server at " + away + " cannot be reached: dial tcp"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", test.kubeconfig)
			_, stderr, code := call(t, test.verb...)
			if code != exitUsage {
				t.Errorf("exit code %d", code)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("the error lacks %q: %s", want, stderr)
				}
			}
		})
	}
}

func TestConfigFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yaml")
	content := "mode: Audit\nunmatched: Deny\nstale-tags: 5m\ninsecure-registries: [a:1, b]\ncatalog: {rows: []}\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var f serveFlags
	c := newServeFor(&f)
	if err := c.ParseFlags([]string{"--unmatched=Warn", "--config=" + path}); err != nil {
		t.Fatal(err)
	}
	if err := f.readConfig(c); err != nil {
		t.Fatal(err)
	}
	if f.policyFlags.server.Mode != "Audit" || f.policyFlags.server.Unmatched != "Warn" || f.staleTags.Minutes() != 5 ||
		len(f.insecure) != 2 || len(f.catalog) != 1 {
		t.Errorf("got %+v", f)
	}
}

// TestConfigFileMistakes: all are told, in an order that does not change.
func TestConfigFileMistakes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("unmatched: Maybe\nno-such: 1\nbind-address: {}\nmode: Observe\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := call(t, "serve", "--config", path)
	want := []string{"bind-address", `"--mode"`, `"no-such"`, `"--unmatched"`}
	lines := strings.Split(stderr, "\n")
	if code != exitUsage || len(lines) != len(want) {
		t.Fatalf("exit code %d and\n%s", code, stderr)
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, "reading "+path+": ") || !strings.Contains(line, want[i]) {
			t.Errorf("line %d is %q, want %s", i, line, want[i])
		}
	}
}
