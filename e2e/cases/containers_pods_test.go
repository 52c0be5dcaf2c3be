// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/registry"
	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
	"github.com/pratique-dev/pratique/e2e/skopeo"
)

// pratique runs one of its verbs, which can reach nobody but this machine.
func pratique(t *testing.T, args ...string) (output string, exit int) {
	t.Helper()
	command := exec.CommandContext(t.Context(), shared.Binary, args...)
	command.Env = []string{"HOME=/nonexistent"}
	var both bytes.Buffer
	command.Stdout, command.Stderr = &both, &both
	err := command.Run()
	if command.ProcessState == nil {
		t.Fatal(err)
	}
	return both.String(), command.ProcessState.ExitCode()
}

// scoped is a policy for repositories of a room, by their names: the others are
// nobody's business.
func scoped(r *room, scopes map[string]string) string {
	docker := map[string]json.RawMessage{}
	for name, requirement := range scopes {
		docker[r.distribution.Host+"/"+r.namespace+"/"+name] = json.RawMessage("[" + requirement + "]")
	}
	policy, err := json.Marshal(map[string]any{
		"default":    []any{map[string]string{"type": "insecureAcceptAnything"}},
		"transports": map[string]any{"docker": docker},
	})
	if err != nil {
		panic(err) // the scopes are constants
	}
	return string(policy)
}

// TestContainersTags: a tag counts as long as it points at the digest beside it,
// and not for what anybody writes.
func TestContainersTags(t *testing.T) {
	t.Parallel()
	s, l := newSigners(t, rsaKey), newLookaside(t)
	r := newRoom(t, env.OtherServer+"=tags")
	signed := func(identity string) string {
		return gpgSigned(filepath.Join(s.folder, "rsa.gpg"), fmt.Sprintf(`"signedIdentity": {"type": %q}`, identity))
	}
	policy := filepath.Join(t.TempDir(), "policy.json")
	writeFile(t, policy, scoped(r, map[string]string{
		"app": signed("matchRepoDigestOrExact"), "exact": signed("matchExact"), "any": signed("matchRepository"),
		"scoped": `{"type": "reject"}`, "scoped:v1": signed("matchRepository"), "scoped:free": `{"type": "insecureAcceptAnything"}`,
	}))
	registries := registriesD(t, fmt.Sprintf("default-docker: {lookaside: %q}", l.URL))
	r.beside(t, env.ServerOptions{Name: "tags", Args: []string{"--containers-policy", policy, "--registries-d", registries}})
	// made is a new image that is signed as what its tag says.
	made := func(repository, tag string) published {
		image := publish(t, r.distribution.Host+"/"+r.namespace+"/"+repository, tag, false)
		l.put(t, image.repository, image.digest, s.signature(t, rsaKey, image.byTag(), manifestOf(t, image)))
		return image
	}
	beside := func(tag string, image published) string { return image.repository + ":" + tag + "@" + image.digest }

	t.Run("moved back", func(t *testing.T) {
		old, latest := made("app", "v1"), made("app", "v2")
		r.try(t.Context(), pod("old", old.byTag())).admitted(t, old.pinned())
		r.create(t.Context(), pod("latest", latest.byTag())).admitted(t, latest.pinned())
		// Whoever may push has an old image, with its holes, run again.
		retag(t, old, "v3")
		const because = "signature"
		r.create(t.Context(), pod("back", old.repository+":v3")).refused(t, rejected, beside("v3", old)+" Rejected by policy.json", because)
		r.create(t.Context(), pod("pinned", beside("v3", old))).refused(t, rejected, beside("v3", old)+" Rejected by policy.json", because)
		// The digest alone is what somebody chose.
		r.try(t.Context(), pod("digest", old.byDigest())).admitted(t, old.byDigest())
		// And so is one whose tag has moved on: the tag does not count.
		retag(t, latest, "v4")
		r.try(t.Context(), pod("moved-on", beside("v4", old))).admitted(t, beside("v4", old))
	})
	t.Run("matchExact", func(t *testing.T) {
		image := made("exact", "v1")
		stored := r.create(t.Context(), pod("exact", image.byTag())).admitted(t, image.pinned())
		r.create(t.Context(), pod("exact-pinned", imagesOf(stored)...)).admitted(t, image.pinned())
		r.try(t.Context(), pod("exact-digest", image.byDigest())).refused(t, rejected, image.byDigest()+" Rejected by policy.json")
		retag(t, image, "v2")
		r.try(t.Context(), pod("exact-v2", image.repository+":v2")).refused(t, rejected, beside("v2", image)+" Rejected by policy.json")
	})
	t.Run("a scope of a tag", func(t *testing.T) {
		image := made("scoped", "v1")
		scope := fmt.Sprintf("Rejected by policy.json %q", image.repository)
		stored := r.create(t.Context(), pod("scope", image.byTag())).admitted(t, image.pinned())
		r.create(t.Context(), pod("scope-pinned", imagesOf(stored)...)).admitted(t, image.pinned())
		r.try(t.Context(), pod("scope-digest", image.byDigest())).refused(t, rejected, scope)
		r.try(t.Context(), pod("scope-other", made("scoped", "v2").byTag())).refused(t, rejected, scope)
	})
	t.Run("a trusted tag beside another digest", func(t *testing.T) {
		for _, repository := range []string{"app", "exact", "any"} {
			trusted := made(repository, "trusted")
			r.try(t.Context(), pod("trusted", trusted.pinned())).admitted(t, trusted.pinned())
			bare := publish(t, trusted.repository, "bare", false)
			r.try(t.Context(), pod("bare", beside("trusted", bare))).refused(t, rejected, bare.digest+" Rejected by policy.json", "no signature")
		}
		free := publish(t, r.distribution.Host+"/"+r.namespace+"/scoped", "free", false)
		bare := publish(t, free.repository, "bare", false)
		r.try(t.Context(), pod("free", free.byTag())).admitted(t, free.byTag())
		r.try(t.Context(), pod("bare", beside("free", bare))).refused(t, rejected, fmt.Sprintf("Rejected by policy.json %q", bare.repository))
	})
}

