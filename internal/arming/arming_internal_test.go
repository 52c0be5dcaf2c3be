// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package arming

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

const (
	hooks     = "pratique"
	namespace = "pratique-system"
)

// world is a cluster as far as an Armer sees it.
type world struct {
	client client.Client
	armer  *Armer
	bundle []byte
	asked  int   // for an answer
	answer error // nil: a replica answers
	leads  bool
}

func newWorld(t *testing.T, change func(*Options), objects ...client.Object) *world {
	t.Helper()
	w := &world{leads: true, bundle: authorityPEM(t)}
	w.client = fake.NewClientBuilder().WithObjects(objects...).Build()
	o := Options{
		Client: w.client, Name: hooks, Namespace: namespace, Wanted: wanted,
		Bundle: func(context.Context) ([]byte, error) { return w.bundle, nil },
		Answers: func(context.Context, []byte) error {
			w.asked++
			return w.answer
		},
		Leads: func() bool { return w.leads }, Report: func(bool, bool) {},
	}
	if change != nil {
		change(&o)
	}
	w.armer = New(o)
	return w
}

func authorityPEM(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func wanted(bundle []byte, spare bool) (*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	none := admissionregistrationv1.SideEffectClassNone
	config := admissionregistrationv1.WebhookClientConfig{
		Service: &admissionregistrationv1.ServiceReference{Namespace: namespace, Name: hooks}, CABundle: bundle,
	}
	var conditions []admissionregistrationv1.MatchCondition
	if spare {
		conditions = append(conditions, admissionregistrationv1.MatchCondition{Name: "changed", Expression: "true"})
	}
	m := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: hooks}}
	v := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: hooks}}
	for _, name := range []string{"pods.example", "others.example"} {
		m.Webhooks = append(m.Webhooks, admissionregistrationv1.MutatingWebhook{
			Name: name, ClientConfig: config, SideEffects: &none, AdmissionReviewVersions: []string{"v1"}, MatchConditions: conditions,
		})
		v.Webhooks = append(v.Webhooks, admissionregistrationv1.ValidatingWebhook{
			Name: name, ClientConfig: config, SideEffects: &none, AdmissionReviewVersions: []string{"v1"}, MatchConditions: conditions,
		})
	}
	return m, v, nil
}

// pass makes one, and fails the test unless it ends so.
func (w *world) pass(t *testing.T, want outcome, text string) {
	t.Helper()
	got, err := w.armer.pass(t.Context(), true)
	if got != want || (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
		t.Fatalf("got %s, %v; want %s, %q", got, err, want, text)
	}
}

func (w *world) there(t *testing.T) pair {
	t.Helper()
	p, err := read(t.Context(), w.client, hooks)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestFirstAnAnswer: nothing is made before a replica answers; then it stays,
// whether one answers or not, unless it is to lead elsewhere.
func TestFirstAnAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.answer = errors.New("nobody there")
	w.pass(t, unarmed, "nobody there")
	if p := w.there(t); p != (pair{}) {
		t.Fatalf("there is %v", p)
	}
	w.answer = nil
	w.pass(t, armed, "")
	w.answer, w.asked = errors.New("nobody there"), 0
	w.pass(t, armed, "")
	if w.asked != 0 {
		t.Error("it asks whether what is in force may be")
	}
	before := w.there(t)
	w.bundle = authorityPEM(t)
	// All else is put right meanwhile.
	if got, err := w.armer.pass(t.Context(), false); got != armed || err == nil || !strings.Contains(err.Error(), "nobody there") {
		t.Errorf("got %s, %v", got, err)
	}
	for i, p := range w.there(t) {
		for j, webhook := range webhooks(p) {
			if old := webhooks(before[i])[j]; !equal(clientConfig(webhook), clientConfig(old)) || old["matchConditions"] == nil || webhook["matchConditions"] != nil {
				t.Errorf("there is %v, before %v", webhook, old)
			}
		}
	}
	w.answer = nil
	w.pass(t, armed, "")
	if p := w.there(t); !bytes.Equal(caBundle(webhooks(p[1])[0]), w.bundle) {
		t.Error("the old authorities are in force")
	}
}

