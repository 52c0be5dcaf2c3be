// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/env"
)

// actLabel is what a Pod says of how the second webhook is to change it.
const actLabel = "e2e.pratique.dev/act"

// act is what somebody else's mutating webhook does to a Pod.
type act struct {
	do func(*corev1.Pod)
	// again says that it wants to be asked again when others have changed the Pod.
	again bool
}

// latecomer is a mutating webhook of somebody else, which comes after Pratique's.
type latecomer struct {
	*room

	signed, later, unsigned string // by tag; the first two are signed
	pinned, laterPinned     string // by tag and digest
	unsignedPinned          string
	acts                    map[string]act
}

// newLatecomer starts it, in front of a room that a server with the usual webhook
// configurations governs.
func newLatecomer(t *testing.T) *latecomer {
	t.Helper()
	// API servers ask in the order of the configurations' names: "first" comes
	// before "second-…".
	server := shared.beside(t, env.ServerOptions{Name: "first", Spare: true})
	s := &latecomer{room: newRoom(t, env.OtherServer+"="+server.Name)}
	s.policy(t, "", keyed(s.prefix(), s.key))
	signed, later, unsigned := s.room.signed(t, "signed:v1"), s.room.signed(t, "later:v1"), s.room.unsigned(t, "unsigned:v1")
	s.signed, s.pinned = signed.ByTag(), signed.ByBoth()
	s.later, s.laterPinned = later.ByTag(), later.ByBoth()
	s.unsigned, s.unsignedPinned = unsigned.ByTag(), unsigned.ByBoth()
	s.acts = s.all()
	url, authorities := s.serve(t)
	s.arm(t, url, authorities)
	return s
}

// all are the acts, by the value of actLabel. But for those that come again they
// are as well-behaved as they can be: they do nothing twice.
func (s *latecomer) all() map[string]act {
	sidecar := func(image string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers = once(p.Spec.Containers, corev1.Container{Name: "sidecar", Image: image})
		}
	}
	initial := func(image string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.InitContainers = once(p.Spec.InitContainers, corev1.Container{Name: "init", Image: image})
		}
	}
	volume := func(image string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			if !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Image != nil }) {
				p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
					Image: &corev1.ImageVolumeSource{Reference: image},
				}})
			}
		}
	}
	debug := func(image string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			if len(p.Spec.EphemeralContainers) == 1 { // the user's own
				p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{
					EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "more", Image: image},
				})
			}
		}
	}
	replace := func(image string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Containers[0].Image = image }
	}
	return map[string]act{
		"nothing":            {do: func(*corev1.Pod) {}},
		"container":          {do: sidecar(s.later)},
		"container-unsigned": {do: sidecar(s.unsigned)},
		"container-forged":   {do: sidecar(s.unsignedPinned)},
		"init":               {do: initial(s.later)},
		"init-unsigned":      {do: initial(s.unsigned)},
		"volume":             {do: volume(s.later)},
		"volume-unsigned":    {do: volume(s.unsigned)},
		"debug":              {do: debug(s.later)},
		"debug-unsigned":     {do: debug(s.unsigned)},
		"unpin":              {do: replace(s.signed)},
		"swap":               {do: replace(s.later)},
		"swap-pinned":        {do: replace(s.laterPinned)},
		"swap-unsigned":      {do: replace(s.unsigned)},
		"forge":              {do: replace(s.unsignedPinned)},
		"invalid":            {do: replace("no//reference")},
		// These come after Pratique again, however often it is asked.
		"again-unpin":              {do: replace(s.signed), again: true},
		"again-forge":              {do: replace(s.unsignedPinned), again: true},
		"again-container":          {do: sidecar(s.later), again: true},
		"again-container-unsigned": {do: sidecar(s.unsigned), again: true},
		"again-appends":            {do: appends(s.later), again: true},
	}
}

// once adds a container unless there is one of its name.
func once(list []corev1.Container, c corev1.Container) []corev1.Container {
	if slices.ContainsFunc(list, func(have corev1.Container) bool { return have.Name == c.Name }) {
		return list
	}
	return append(list, c)
}

// appends adds one more container each time.
func appends(image string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprintf("more%d", len(p.Spec.Containers)), Image: image})
	}
}

// serve answers at /<act> and returns the URL in front of that, and what to
// believe it by.
func (s *latecomer) serve(t *testing.T) (url string, authorities []byte) {
	t.Helper()
	cert, err := cluster.NewServingCert(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert.CertPEM, cert.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(s.answer))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, cert.CAPEM
}

