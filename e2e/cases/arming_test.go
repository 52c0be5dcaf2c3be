// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/env"
)

// webhookRights are the files in deploy/rbac that --manage-webhooks needs.
func webhookRights() []string { return []string{"webhooks-role.yaml", "webhooks.yaml"} }

// fleet is a control plane of its own with replicas that arm themselves, behind
// one address, as behind a Service.
type fleet struct {
	*cluster.Cluster

	client   *kubernetes.Clientset
	account  string
	front    net.Listener
	gate     atomic.Bool // shut: nobody is reached
	mu       sync.Mutex
	replicas map[string]*replica
	next     int
}

type replica struct {
	name, address, health string
	stop                  func() error
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{replicas: map[string]*replica{}}
	f.Cluster, f.account = newCluster(t)
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range webhookRights() {
		if _, stderr, exit := f.Kubectl(t.Context(), "apply", "-f", filepath.Join(root, "deploy", "rbac", file)); exit != 0 {
			t.Fatal(stderr)
		}
	}
	if f.client, err = kubernetes.NewForConfig(f.Config()); err != nil {
		t.Fatal(err)
	}
	if f.front, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.front.Close() })
	go f.route()
	return f
}

// route hands connections to the replicas that are ready, one after the other.
func (f *fleet) route() {
	for {
		from, err := f.front.Accept()
		if err != nil {
			return
		}
		go func() {
			to := f.dial()
			if to == nil {
				_ = from.Close()
				return
			}
			pipe(from, to)
		}()
	}
}

// dial connects to a replica that is ready; nil if there is none.
func (f *fleet) dial() net.Conn {
	if f.gate.Load() {
		return nil
	}
	f.mu.Lock()
	var all []*replica
	for _, r := range f.replicas {
		all = append(all, r)
	}
	f.next++
	next := f.next
	f.mu.Unlock()
	for i := range all {
		r := all[(i+next)%len(all)]
		if !(&env.Server{Health: r.health}).Ready(context.Background()) {
			continue
		}
		if to, err := net.Dial("tcp", r.address); err == nil {
			return to
		}
	}
	return nil
}

func pipe(a, b net.Conn) {
	copied := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			buffer := make([]byte, 32<<10)
			for {
				n, err := way[0].Read(buffer)
				if n > 0 {
					if _, err := way[1].Write(buffer[:n]); err != nil {
						break
					}
				}
				if err != nil {
					break
				}
			}
			copied <- struct{}{}
		}()
	}
	<-copied
	_, _ = a.Close(), b.Close()
	<-copied
}

// replica starts one that makes its certificate itself.
func (f *fleet) replica(t *testing.T, name string, args ...string) *replica {
	t.Helper()
	return f.start(t, name, append([]string{"--cert-secret", "pratique-certificates"}, args...)...)
}