// TestBothEngines: an image that an ImageConfig and a policy.json are about has
// to be accepted by both, and it is said by which it is not.
func TestBothEngines(t *testing.T) {
	t.Parallel()
	s, l, key := newSigners(t, rsaKey), newLookaside(t), keyPair(t)
	r := newRoom(t, env.OtherServer+"=both")
	policy := filepath.Join(t.TempDir(), "policy.json")
	writeFile(t, policy, scoped(r, map[string]string{"app": gpgSigned(filepath.Join(s.folder, "rsa.gpg"))}))
	registries := registriesD(t, fmt.Sprintf("default-docker: {lookaside: %q}", l.URL))
	r.beside(t, env.ServerOptions{Name: "both", Args: []string{"--containers-policy", policy, "--registries-d", registries}})
	repository := r.distribution.Host + "/" + r.namespace + "/app"
	config := r.policy(t, "", authorized(repository, []authority{{key: key.PublicPEM}}))
	byConfig, byPolicy := fmt.Sprintf("Rejected by ImageConfig %q", config), fmt.Sprintf("Rejected by policy.json %q", repository)
	for name, test := range map[string]struct {
		cosign, gpg bool
		texts       []string
	}{
		"both":    {true, true, nil},
		"cosign":  {true, false, []string{byPolicy}},
		"gpg":     {false, true, []string{byConfig}},
		"neither": {false, false, []string{byConfig, byPolicy}},
	} {
		image := publish(t, repository, name, false)
		if test.cosign {
			if err := cosign2.Sign(t.Context(), key, image.byDigest(), nil); err != nil {
				t.Fatal(err)
			}
		}
		if test.gpg {
			l.put(t, repository, image.digest, s.signature(t, rsaKey, image.byTag(), manifestOf(t, image)))
		}
		got := r.try(t.Context(), pod(name, image.byTag()))
		if len(test.texts) == 0 {
			got.admitted(t, image.pinned())
			continue
		}
		got.refused(t, rejected, append(test.texts, "no signature")...)
		for _, by := range []string{byConfig, byPolicy} {
			if named := strings.Contains(got.err.Error(), by); named != strings.Contains(strings.Join(test.texts, "\n"), by) {
				t.Errorf("%s: %q is named: %t: %v", name, by, named, got.err)
			}
		}
	}
}

