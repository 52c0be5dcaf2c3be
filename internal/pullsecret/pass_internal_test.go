// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package pullsecret

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func all(value string) map[string]string {
	return map[string]string{"a/pull": value, "b/pull": value, "c/pull": value}
}

func TestCopiesAreMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if got := w.pass(); got != finished {
		t.Errorf("the pass came to %d", got)
	}
	w.wantThere(all("one"))
	w.wantResult(reasonCopied, `"pull": 3`)
	var got corev1.Secret
	if err := w.bare.Get(t.Context(), client.ObjectKey{Namespace: "a", Name: "pull"}, &got); err != nil {
		t.Fatal(err)
	}
	want := copyIn("a", "pull", "one")
	want.UID, want.ResourceVersion = got.UID, got.ResourceVersion
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Errorf("the copy (-want +got):\n%s", diff)
	}
}

func TestIdlePassWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pass()
	w.written()
	if got := w.pass(); got != finished {
		t.Errorf("the pass came to %d", got)
	}
	if got := w.written(); len(got) != 0 {
		t.Errorf("wrote %q", got)
	}
	w.wantResult(reasonCopied)
}

func TestCopiesFollowTheirSource(t *testing.T) {
	t.Parallel()
	immutable := copyIn("c", "pull", "one")
	immutable.Immutable = new(true)
	w := newWorld(t, copyIn("a", "pull", "one"), immutable)
	w.sources["pull"] = source("pull", "two")
	w.pass()
	w.wantThere(all("two"))
	want := []string{"create b/pull", "create c/pull", "delete c/pull", "update a/pull"}
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(w.written()))); diff != "" {
		t.Errorf("the writes (-want +got):\n%s", diff)
	}
}

func TestDriftIsRepaired(t *testing.T) {
	t.Parallel()
	for name, drift := range map[string]func(*corev1.Secret){
		"another key": func(s *corev1.Secret) { s.Data["more"] = []byte(hush) },
		"no key":      func(s *corev1.Secret) { s.Data = nil },
		"managed-by":  func(s *corev1.Secret) { s.Labels[labelManagedBy] = "helm" },
		"annotation":  func(s *corev1.Secret) { s.Annotations = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			there := copyIn("a", "pull", "one")
			drift(there)
			w := newWorld(t, there, copyIn("b", "pull", "one"), copyIn("c", "pull", "one"))
			w.pass()
			if diff := cmp.Diff([]string{"update a/pull"}, w.written()); diff != "" {
				t.Errorf("the writes (-want +got):\n%s", diff)
			}
			w.pass()
			if got := w.written(); len(got) != 0 {
				t.Errorf("wrote %q again", got)
			}
		})
	}
}

// Two installations leave each other's copies alone.
func TestCopiesOfOthersStay(t *testing.T) {
	t.Parallel()
	theirs := func(namespace, name string) *corev1.Secret {
		secret := copyIn(namespace, name, "theirs")
		secret.Annotations[annotationFrom] = "another-system/" + name
		return secret
	}
	w := newWorld(t, theirs("a", "pull"), theirs("b", "unwanted"), copyIn("b", "pull", "one"), copyIn("c", "pull", "one"))
	w.pass()
	if got := w.written(); len(got) != 0 {
		t.Errorf("wrote %q", got)
	}
}

// Of whom it is not known what he asks for, nothing is taken.
func TestUnreadRemovesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, copyIn("a", "pull", "one"), copyIn("b", "pull", "one"), copyIn("c", "pull", "one"), copyIn("a", "unwanted", "one"))
	w.unread.Store(true)
	w.pass()
	if got := w.written(); len(got) != 0 {
		t.Errorf("wrote %q", got)
	}
	w.unread.Store(false)
	w.pass()
	if diff := cmp.Diff([]string{"delete a/unwanted"}, w.written()); diff != "" {
		t.Errorf("once it is read (-want +got):\n%s", diff)
	}
}

func TestLabelsOfOthersOnACopyStay(t *testing.T) {
	t.Parallel()
	there := copyIn("a", "pull", "old")
	there.Labels["theirs"] = "too"
	w := newWorld(t, there)
	w.pass()
	var got corev1.Secret
	if err := w.bare.Get(t.Context(), client.ObjectKeyFromObject(there), &got); err != nil {
		t.Fatal(err)
	}
	if got.Labels["theirs"] != "too" {
		t.Errorf("the labels are %v", got.Labels)
	}
}

func TestTypeChangeMakesTheCopyAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, copyIn("a", "pull", "one"), copyIn("b", "pull", "one"), copyIn("c", "pull", "one"))
	changed := source("pull", "")
	changed.Type = corev1.SecretTypeDockercfg
	changed.Data[corev1.DockerConfigKey] = []byte(hush + " cfg")
	w.sources["pull"] = changed
	w.pass()
	w.wantThere(all("cfg"))
	var got corev1.Secret
	if err := w.bare.Get(t.Context(), client.ObjectKey{Namespace: "b", Name: "pull"}, &got); err != nil {
		t.Fatal(err)
	}
	if got.Type != corev1.SecretTypeDockercfg || len(got.Data) != 1 {
		t.Errorf("the copy has type %q and %d keys", got.Type, len(got.Data))
	}
}

// A copy that is being deleted, and that somebody's finalizer still holds, is
// waited for.
func TestCopiesThatAreBeingDeletedAreWaitedFor(t *testing.T) {
	t.Parallel()
	held, unwanted := copyIn("a", "pull", "one"), copyIn("other", "pull", "one")
	for _, s := range []*corev1.Secret{held, unwanted} {
		s.DeletionTimestamp, s.Finalizers = new(metav1.Now()), []string{"example.com/held"}
	}
	w := newWorld(t, held, unwanted, copyIn("b", "pull", "one"), copyIn("c", "pull", "one"))
	if got := w.pass(); got != unfinished {
		t.Errorf("the pass came to %d", got)
	}
	w.wantResult(reasonCopied, "tried again: 1")
	if got := w.written(); len(got) != 0 {
		t.Errorf("wrote %q", got)
	}
}

func TestUnwantedCopiesAreRemoved(t *testing.T) {
	t.Parallel()
	for name, in := range map[string][]string{"cluster": {"*"}, "list": {"a", "b", "c", "other", "no-such"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A Copier of each pass knows nothing of those before it.
			w := newWorld(t, copyIn("other", "pull", "one"), copyIn("a", "former", "one"), theirs("a", "theirs"),
				copyIn("gone", "pull", "one"), copyIn(own, "former", "own"))
			w.in = in
			w.pass()
			want := all("one")
			want["a/theirs"] = "theirs"
			// Of a namespace that is not known, and of our own, nothing is said.
			want["gone/pull"] = "one"
			want[own+"/former"] = "own"
			w.wantThere(want)
			w.set(func() { w.namespaces["b"] = labels.Set{"team": "no"} })
			w.pass()
			delete(want, "b/pull")
			w.wantThere(want)
			w.set(func() { w.wanted = []Copy{} })
			w.pass()
			w.wantThere(map[string]string{"a/theirs": "theirs", "gone/pull": "one", own + "/former": "own"})
			if got := w.reports[len(w.reports)-1]; len(got) != 0 {
				t.Errorf("reported %v", got)
			}
		})
	}
}

func TestNothingIsRemovedBeforeAllIsRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, copyIn("other", "pull", "one"))
	w.wanted = nil
	if got := w.pass(); got != notYet || len(w.reports) != 0 {
		t.Errorf("before the ImageConfigs are read the pass came to %d and reported %v", got, w.reports)
	}
	w.wanted = []Copy{{ImageConfig: "config", Secret: "pull", Namespaces: team("yes")}}
	w.namesErr = errors.New(hush)
	w.namespaces = nil
	if got := w.pass(); got != unfinished {
		t.Errorf("without namespaces the pass came to %d", got)
	}
	w.wantResult(reasonFailed, "namespaces")
	w.wantThere(map[string]string{"other/pull": "one"})
	if got := w.requests(); got != 0 {
		t.Errorf("%d requests", got)
	}
}

func TestDeletedSourceTakesItsCopiesAlong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, copyIn("a", "pull", "one"), theirs("b", "pull"))
	delete(w.sources, "pull")
	if got := w.pass(); got != finished {
		t.Errorf("the pass came to %d", got)
	}
	w.wantThere(map[string]string{"b/pull": "theirs"})
	w.wantResult(reasonSourceMissing, "pull", own)
}

