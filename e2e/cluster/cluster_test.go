// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/pratique-dev/pratique/e2e/cluster"
)

// manifests are a Deployment, whose Pod its controller has to make, and a Pod
// with an image volume, which API servers before 1.36 know only by feature gate.
const manifests = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "127.0.0.1:5000/acme/web:v1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: model, namespace: shop}
spec:
  containers: [{name: server, image: "127.0.0.1:5000/acme/server:v1"}]
  volumes: [{name: weights, image: {reference: "127.0.0.1:5000/acme/weights:v1"}}]
`

func TestStart(t *testing.T) {
	binary, err := cluster.FindBinary()
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if binary, err = filepath.Rel(here, binary); err != nil { // a relative path must do
		t.Fatal(err)
	}
	dir := t.TempDir()
	begin := time.Now()
	c, err := cluster.Start(t.Context(), cluster.Options{Binary: binary, Dir: dir, Scheduler: true, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			_ = c.Stop()
		}
	})
	t.Logf("ready after %.1f s", time.Since(begin).Seconds())

	pids := c.PIDs()
	if len(pids) != 4 {
		t.Errorf("components: %v, want four", pids)
	}
	must(t, c, "create", "namespace", "shop")
	// The default ServiceAccount of the namespace comes a moment after it.
	must(t, c, "wait", "--namespace=shop", "--for=create", "serviceaccount/default", "--timeout=30s")
	if stdout, stderr, exit := c.Apply(t.Context(), manifests); exit != 0 {
		t.Fatalf("apply: exit %d\n%s%s", exit, stdout, stderr)
	}
	must(t, c, "wait", "--namespace=shop", "--for=create", "pod", "--selector=app=web", "--timeout=30s")

	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	pods, err := client.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != 1 || len(pods.Items[0].OwnerReferences) != 1 || pods.Items[0].OwnerReferences[0].Kind != "ReplicaSet" {
		t.Errorf("Pods of the Deployment: %v, want one that a ReplicaSet owns", pods.Items)
	}
	model, err := client.CoreV1().Pods("shop").Get(t.Context(), "model", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if v := model.Spec.Volumes[0]; v.Image == nil || v.Image.Reference != "127.0.0.1:5000/acme/weights:v1" {
		t.Errorf("image volume was not stored: %+v", v)
	}
	unschedulable := func(p *corev1.Pod) bool {
		for _, condition := range p.Status.Conditions {
			if condition.Type == corev1.PodScheduled {
				return condition.Reason == corev1.PodReasonUnschedulable
			}
		}
		return false
	}
	for deadline := time.Now().Add(30 * time.Second); !unschedulable(model); {
		if time.Now().After(deadline) {
			t.Fatalf("the scheduler has not looked at the Pod: %+v", model.Status)
		}
		time.Sleep(100 * time.Millisecond)
		if model, err = client.CoreV1().Pods("shop").Get(t.Context(), "model", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	version := must(t, c, "version")
	if !strings.Contains(version, "Client Version: v1.36.") || !strings.Contains(version, "Server Version: v1.36.") {
		t.Errorf("kubectl version:\n%s", version)
	}
	kubectlFails(t, c)
	if pids = restarted(t, c, pids); pids == nil {
		return
	}

	begin = time.Now()
	stopped = true
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	t.Logf("stopped after %.1f s", time.Since(begin).Seconds())
	for name, pid := range pids {
		if !gone(pid) {
			t.Errorf("%s (process %d) is left", name, pid)
		}
	}
	for pid, line := range processesOf(t, dir) {
		t.Errorf("a process is left: %d %s", pid, line)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

// restarted restarts the API server and checks that it has become another
// process, with what was stored, beside the others.
func restarted(t *testing.T, c *cluster.Cluster, before map[string]int) (after map[string]int) {
	t.Helper()
	if err := c.RestartAPIServer(t.Context()); err != nil {
		t.Error(err)
		return nil
	}
	must(t, c, "get", "pod", "model", "--namespace=shop")
	after = c.PIDs()
	for name, pid := range after {
		if other := pid != before[name]; other != (name == "kube-apiserver") {
			t.Errorf("%s is process %d, before %d", name, pid, before[name])
		}
	}
	if !gone(before["kube-apiserver"]) || len(after) != len(before) {
		t.Errorf("processes %v, before %v", after, before)
	}
	return after
}

// kubectlFails checks what Kubectl returns when kubectl does not succeed.
func kubectlFails(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	if _, stderr, exit := c.Kubectl(t.Context(), "get", "pod", "nobody"); exit != 1 || !strings.Contains(stderr, "NotFound") {
		t.Errorf("kubectl get of nothing: exit %d, %q; want 1 and NotFound", exit, stderr)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, stderr, exit := c.Kubectl(ctx, "get", "pods", "--watch"); exit != -1 || !strings.Contains(stderr, "killed") {
		t.Errorf("kubectl past its context: exit %d, %q; want -1 and the reason", exit, stderr)
	}
}

// A killed parent takes its components along. The parent is this test binary.
func TestParentDies(t *testing.T) {
	if dir := os.Getenv("PRATIQUE_TEST_PARENT"); dir != "" {
		if _, err := cluster.Start(t.Context(), cluster.Options{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
	}

	if runtime.GOOS != "linux" {
		t.Skip("no other system ends a process with its parent")
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		for pid := range processesOf(t, dir) { // none, unless the test failed
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	var output bytes.Buffer
	parent := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestParentDies$", "-test.v")
	parent.Env = append(os.Environ(), "PRATIQUE_TEST_PARENT="+dir)
	parent.Stdout, parent.Stderr = &output, &output
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- parent.Wait() }()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("the parent ended: %v\n%s", err, output.String())
		default:
		}
		if time.Now().After(deadline) {
			_ = parent.Process.Kill()
			t.Fatal("the parent did not get ready")
		}
	}
	if n := len(processesOf(t, dir)); n != 3 {
		t.Errorf("%d components run, want 3", n)
	}

	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended //nolint:errcheck // it was killed
	for deadline := time.Now().Add(10 * time.Second); len(processesOf(t, dir)) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("outlived the parent: %v", processesOf(t, dir))
		}
	}
}

func TestStartFails(t *testing.T) {
	binary, err := cluster.FindBinary()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		options cluster.Options
		want    []string
	}{
		"no folder":      {cluster.Options{Binary: binary}, []string{"Options.Dir is empty"}},
		"no such binary": {cluster.Options{Binary: "/nonexistent/controlplane", Dir: t.TempDir()}, []string{"starting etcd", "no such file"}},
		// The error names the component and shows what it said.
		"bad flag": {
			cluster.Options{Binary: binary, Dir: t.TempDir(), APIServerArgs: []string{"--no-such-flag"}},
			[]string{"kube-apiserver ended by itself: exit status 1", "kube-apiserver.log", "unknown flag: --no-such-flag"},
		},
		"too slow": {
			cluster.Options{Binary: binary, Dir: t.TempDir(), ReadyTimeout: 500 * time.Millisecond},
			[]string{"waiting for /readyz", "not ready after 500ms", "kube-apiserver.log"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := cluster.Start(t.Context(), test.options)
			if err == nil {
				_ = c.Stop()
				t.Fatal("started")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
			if test.options.Dir == "" {
				return
			}
			for pid, line := range processesOf(t, test.options.Dir) {
				t.Errorf("a process is left: %d %s", pid, line)
			}
		})
	}
}

func TestFindBinary(t *testing.T) {
	t.Run("environment", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "controlplane")
		if err := os.WriteFile(file, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PRATIQUE_CONTROLPLANE", file)
		if got, err := cluster.FindBinary(); err != nil || got != file {
			t.Errorf("found %q, %v; want %q", got, err, file)
		}
		t.Setenv("PRATIQUE_CONTROLPLANE", file+".not")
		if got, err := cluster.FindBinary(); err == nil {
			t.Errorf("found %q, which is not there", got)
		}
	})
	t.Run("not built", func(t *testing.T) {
		root := t.TempDir()
		source := filepath.Join(root, "e2e", "controlplane")
		below := filepath.Join(root, "a", "b")
		for _, dir := range []string{source, below} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(source, "main.go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PRATIQUE_CONTROLPLANE", "")
		t.Chdir(below)
		if got, err := cluster.FindBinary(); err == nil || !strings.Contains(err.Error(), "make -C "+source+" build") {
			t.Errorf("found %q, %v; want an error with the command that builds it", got, err)
		}
		t.Chdir(t.TempDir())
		if got, err := cluster.FindBinary(); err == nil || !strings.Contains(err.Error(), "make -C e2e/controlplane build") {
			t.Errorf("found %q, %v; want an error with the command that builds it", got, err)
		}
	})
}

// The binary explains itself to whoever calls it by hand.
func TestUsage(t *testing.T) {
	binary, err := cluster.FindBinary()
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), binary, "docker").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !bytes.Contains(output, []byte("kube-apiserver")) {
		t.Errorf("controlplane docker: %v\n%s\nwant exit 2 and the components", err, output)
	}
}

func TestServingCert(t *testing.T) {
	cert, err := cluster.NewServingCert(t.TempDir(), "webhook.example")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert.CertFile, cert.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	defer server.Close()

	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cert.CAPEM) {
		t.Fatal("no certificate in CAPEM")
	}
	for name, ok := range map[string]bool{"127.0.0.1": true, "localhost": true, "webhook.example": true, "other.example": false} {
		conn, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{RootCAs: roots, ServerName: name})
		if (err == nil) != ok {
			t.Errorf("as %s: %v, want success: %t", name, err, ok)
		}
		if err == nil {
			conn.Close()
		}
	}
	for _, path := range []string{cert.CAFile, cert.CertFile, cert.KeyFile} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", path, info, err)
		}
	}
}

func must(t *testing.T, c *cluster.Cluster, args ...string) string {
	t.Helper()
	stdout, stderr, exit := c.Kubectl(t.Context(), args...)
	if exit != 0 {
		t.Fatalf("kubectl %s: exit %d\n%s%s", strings.Join(args, " "), exit, stdout, stderr)
	}
	return stdout
}

func gone(pid int) bool {
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// processesOf returns the command lines that have dir in them, by process id.
// It reads /proc, and finds nothing where there is none.
func processesOf(t *testing.T, dir string) map[int]string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]string{}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(line, []byte(dir)) {
			continue // an error means that it ended meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		found[pid] = string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
	}
	return found
}