// start starts a replica, which must be told of a certificate.
func (f *fleet) start(t *testing.T, name string, args ...string) *replica {
	t.Helper()
	ports, err := cluster.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{name: name, address: fmt.Sprintf("127.0.0.1:%d", ports[0]), health: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	args = append([]string{
		"serve", "--bind-address", r.address, "--health-address", r.health, "--metrics-address", "0", "--namespace", env.Namespace,
		"--manage-webhooks", "--webhook-url", "https://" + f.front.Addr().String(), "--webhook-owner", "pratique",
	}, args...)
	stop, err := f.Run(cluster.Program{Name: name, Binary: shared.Binary, Kubeconfig: f.account, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	r.stop = stop
	f.mu.Lock()
	f.replicas[name] = r
	f.mu.Unlock()
	return r
}

// end ends a replica by SIGTERM.
func (f *fleet) end(t *testing.T, r *replica) {
	t.Helper()
	f.mu.Lock()
	delete(f.replicas, r.name)
	f.mu.Unlock()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

// kill ends a replica by SIGKILL.
func (f *fleet) kill(t *testing.T, r *replica) {
	t.Helper()
	if err := syscall.Kill(f.PIDs()[r.name], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	delete(f.replicas, r.name)
	f.mu.Unlock()
	_ = r.stop() // says that it was killed
}

// log is what a replica has logged.
func (f *fleet) log(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(f.Log(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// configurations are both, nil if they are not there.
func (f *fleet) configurations(ctx context.Context) (*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	hooks := f.client.AdmissionregistrationV1()
	m, err := hooks.MutatingWebhookConfigurations().Get(ctx, "pratique", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		m, err = nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	v, err := hooks.ValidatingWebhookConfigurations().Get(ctx, "pratique", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		v, err = nil, nil
	}
	return m, v, err
}

// gone returns an error while one of them is there.
func (f *fleet) gone(ctx context.Context) error {
	m, v, err := f.configurations(ctx)
	if err == nil && (m != nil || v != nil) {
		err = errors.New("there is one")
	}
	return err
}

// ask has the API server ask about an image that every rule refuses, and
// returns an error unless the webhook has refused it.
func (f *fleet) ask(ctx context.Context) error {
	p := pod("probe", "no//reference")
	_, err := f.client.CoreV1().Pods("default").Create(ctx, p, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
		return errors.New("nobody was asked")
	case !strings.Contains(err.Error(), "invalid image reference"):
		return err
	}
	return nil
}

// pratique runs another verb of the program.
func (f *fleet) pratique(t *testing.T, args ...string) (output string, code int) {
	t.Helper()
	c := exec.CommandContext(t.Context(), shared.Binary, args...)
	c.Env = append(os.Environ(), "KUBECONFIG="+f.Kubeconfig)
	text, _ := c.CombinedOutput() // the exit code tells
	return string(text), c.ProcessState.ExitCode()
}

// TestArming follows an installation from its first replica to its end. The
// webhook configurations are there when somebody answers, and not before; whatever
// is done to them is undone; they are gone when they should be.
func TestArming(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.gate.Store(true)
	one := f.replica(t, "one")
	f.eventually(t, "it waits for an answer", func(context.Context) error {
		if !strings.Contains(f.log(t, "one"), "waiting for a replica that answers") {
			return errors.New("it says nothing of it")
		}
		return f.gone(t.Context())
	})
	// Nobody is locked out meanwhile.
	if _, err := f.client.CoreV1().Pods("default").Create(t.Context(), pod("before", "no//reference"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.gate.Store(false)
	f.eventually(t, "the webhook is asked", f.ask)
	f.owned(t)
	// It did that without the right to make any others.
	for _, right := range [][]string{
		{"create", "validatingwebhookconfigurations"}, {"create", "mutatingwebhookconfigurations/another"}, {"list", "validatingwebhookconfigurations"},
		{"create", "secrets", "-n", env.Namespace}, {"update", "secrets/another", "-n", env.Namespace}, {"delete", "secrets/pratique-certificates", "-n", env.Namespace},
		{"create", "configmaps/pratique-disarmed", "-n", env.Namespace}, {"get", "clusterroles/cluster-admin"},
	} {
		if _, _, exit := f.Kubectl(t.Context(), append([]string{"auth", "can-i", "--as", env.AccountUser}, right...)...); exit == 0 {
			t.Errorf("it may %q", right)
		}
	}

	f.repairs(t)

	// With nobody there, both stay, and nothing comes in.
	f.end(t, one)
	if err := f.ask(t.Context()); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("with nobody there: %v", err)
	}
	// A second start finds its certificate, and needs nobody's hand.
	two := f.replica(t, "two")
	f.eventually(t, "the webhook is asked again", f.ask)
	if text := f.log(t, "two"); strings.Contains(text, "wrote the webhook's certificates") {
		t.Errorf("it made another certificate:\n%s", text)
	}
	f.switches(t)

	// Uninstalling takes the ClusterRole away, and the configurations with it.
	if _, stderr, exit := f.Kubectl(t.Context(), "delete", "clusterrole", "pratique"); exit != 0 {
		t.Fatal(stderr)
	}
	f.eventually(t, "both are gone with their owner", f.gone)
	for range 5 {
		time.Sleep(time.Second) // long enough for the replica to make them again
		if err := f.gone(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.end(t, two)
	for _, name := range []string{"one", "two"} {
		text := f.log(t, name)
		if name == "two" { // whose rights have been taken away in the end
			text, _, _ = strings.Cut(text, "reading the owner of the webhook configurations")
		}
		if strings.Contains(text, "forbidden") {
			t.Errorf("%s was refused something:\n%s", name, text)
		}
	}
}

// eventually is that of the world, with this fleet's patience.
func (f *fleet) eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	// A lease that was not given back is another's after 15 s.
	shared.eventually(t, 60*time.Second, what, check)
}

// owned checks whose the configurations are.
func (f *fleet) owned(t *testing.T) {
	t.Helper()
	role, err := f.client.RbacV1().ClusterRoles().Get(t.Context(), "pratique", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m, v, err := f.configurations(t.Context())
	if err != nil || m == nil || v == nil {
		t.Fatal(err)
	}
	for _, o := range []metav1.Object{m, v} {
		if owners := o.GetOwnerReferences(); len(owners) != 1 || owners[0].UID != role.UID {
			t.Errorf("owners: %+v", owners)
		}
	}
}

// repairs changes the configurations by hand.
func (f *fleet) repairs(t *testing.T) {
	t.Helper()
	const m, v = "mutatingwebhookconfiguration", "validatingwebhookconfiguration"
	wanted := f.webhooks(t)
	for name, args := range map[string][]string{
		"never asked":     {"patch", v, "pratique", "--type=json", "-p", `[{"op":"add","path":"/webhooks/0/matchConditions/-","value":{"name":"never","expression":"false"}}]`},
		"not for these":   {"patch", v, "pratique", "--type=json", "-p", `[{"op":"add","path":"/webhooks/0/objectSelector","value":{"matchLabels":{"no":"body"}}}]`},
		"not for one":     {"patch", m, "pratique", "--type=json", "-p", `[{"op":"add","path":"/webhooks/0/namespaceSelector/matchExpressions/0/values/-","value":"default"}]`},
		"lets in":         {"patch", v, "pratique", "--type=json", "-p", `[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]`},
		"no authorities":  {"patch", v, "pratique", "--type=json", "-p", `[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}]`},
		"leads elsewhere": {"patch", v, "pratique", "--type=json", "-p", `[{"op":"replace","path":"/webhooks/0/clientConfig/url","value":"https://127.0.0.1:1/validate"}]`},
		"no webhooks":     {"patch", m, "pratique", "--type=json", "-p", `[{"op":"replace","path":"/webhooks","value":[]}]`},
		"one deleted":     {"delete", v, "pratique"},
		"both deleted":    {"delete", v + "," + m, "pratique"},
	} {
		if _, stderr, exit := f.Kubectl(t.Context(), args...); exit != 0 {
			t.Fatalf("%s: %s", name, stderr)
		}
		f.eventually(t, name+": repaired", func(context.Context) error {
			if got := f.webhooks(t); got != wanted {
				return fmt.Errorf("there is\n%s\nand should be\n%s", got, wanted)
			}
			return nil
		})
		f.eventually(t, name+": asked", f.ask)
	}
}

// webhooks are those of both configurations, as text.
func (f *fleet) webhooks(t *testing.T) string {
	t.Helper()
	m, v, err := f.configurations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m == nil || v == nil {
		return ""
	}
	text, err := json.Marshal([]any{m.Webhooks, v.Webhooks})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// switches turns the webhook off and on.
func (f *fleet) switches(t *testing.T) {
	t.Helper()
	if output, code := f.pratique(t, "disarm"); code != 0 || !strings.Contains(output, "disarmed") || !strings.Contains(output, `Deployment "pratique" cannot be read`) {
		t.Fatalf("disarm: exit code %d and\n%s", code, output)
	}
	if err := f.gone(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.eventually(t, "nobody is asked", func(ctx context.Context) error {
		if err := f.ask(ctx); err == nil || err.Error() != "nobody was asked" {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	f.eventually(t, "the log says so", func(context.Context) error {
		if !strings.Contains(f.log(t, "two"), "disarmed: the API server does not ask this webhook") {
			return errors.New("it does not")
		}
		return f.gone(t.Context())
	})
	if output, code := f.pratique(t, "arm"); code != 0 || !strings.Contains(output, "armed") {
		t.Fatalf("arm: exit code %d and\n%s", code, output)
	}
	f.eventually(t, "the webhook is asked", f.ask)
	// The marker alone does the same.
	marker := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "pratique-disarmed"}}
	if _, err := f.client.CoreV1().ConfigMaps(env.Namespace).Create(t.Context(), marker, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.eventually(t, "the marker alone disarms", f.gone)
	if output, code := f.pratique(t, "arm", "--namespace", "another", "--wait", "1s"); code != 3 {
		t.Errorf("arm, elsewhere: exit code %d and\n%s", code, output)
	}
	if output, code := f.pratique(t, "arm"); code != 0 {
		t.Fatalf("arm: exit code %d and\n%s", code, output)
	}
}

// patch changes the Secret of the certificates.
func (f *fleet) patch(t *testing.T, data string) {
	t.Helper()
	_, err := f.client.CoreV1().Secrets(env.Namespace).Patch(t.Context(), "pratique-certificates", types.MergePatchType,
		[]byte(`{"data":`+data+`}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}