func TestBadSourceLeavesItsCopies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil  func(*world)
		reason string
		says   string
		done   progress
	}{
		"wrong type": {func(w *world) { w.sources["pull"].Type = hush }, reasonSourceInvalid, "must be of type", finished},
		"no key": {func(w *world) {
			w.sources["pull"].Data = map[string][]byte{corev1.DockerConfigKey: []byte(hush)}
		}, reasonSourceInvalid, `".dockerconfigjson"`, finished},
		"empty": {func(w *world) {
			w.sources["pull"].Data[corev1.DockerConfigJsonKey] = nil
		}, reasonSourceInvalid, `".dockerconfigjson"`, finished},
		"unreadable": {func(w *world) { w.sourceErr = errors.New(hush) }, reasonFailed, "cannot be read", unfinished},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, copyIn("a", "pull", "old"), copyIn("other", "pull", "old"))
			c.spoil(w)
			if got := w.pass(); got != c.done {
				t.Errorf("the pass came to %d, want %d", got, c.done)
			}
			// What is not selected is known all the same.
			w.wantThere(map[string]string{"a/pull": "old"})
			w.wantResult(c.reason, c.says, "stay as they are")
		})
	}
}

func TestSecretsOfOthersAreNeverTouched(t *testing.T) {
	t.Parallel()
	marked := theirs("b", "pull")
	marked.Labels = map[string]string{labelCopy: "no", labelManagedBy: valueManagedBy}
	w := newWorld(t, theirs("a", "pull"), marked, theirs("other", "pull"))
	w.pass()
	w.wantThere(map[string]string{"a/pull": "theirs", "b/pull": "theirs", "c/pull": "one", "other/pull": "theirs"})
	w.wantResult(reasonConflict, "a, b", "left alone")
	if diff := cmp.Diff([]string{"create c/pull"}, w.written()); diff != "" {
		t.Errorf("the writes (-want +got):\n%s", diff)
	}
}

// A Secret that somebody puts in the place of a copy, after it was read and
// before it is written, is that somebody's.
func TestSwappedSecretIsNotOverwritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		verb  string
		spoil func(*world)
	}{
		"update": {"update", func(w *world) { w.sources["pull"] = source("pull", "two") }},
		"anew":   {"delete", func(w *world) { w.sources["pull"].Type = corev1.SecretTypeDockercfg }},
		"remove": {"delete", func(w *world) { delete(w.sources, "pull") }},
		"create": {"create", func(w *world) {
			if err := w.bare.Delete(w.t.Context(), copyIn("a", "pull", "one")); err != nil {
				w.t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, copyIn("a", "pull", "one"))
			w.sources["pull"].Data[corev1.DockerConfigKey] = []byte(hush + " cfg")
			w.namespaces = map[string]labels.Set{"a": {"team": "yes"}}
			c.spoil(w)
			swapped := false
			w.fault = func(verb, _, _ string) error {
				if verb != c.verb || swapped {
					return nil
				}
				swapped = true
				if err := w.bare.Delete(t.Context(), copyIn("a", "pull", "one")); client.IgnoreNotFound(err) != nil {
					return err
				}
				return w.bare.Create(t.Context(), theirs("a", "pull"))
			}
			if got := w.pass(); got != unfinished {
				t.Errorf("the pass came to %d: it is to be tried again", got)
			}
			if !swapped {
				t.Fatal("nothing was swapped")
			}
			w.wantThere(map[string]string{"a/pull": "theirs"})
			if got := w.last("config"); got.Reason == reasonFailed || got.Reason == reasonForbidden {
				t.Errorf("reported %+v, which is not the admin's fault", got)
			}
			w.pass()
			w.wantThere(map[string]string{"a/pull": "theirs"})
		})
	}
}

func TestForbiddenInOneNamespaceLeavesTheOthers(t *testing.T) {
	t.Parallel()
	for _, in := range [][]string{{"*"}, {"a", "b", "c"}} {
		for _, verbs := range [][]string{{"get", "list", "create"}, {"create"}} {
			w := newWorld(t)
			w.in = in
			w.fault = func(verb, namespace, name string) error {
				if namespace == "b" && slices.Contains(verbs, verb) {
					return forbidden(name)
				}
				return nil
			}
			if got := w.pass(); got != unfinished {
				t.Errorf("the pass came to %d", got)
			}
			w.wantThere(map[string]string{"a/pull": "one", "c/pull": "one"})
			w.wantResult(reasonForbidden, ": b", "pratique-inject")
		}
	}
}

func TestOtherErrorsAreReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t, copyIn("other", "pull", "one"))
	w.fault = func(verb, namespace, name string) error {
		switch {
		case namespace == "a":
			return apierrors.NewInternalError(errors.New(hush))
		case verb == "delete":
			return forbidden(name)
		}
		return nil
	}
	w.pass()
	w.wantResult(reasonFailed, "status 500", ": a;", "could not be removed: other")
	w.fault = func(string, string, string) error { return errors.New(hush) }
	if got := w.pass(); got != unfinished {
		t.Errorf("the pass came to %d", got)
	}
	w.wantResult(reasonFailed, "could not be asked", ": a, b, c")
}

func TestTerminatingNamespaceIsNobodysFault(t *testing.T) {
	t.Parallel()
	w := newWorld(t, copyIn("dying", "pull", "old"))
	w.fault = func(verb, namespace, name string) error {
		if namespace != "b" || verb != "create" {
			return nil
		}
		err := apierrors.NewForbidden(secrets(), name, errors.New(hush))
		err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
		return err
	}
	if got := w.pass(); got != unfinished {
		t.Errorf("the pass came to %d", got)
	}
	w.wantThere(map[string]string{"a/pull": "one", "c/pull": "one", "dying/pull": "old"})
	w.wantResult(reasonCopied, "tried again: 1")
}

func TestOnlyListedNamespacesAreAskedOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.in = []string{"a", own, "absent", "other"}
	for _, more := range []string{"d", "e"} {
		w.namespaces[more] = labels.Set{"team": "yes"}
	}
	w.fault = func(verb, namespace, _ string) error {
		if namespace != "a" && namespace != "other" {
			t.Errorf("%s in namespace %q, which is not listed", verb, namespace)
		}
		return nil
	}
	if got := w.pass(); got != finished {
		t.Errorf("the pass came to %d", got)
	}
	w.wantThere(map[string]string{"a/pull": "one"})
	w.wantResult(reasonNotInNamespace, "b, c, d and 1 more")
}

func TestStarIsAllOnlyIfAlone(t *testing.T) {
	t.Parallel()
	for _, in := range [][]string{nil, {"*", "b"}} {
		w := newWorld(t)
		w.in = in
		w.pass()
		if _, there := w.there()["a/pull"]; there {
			t.Errorf("a copy in a with %q", in)
		}
		w.wantResult(reasonNotInNamespace)
	}
}

func TestImageConfigsShareASecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t, theirs("b", "pull"))
	w.namespaces["b"] = labels.Set{"team": "b"}
	w.namespaces["c"] = labels.Set{"team": "c"}
	w.sources["second"] = source("second", "2")
	w.wanted = []Copy{
		{ImageConfig: "config", Secret: "pull", Namespaces: team("yes")},
		{ImageConfig: "b", Secret: "pull", Namespaces: team("b")},
		{ImageConfig: "second", Secret: "second", Namespaces: team("c")},
		{ImageConfig: "nowhere", Secret: "second"},
		{ImageConfig: "twice", Secret: "second", Namespaces: team("c")},
		{ImageConfig: "twice", Secret: "missing", Namespaces: team("c")},
	}
	w.pass()
	w.wantThere(map[string]string{"a/pull": "one", "b/pull": "theirs", "c/second": "2"})
	reasons := map[string]string{}
	for name, r := range w.reports[0] {
		reasons[name] = r.Reason
	}
	if diff := cmp.Diff(map[string]string{
		"config": reasonCopied, "b": reasonConflict, "second": reasonCopied, "nowhere": reasonCopied, "twice": reasonSourceMissing,
	}, reasons); diff != "" {
		t.Errorf("the reasons (-want +got):\n%s", diff)
	}
	// One that stops asking leaves what the other still asks for.
	w.set(func() { w.wanted = w.wanted[1:2] })
	w.set(func() { w.wanted = append(w.wanted, Copy{ImageConfig: "c", Secret: "second", Namespaces: team("c")}) })
	w.pass()
	w.wantThere(map[string]string{"b/pull": "theirs", "c/second": "2"})
}

// Whoever loses the election in the middle of a pass writes no more, and has
// nothing to say.
func TestLosingTheElectionEndsThePass(t *testing.T) {
	t.Parallel()
	w := newWorld(t, copyIn("other", "pull", "one"))
	w.fault = func(verb, _, _ string) error {
		if verb == "get" {
			w.leads.Store(false)
		}
		return nil
	}
	if got := w.pass(); got != notYet || len(w.reports) != 0 {
		t.Errorf("the pass came to %d and reported %v", got, w.reports)
	}
	if got := w.written(); len(got) != 0 {
		t.Errorf("wrote %q", got)
	}
}