// TestContainersPolicyOfAnImageConfig: the requirements of a policy.json in an
// ImageConfig, with the key in a Secret. Signatures of cosign are found beside
// the image without being told to look.
func TestContainersPolicyOfAnImageConfig(t *testing.T) {
	t.Parallel()
	r, key, other := newRoom(t), keyPair(t), keyPair(t)
	repository := r.distribution.Host + "/" + r.namespace + "/app"
	spec := func(requirements string) string {
		return fmt.Sprintf("\n  matchImages: [{prefix: %q}]\n  verification: {provider: ContainersPolicy, containersPolicy: {requirements: [%s]}}",
			repository, requirements)
	}
	requirement := func(path string) string {
		return fmt.Sprintf("{type: sigstoreSigned, keyPath: %q, signedIdentity: {type: matchRepository}}", path)
	}
	inSecret := requirement("secret://" + r.namespace + "/cosign.pub")
	signed, renewed, unsigned := publish(t, repository, "v1", false), publish(t, repository, "v2", true), publish(t, repository, "v3", false)
	for image, by := range map[published]int{signed: 0, renewed: 1} {
		if err := cosign2.Sign(t.Context(), []signer.Key{key, other}[by], image.byDigest(), nil); err != nil {
			t.Fatal(err)
		}
	}
	config := r.unreadyPolicy(t, "", spec(inSecret))
	if message := r.awaitReady(t, config, metav1.ConditionFalse, "SecretNotFound"); !strings.Contains(message, r.namespace) {
		t.Errorf("the message does not name the Secret: %s", message)
	}
	r.try(t.Context(), pod("early", signed.byTag())).refused(t, inconclusive, "Inconclusive by ImageConfig", "it is not ready")
	r.secret(t, env.Namespace, r.namespace, "Opaque", map[string]string{"cosign.pub": key.PublicPEM})
	r.awaitReady(t, config, metav1.ConditionTrue, "Compiled")
	stored := r.create(t.Context(), pod("signed", signed.byTag())).admitted(t, signed.pinned())
	r.try(t.Context(), pod("pinned", imagesOf(stored)...)).admitted(t, signed.pinned())
	r.try(t.Context(), pod("digest", signed.byDigest())).admitted(t, signed.byDigest())
	by := fmt.Sprintf("Rejected by ImageConfig %q", config)
	r.try(t.Context(), pod("unsigned", unsigned.byTag())).refused(t, rejected, unsigned.pinned(), by, "no signature")
	r.try(t.Context(), pod("renewed", renewed.byTag())).refused(t, rejected, renewed.pinned(), by)

	r.rewrite(t, env.Namespace, r.namespace, map[string]string{"cosign.pub": other.PublicPEM})
	r.flips(t, "the rotated key", signed.byTag(), by)
	r.comesBack(t, "what the new key signed", renewed)
	r.rewrite(t, env.Namespace, r.namespace, map[string]string{"cosign.pub": "nonsense"})
	r.flips(t, "a broken key", renewed.byTag(), "it is not ready")

	for what, test := range map[string]struct{ requirements, text string }{
		"a file":            {requirement("/etc/passwd"), "secret://NAME/KEY"},
		"another namespace": {requirement("secret://kube-system/x/y"), "secret://NAME/KEY"},
		"a misspelt field":  {`{type: sigstoreSigned, keypath: x}`, "keypath"},
		"no such type":      {`{type: signed}`, "signed"},
	} {
		t.Run(what, func(t *testing.T) {
			r.change(t, config, spec(test.requirements))
			if message := r.awaitReady(t, config, metav1.ConditionFalse, "Invalid"); !strings.Contains(message, test.text) {
				t.Errorf("the message lacks %q: %s", test.text, message)
			}
			r.try(t.Context(), pod("invalid", renewed.byTag())).refused(t, inconclusive, "it is not ready")
		})
	}
	t.Run("reject", func(t *testing.T) {
		r.change(t, config, spec(`{type: reject}`))
		r.awaitReady(t, config, metav1.ConditionTrue, "Compiled")
		r.try(t.Context(), pod("rejected", signed.byTag())).refused(t, rejected, by)
	})
}