// TestMarker: with it nothing is there, and nothing is made.
func TestMarker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.pass(t, armed, "")
	off := Switch{Client: w.client, Name: hooks, Namespace: namespace, Deployment: "pratique"}
	ownerErr, err := off.Off(t.Context())
	if err != nil || ownerErr == nil {
		t.Fatalf("%v, and no word of the Deployment that is not there: %v", err, ownerErr)
	}
	if p := w.there(t); p != (pair{}) {
		t.Fatalf("there is %v", p)
	}
	w.pass(t, disarmed, "")
	// Somebody makes them again.
	m, _, _ := wanted(nil, false)
	if err := w.client.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	w.pass(t, disarmed, "")
	if p := w.there(t); p != (pair{}) {
		t.Fatalf("there is %v", p)
	}
	if err := off.On(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.pass(t, armed, "")
	if ok, err := off.Armed(t.Context()); !ok || err != nil {
		t.Error(ok, err)
	}
}

// TestMarkerMeanwhile: what is switched off while an answer is waited for is not
// made.
func TestMarkerMeanwhile(t *testing.T) {
	t.Parallel()
	var w *world
	w = newWorld(t, func(o *Options) {
		o.Answers = func(ctx context.Context, _ []byte) error {
			_, err := Switch{Client: w.client, Name: hooks, Namespace: namespace}.Off(ctx)
			return err
		}
	})
	w.pass(t, unarmed, "")
	if p := w.there(t); p != (pair{}) {
		t.Fatalf("there is %v", p)
	}
}

// TestOwner: both end with it; without it nothing is made.
func TestOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Owner = "pratique" })
	w.pass(t, unarmed, `ClusterRole "pratique"`)
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "pratique", UID: "one"}}
	if err := w.client.Create(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	w.pass(t, armed, "")
	for _, o := range w.there(t) {
		if owners := o.GetOwnerReferences(); len(owners) != 1 || owners[0].UID != "one" || owners[0].Kind != "ClusterRole" {
			t.Errorf("owners: %+v", owners)
		}
	}
	if err := w.client.Delete(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	w.pass(t, armed, `ClusterRole "pratique"`)
}

// TestNotTheLeader writes nothing once another leads.
func TestNotTheLeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.armer.o.Answers = func(context.Context, []byte) error {
		w.leads = false
		return nil
	}
	w.pass(t, unarmed, "another replica leads")
	if p := w.there(t); p != (pair{}) {
		t.Fatalf("there is %v", p)
	}
}

// TestCarried counts from when both configurations have an authority.
func TestCarried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	first, second := certificate(t, w.bundle), authorityPEM(t)
	w.answer = errors.New("nobody there")
	w.pass(t, unarmed, "nobody there")
	nowhere := w.armer.Carried(first)
	if nowhere.IsZero() {
		t.Error("no API server asks, and there is one that does not know it")
	}
	w.answer = nil
	w.pass(t, armed, "")
	since := w.armer.Carried(first)
	if since.IsZero() || !w.armer.Carried(certificate(t, second)).IsZero() {
		t.Error("one that is there is not, or one that is not is")
	}
	w.bundle = append(second, w.bundle...)
	w.pass(t, armed, "")
	if !w.armer.Carried(first).Equal(since) || w.armer.Carried(certificate(t, second)).Before(since) {
		t.Error("the one has begun again, or the other before its time")
	}
	// One webhook of one configuration is enough for it not to be so.
	p := w.there(t)
	setBundle(webhooks(p[0])[1], second)
	w.armer.carried.look(p)
	if !w.armer.Carried(first).IsZero() {
		t.Error("one webhook does not have it")
	}
	w.leads = false
	if !w.armer.Carried(certificate(t, second)).IsZero() {
		t.Error("who does not lead knows")
	}
}