func (s *latecomer) answer(w http.ResponseWriter, r *http.Request) {
	var asked admissionv1.AdmissionReview
	var p corev1.Pod
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Request == nil {
		http.Error(w, "no review", http.StatusBadRequest)
		return
	}
	if err := json.Unmarshal(asked.Request.Object.Raw, &p); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	before := p.DeepCopy()
	s.acts[strings.TrimPrefix(r.URL.Path, "/")].do(&p)
	response := &admissionv1.AdmissionResponse{UID: asked.Request.UID, Allowed: true}
	if !cmp.Equal(before.Spec, p.Spec) {
		patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/spec", "value": p.Spec}})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		response.Patch, response.PatchType = patch, new(admissionv1.PatchTypeJSONPatch)
	}
	_ = json.NewEncoder(w).Encode(admissionv1.AdmissionReview{TypeMeta: asked.TypeMeta, Response: response})
}

// arm has the API server ask it, after Pratique, about the room's Pods that ask
// for an act.
func (s *latecomer) arm(t *testing.T, url string, authorities []byte) {
	t.Helper()
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "second-" + s.namespace}}
	for _, name := range slices.Sorted(maps.Keys(s.acts)) {
		policy := admissionregistrationv1.NeverReinvocationPolicy
		if s.acts[name].again {
			policy = admissionregistrationv1.IfNeededReinvocationPolicy
		}
		configuration.Webhooks = append(configuration.Webhooks, admissionregistrationv1.MutatingWebhook{
			Name:         name + ".others.example",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: new(url + "/" + name), CABundle: authorities},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods", "pods/ephemeralcontainers"}},
			}},
			FailurePolicy:           new(admissionregistrationv1.Fail),
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": s.namespace}},
			ObjectSelector:          &metav1.LabelSelector{MatchLabels: map[string]string{actLabel: name}},
			SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
			ReinvocationPolicy:      &policy,
		})
	}
	hooks := s.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	if _, err := hooks.Create(t.Context(), configuration, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hooks.Delete(context.Background(), configuration.Name, metav1.DeleteOptions{}) })
	s.eventually(t, settled, "the second webhook is asked", func(ctx context.Context) error {
		got := s.try(ctx, s.asking("invalid"))
		if got.err == nil || !strings.Contains(got.err.Error(), "invalid image reference") {
			return fmt.Errorf("it is not: %w", got.err)
		}
		return nil
	})
}

// asking is a Pod of one signed image, by tag, that asks for an act.
func (s *latecomer) asking(name string) *corev1.Pod {
	p := pod(name, s.signed)
	p.Labels = map[string]string{actLabel: name}
	return p
}

// everyImage lists all images of a Pod.
func everyImage(p *corev1.Pod) []string {
	images := imagesOf(p)
	for _, c := range p.Spec.InitContainers {
		images = append(images, c.Image)
	}
	for _, c := range p.Spec.EphemeralContainers {
		images = append(images, c.Image)
	}
	for _, v := range p.Spec.Volumes {
		if v.Image != nil {
			images = append(images, v.Image.Reference)
		}
	}
	return images
}