// keeper is the part of a registry that keeps signatures itself, as OpenShift's
// does ("extensions"), in front of one that does not. What it is sent it gives
// back.
type keeper struct {
	mu   sync.Mutex
	kept map[string][]json.RawMessage // by path
}

func (k *keeper) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("X-Registry-Supports-Signatures", "1")
		if !strings.HasPrefix(req.URL.Path, "/extensions/v2/") {
			next.ServeHTTP(w, req)
			return
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if req.Method == http.MethodPut {
			var signature json.RawMessage
			if err := json.NewDecoder(req.Body).Decode(&signature); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			k.kept[req.URL.Path] = append(k.kept[req.URL.Path], signature)
			w.WriteHeader(http.StatusCreated)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"signatures": k.kept[req.URL.Path]}) // the client may be gone
	})
}

// TestSignaturesOfTheRegistry: what skopeo has a registry keep with the image,
// skopeo and Pratique find there.
func TestSignaturesOfTheRegistry(t *testing.T) {
	t.Parallel()
	s, l := newSigners(t, rsaKey, nistKey), newLookaside(t)
	k := &keeper{kept: map[string][]json.RawMessage{}}
	r, err := registry.Memory(registry.Options{Wrap: k.wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	policy := filepath.Join(t.TempDir(), "policy.json")
	writeFile(t, policy, fmt.Sprintf(`{"default": [{"type": "reject"}], "transports": {"docker": {%q: [%s]}}}`,
		r.Host, gpgSigned(filepath.Join(s.folder, "rsa.gpg"))))
	// It is not asked where the registry keeps them.
	registries := registriesD(t, fmt.Sprintf("default-docker: {lookaside: %q}", l.URL))
	for name, key := range map[string]string{"signed": rsaKey, "another": nistKey, "unsigned": ""} {
		t.Run(name, func(t *testing.T) {
			image := publish(t, r.Host+"/kept/"+name, "v1", false)
			if key != "" {
				if err := s.Copy(t.Context(), image.byTag(), image.byTag(), skopeo.CopyOptions{SignBy: s.keys[key]}); err != nil {
					t.Fatal(err)
				}
			}
			for _, reference := range []string{image.byTag(), image.byDigest()} {
				theirs, err := s.Judge(t.Context(), reference, policy, registries)
				if err != nil {
					t.Fatal(err)
				}
				ours, _ := verify(t, []string{
					"--containers-policy", policy, "--registries-d", registries, "--insecure-registries", r.Host,
				}, reference)
				want := map[bool]string{true: "Accepted", false: "Rejected"}[key == rsaKey]
				if theirs.Accepted != (key == rsaKey) || ours[0].Outcome != want {
					t.Errorf("%s: skopeo accepts: %t %s; ours: %+v; want %s", reference, theirs.Accepted, theirs.Reason, ours, want)
				}
			}
			if asked := l.requests(image.repository); len(asked) > 0 {
				t.Errorf("the lookaside was asked: %q", asked)
			}
		})
	}
}