func certificate(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestProbe: an answer is one over TLS, by the right authorities, that says yes.
func TestProbe(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	s := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/readyz" {
			t.Errorf("asked for %s %s", r.Method, r.URL)
		}
		rw.Header().Set("Location", "/elsewhere")
		rw.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	right := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	p := Probe{Host: s.Listener.Addr().String()}
	handshake := Probe{Host: p.Host, Clients: true}
	for _, p := range []Probe{p, handshake} {
		if err := p.Answers(t.Context(), right); err != nil {
			t.Error(err)
		}
		for name, bundle := range map[string][]byte{"another": authorityPEM(t), "none": nil, "nonsense": []byte("x")} {
			if err := p.Answers(t.Context(), bundle); err == nil {
				t.Errorf("%s: it answers", name)
			}
		}
		if err := (Probe{Host: "127.0.0.1:1", Clients: p.Clients}).Answers(t.Context(), right); err == nil {
			t.Error("nobody answers")
		}
	}
	for _, status = range []int{http.StatusServiceUnavailable, http.StatusFound, http.StatusNotFound} {
		if err := p.Answers(t.Context(), right); err == nil {
			t.Errorf("%d is an answer", status)
		}
	}
}

// TestUnreadable: what cannot be read is neither in force nor not, as far as
// anybody is told.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	var reports, lines []string
	failing := ""
	w := newWorld(t, func(o *Options) {
		o.Client = interceptor.NewClient(o.Client.(client.WithWatch), interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, into client.Object, opts ...client.GetOption) error {
				if key.Name == failing {
					return errors.New("cannot be read")
				}
				return c.Get(ctx, key, into, opts...)
			},
		})
		o.Spare = func() (bool, bool) { return true, true }
		o.Report = func(leads, armed bool) { reports = append(reports, fmt.Sprint(leads, armed)) }
	})
	ctx := logr.NewContext(t.Context(), funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{}))
	for _, step := range []struct {
		name    string
		change  func()
		reports []string
		logged  string
	}{
		{"it leads, and cannot read", func() { failing = hooks }, nil, "cannot tell whether the API server asks"},
		{"it can", func() { failing = "" }, []string{"true true"}, `"armed: `},
		{"it cannot any more", func() { failing = hooks }, nil, "cannot tell whether the API server asks"},
		{"but the switch", func() { failing = Marker }, []string{"true true"}, `"armed, but `},
		{"another leads", func() { w.leads = false }, []string{"false false"}, ""},
	} {
		reports, lines, w.armer.due = nil, nil, time.Time{}
		step.change()
		w.armer.turn(ctx)
		if diff := cmp.Diff(step.reports, reports); diff != "" {
			t.Errorf("%s: reports (-want +got):\n%s", step.name, diff)
		}
		if text := strings.Join(lines, "\n"); !strings.Contains(text, step.logged) || step.logged == "" && text != "" {
			t.Errorf("%s: logged %s", step.name, text)
		}
	}
}

// TestRun: a pass is made when something changes, and the log told once.
func TestRun(t *testing.T) {
	t.Parallel()
	changed := make(chan struct{}, 1)
	reports := make(chan bool, 100)
	w := newWorld(t, func(o *Options) {
		o.Changed = changed
		o.Spare = func() (bool, bool) { return true, true }
		o.Report = func(leads, armed bool) { reports <- leads && armed }
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.armer.Run(ctx) }()
	for !<-reports {
	}
	if err := w.client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: Marker}}); err != nil {
		t.Fatal(err)
	}
	changed <- struct{}{}
	select {
	case armed := <-reports:
		if armed {
			t.Error("still armed")
		}
	case <-time.After(repairEvery / 2):
		t.Error("nobody looked")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