// TestSecondWebhook: whatever a mutating webhook does that comes after Pratique's,
// what is stored is pinned and was examined, or nothing is stored.
func TestSecondWebhook(t *testing.T) {
	t.Parallel()
	s := newLatecomer(t)
	for name, c := range map[string]struct {
		images []string // as stored
		code   int32    // or how it is refused
		texts  []string
	}{
		"nothing":            {images: []string{s.pinned}},
		"container":          {images: []string{s.pinned, s.laterPinned}},
		"container-unsigned": {code: rejected, texts: []string{"spec.containers[1].image: " + s.unsignedPinned, "no signature"}},
		"container-forged":   {code: rejected, texts: []string{"spec.containers[1].image: " + s.unsignedPinned, "no signature"}},
		"init":               {images: []string{s.pinned, s.laterPinned}},
		"init-unsigned":      {code: rejected, texts: []string{"spec.initContainers[0].image: " + s.unsignedPinned, "no signature"}},
		"volume":             {images: []string{s.pinned, s.laterPinned}},
		"volume-unsigned":    {code: rejected, texts: []string{"spec.volumes[1].image.reference: " + s.unsignedPinned, "no signature"}},
		"unpin":              {images: []string{s.pinned}},
		"swap":               {images: []string{s.laterPinned}},
		"swap-pinned":        {images: []string{s.laterPinned}},
		"swap-unsigned":      {code: rejected, texts: []string{"spec.containers[0].image: " + s.unsignedPinned, "no signature"}},
		"forge":              {code: rejected, texts: []string{"spec.containers[0].image: " + s.unsignedPinned, "no signature"}},

		"again-unpin":              {code: rejected, texts: []string{"spec.containers[0].image: " + s.signed, "not pinned"}},
		"again-forge":              {code: rejected, texts: []string{"spec.containers[0].image: " + s.unsignedPinned, "no signature"}},
		"again-container":          {images: []string{s.pinned, s.laterPinned}},
		"again-container-unsigned": {code: rejected, texts: []string{"spec.containers[1].image: " + s.unsignedPinned, "no signature"}},
		"again-appends":            {code: rejected, texts: []string{"spec.containers[2].image: " + s.later, "not pinned"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.create(t.Context(), s.asking(name))
			stored, err := s.client.CoreV1().Pods(s.namespace).Get(t.Context(), name, metav1.GetOptions{})
			if c.code != 0 {
				got.refused(t, c.code, c.texts...)
				if err == nil {
					t.Errorf("it is there, with %q", everyImage(stored))
				}
				return
			}
			if got.err != nil || err != nil {
				t.Fatalf("refused: %v", errors.Join(got.err, err))
			}
			if diff := cmp.Diff(c.images, everyImage(stored)); diff != "" {
				t.Errorf("images (-want +stored):\n%s", diff)
			}
		})
	}
	t.Run("ephemeral", s.ephemeral)
	t.Run("update", s.update)
}

// ephemeral: the second webhook adds one more ephemeral container to that which a
// user adds.
func (s *latecomer) ephemeral(t *testing.T) {
	for name, texts := range map[string][]string{
		"debug": nil, "debug-unsigned": {"spec.ephemeralContainers[1].image: " + s.unsignedPinned, "no signature"},
	} {
		p := s.create(t.Context(), s.asking(name)).admitted(t, s.pinned)
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: s.signed}}}
		_, err := s.client.CoreV1().Pods(s.namespace).UpdateEphemeralContainers(t.Context(), name, p, metav1.UpdateOptions{})
		want := []string{s.pinned}
		if texts != nil {
			refused(t, err, rejected, texts...)
		} else {
			want = []string{s.pinned, s.pinned, s.laterPinned}
			if err != nil {
				t.Fatal(err)
			}
		}
		stored, err := s.client.CoreV1().Pods(s.namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, everyImage(stored)); diff != "" {
			t.Errorf("%s: images (-want +stored):\n%s", name, diff)
		}
	}
}

// update: a user changes a label, of which Pratique's mutating webhook is not told
// (see spare_test.go), and the second webhook changes an image. What API servers
// have not asked about in the first round they do not ask about in the second, so
// it is validation that has to notice.
func (s *latecomer) update(t *testing.T) {
	for name, c := range map[string]struct {
		image string // as stored, if it is another
		texts []string
	}{
		"nothing":       {},
		"unpin":         {texts: []string{"spec.containers[0].image: " + s.signed, "not pinned"}},
		"swap":          {texts: []string{"spec.containers[0].image: " + s.later, "not pinned"}},
		"swap-pinned":   {image: s.laterPinned},
		"swap-unsigned": {texts: []string{"spec.containers[0].image: " + s.unsigned, "not pinned"}},
		"forge":         {texts: []string{"spec.containers[0].image: " + s.unsignedPinned, "no signature"}},
		"again-unpin":   {texts: []string{"spec.containers[0].image: " + s.signed, "not pinned"}},
	} {
		old := "old-" + name
		s.create(t.Context(), pod(old, s.signed)).admitted(t, s.pinned)
		got := s.room.update(t.Context(), old, func(p *corev1.Pod) { p.Labels = map[string]string{actLabel: name} })
		want := s.pinned
		switch {
		case c.texts != nil:
			got.refused(t, rejected, c.texts...)
		case got.err != nil:
			t.Errorf("%s: refused: %v", name, got.err)
		case c.image != "":
			want = c.image
		}
		stored, err := s.client.CoreV1().Pods(s.namespace).Get(t.Context(), old, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{want}, everyImage(stored)); diff != "" {
			t.Errorf("%s: images (-want +stored):\n%s", name, diff)
		}
	}
}
