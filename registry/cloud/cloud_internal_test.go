// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/pratique-dev/pratique/registry/credential"
)

const (
	secret    = "s3cret-of-the-cloud"
	amazon    = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	microsoft = "acme.azurecr.io"
)

// fake is in the place of the helpers, and notes what they are asked.
type fake struct {
	mu     sync.Mutex
	asked  []string
	answer func(host string, nth int) (authn.Authenticator, error)
}

func (f *fake) Resolve(target authn.Resource) (authn.Authenticator, error) {
	f.mu.Lock()
	f.asked = append(f.asked, target.String())
	nth := len(f.asked)
	f.mu.Unlock()
	return f.answer(target.RegistryStr(), nth)
}

func (f *fake) hosts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

func token(n any) authn.Authenticator {
	return &authn.Basic{Username: "token", Password: fmt.Sprint(secret, n)}
}

// clock stands still.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newFaked(t *testing.T, answer func(host string, nth int) (authn.Authenticator, error)) (*Keychain, *fake, *clock) {
	t.Helper()
	helpers, c := &fake{answer: answer}, &clock{now: time.Now()}
	k, err := newKeychain(helpers, guard{})
	if err != nil {
		t.Fatal(err)
	}
	k.now = c.Now
	// Nothing in these tests takes long unless it hangs.
	k.patience = time.Hour
	return k, helpers, c
}

// under returns the question that is under way about a host, nil for none.
func (k *Keychain) under(host string) *question {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asking[host]
}

// settle waits for the question that is under way about a host.
func (k *Keychain) settle(host string) {
	if q := k.under(host); q != nil {
		<-q.done
	}
}

// found is what a request would be shown at a repository: passwords and warnings.
func found(ctx context.Context, t *testing.T, config credential.Config, repository string) (passwords, warnings []string) {
	t.Helper()
	s := credential.None().Then(config)
	ring, err := s.Ring(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, auth := range ring.For(ctx, repository) {
		passwords = append(passwords, auth.Password)
	}
	for _, warning := range s.Warnings() {
		if strings.Contains(warning, secret) {
			t.Errorf("a secret is told: %s", warning)
		}
	}
	return passwords, s.Warnings()
}

// TestOnlyOwnHosts: a helper is asked by host, for the registries of clouds, or
// of the one cloud that is named.
func TestOnlyOwnHosts(t *testing.T) {
	t.Parallel()
	foreign := []string{"no credential for %s: " + errForeign.Error()}
	for name, test := range map[string]struct {
		config  func(*Keychain) credential.Config
		asked   []string
		refused bool // with a warning
	}{
		"any":     {(*Keychain).Any, []string{amazon, "gcr.io", microsoft}, false},
		"AWS":     {func(k *Keychain) credential.Config { return k.Of(AWS) }, []string{amazon}, true},
		"GCP":     {func(k *Keychain) credential.Config { return k.Of(GCP) }, []string{"gcr.io"}, true},
		"Azure":   {func(k *Keychain) credential.Config { return k.Of(Azure) }, []string{microsoft}, true},
		"unknown": {func(k *Keychain) credential.Config { return k.Of("Other") }, nil, true},
		"none":    {func(k *Keychain) credential.Config { return k.Of("") }, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, helpers, _ := newFaked(t, func(host string, _ int) (authn.Authenticator, error) { return token(host), nil })
			config := test.config(k)
			for _, host := range []string{amazon, "x.azurecr.io.attacker.com", "gcr.io", "registry1.com", microsoft, "docker.io", "127.0.0.1:5000"} {
				got, warnings := found(t.Context(), t, config, host+"/some/app")
				var want, warned []string
				switch {
				case slices.Contains(test.asked, host):
					want = []string{secret + host}
				case test.refused:
					warned = []string{fmt.Sprintf(foreign[0], host)}
				}
				if diff := cmp.Diff([][]string{want, warned}, [][]string{got, warnings}); diff != "" {
					t.Errorf("%s: shown, warned (-want +got):\n%s", host, diff)
				}
			}
			if diff := cmp.Diff(test.asked, helpers.hosts()); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFailures: whatever a helper does, it costs a warning without its words.
func TestFailures(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer func() (authn.Authenticator, error)
		want   error
	}{
		"error":            {func() (authn.Authenticator, error) { return nil, errors.New(secret) }, errFailed},
		"panic":            {func() (authn.Authenticator, error) { panic(secret) }, errFailed},
		"end of goroutine": {func() (authn.Authenticator, error) { runtime.Goexit(); return nil, nil }, errFailed},
		"nil":              {func() (authn.Authenticator, error) { return nil, nil }, errFailed},
		"later error":      {func() (authn.Authenticator, error) { return late{errors.New(secret)}, nil }, errFailed},
		"later nothing":    {func() (authn.Authenticator, error) { return late{}, nil }, errFailed},
		"anonymous":        {func() (authn.Authenticator, error) { return authn.Anonymous, nil }, errNone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, helpers, _ := newFaked(t, func(string, int) (authn.Authenticator, error) { return test.answer() })
			want := []string{"no credential for " + amazon + ": " + test.want.Error()}
			for range 3 {
				got, warnings := found(t.Context(), t, k.Of(AWS), amazon+"/app")
				if diff := cmp.Diff(want, warnings); diff != "" || got != nil {
					t.Errorf("shown %q, warnings (-want +got):\n%s", got, diff)
				}
			}
			if errors.Is(test.want, errNone) {
				want = nil // in no cloud that is as it should be
			}
			if _, warnings := found(t.Context(), t, k.Any(), amazon+"/app"); !slices.Equal(warnings, want) {
				t.Errorf("any: warnings %q, want %q", warnings, want)
			}
			if n := len(helpers.hosts()); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// late is what fails when it is asked for the credential itself.
type late struct{ err error }

func (l late) Authorization() (*authn.AuthConfig, error) { return nil, l.err }

// TestRemembers: what was answered serves everybody, is asked for again in its
// time, and is not lost because that fails.
func TestRemembers(t *testing.T) {
	t.Parallel()
	k, helpers, c := newFaked(t, func(_ string, nth int) (authn.Authenticator, error) {
		if nth == 1 || nth == 4 {
			return authn.Anonymous, nil
		}
		return token(nth), nil
	})
	for i, step := range []struct {
		after time.Duration
		want  string // none if empty
		asked int    // in all, once what is under way has come to its end
	}{
		{0, "", 1},
		{59 * time.Second, "", 1},
		{2 * time.Second, "", 2}, // found out again, while the old one serves
		{0, "2", 2},
		{29 * time.Minute, "2", 2},
		{2 * time.Minute, "2", 3},
		{0, "3", 3},
		{31 * time.Minute, "3", 4}, // fails
		{0, "3", 4},
		{59 * time.Second, "3", 4},
		{2 * time.Second, "3", 5},
		{0, "5", 5},
		{3 * time.Hour, "6", 6}, // too old to serve
		{0, "6", 6},
	} {
		c.pass(step.after)
		passwords, _ := found(t.Context(), t, k.Any(), amazon+"/app")
		var want []string
		if step.want != "" {
			want = []string{secret + step.want}
		}
		if !slices.Equal(passwords, want) {
			t.Errorf("step %d: shown %q, want %q", i, passwords, want)
		}
		k.settle(amazon)
		if n := len(helpers.hosts()); n != step.asked {
			t.Errorf("step %d: asked %d times, want %d", i, n, step.asked)
		}
	}
}

// TestGoogleIsAskedAgain: its tokens may be about to end, and it keeps them itself.
func TestGoogleIsAskedAgain(t *testing.T) {
	t.Parallel()
	k, helpers, c := newFaked(t, func(_ string, nth int) (authn.Authenticator, error) { return token(nth), nil })
	for i, want := range []string{"1", "1", "2", "2", "3"} {
		if got, _ := found(t.Context(), t, k.Any(), "gcr.io/app"); len(got) != 1 || got[0] != secret+want {
			t.Errorf("round %d: shown %q, want %q", i, got, want)
		}
		c.pass(3 * time.Second)
	}
	if n := len(helpers.hosts()); n != 3 {
		t.Errorf("asked %d times", n)
	}
}

// TestIdentity: a request's credentials have one identity, however often and by
// however many it is asked for.
func TestIdentity(t *testing.T) {
	t.Parallel()
	k, helpers, _ := newFaked(t, func(_ string, nth int) (authn.Authenticator, error) { return token(nth), nil })
	identifier := credential.NewIdentifier([]byte("0123456789abcdef"))
	identities := make([]credential.Identity, 32)
	var group sync.WaitGroup
	for i := range identities {
		config := k.Any()
		if i%2 == 0 {
			config = k.Of(AWS)
		}
		group.Go(func() {
			identities[i] = identifier.Identify(t.Context(), credential.NewRing(config), amazon+"/app")
		})
	}
	group.Wait()
	if got := slices.Compact(identities); len(got) != 1 || got[0] == credential.Anonymous {
		t.Errorf("%d identities: %x", len(got), got)
	}
	if n := len(helpers.hosts()); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// hanging are helpers that hang until they are released.
func hanging(t *testing.T) (k *Keychain, helpers *fake, c *clock, release func()) {
	t.Helper()
	released := make(chan struct{})
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	k, helpers, c = newFaked(t, func(_ string, nth int) (authn.Authenticator, error) {
		<-released
		return token(nth), nil
	})
	return k, helpers, c, release
}

// TestHangs: nobody waits longer than for patience, or than they have time, and
// what comes late is there for the next.
func TestHangs(t *testing.T) {
	t.Parallel()
	tooLate := []string{"no credential for " + amazon + ": " + errLate.Error()}
	for name, prepare := range map[string]func(*Keychain) context.Context{
		"patience": func(k *Keychain) context.Context {
			k.patience = time.Millisecond
			return t.Context()
		},
		"deadline": func(*Keychain) context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			t.Cleanup(cancel)
			return ctx
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, helpers, _, release := hanging(t)
			ctx := prepare(k)
			for range 3 {
				if got, warnings := found(ctx, t, k.Any(), amazon+"/app"); got != nil || !slices.Equal(warnings, tooLate) {
					t.Errorf("shown %q, warnings %q", got, warnings)
				}
			}
			asked := k.under(amazon)
			release()
			<-asked.done
			if got, warnings := found(t.Context(), t, k.Any(), amazon+"/app"); !slices.Equal(got, []string{secret + "1"}) || warnings != nil {
				t.Errorf("what came late is not used: shown %q, warnings %q", got, warnings)
			}
			if n := len(helpers.hosts()); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// TestHangsForEver: a question that will never be answered is asked anew.
func TestHangsForEver(t *testing.T) {
	t.Parallel()
	k, helpers, c, release := hanging(t)
	k.patience = 0
	var questions []*question
	for range 3 {
		found(t.Context(), t, k.Any(), amazon+"/app")
		questions = append(questions, k.under(amazon))
		c.pass(abandonAfter + 1)
	}
	if questions[0] == questions[1] || questions[1] == questions[2] || len(k.slots[AWS]) != 3 {
		t.Errorf("%d questions are under way", len(k.slots[AWS]))
	}
	release()
	for _, q := range questions {
		<-q.done
	}
	if k.under(amazon) != nil || len(k.slots[AWS]) != 0 || len(helpers.hosts()) != 3 {
		t.Errorf("asked for %q, %d questions are left", helpers.hosts(), len(k.slots[AWS]))
	}
}

// TestBounded: hosts that do not exist do not make goroutines or memory without
// end, and do not stand in another cloud's way.
func TestBounded(t *testing.T) {
	t.Parallel()
	k, _, _, release := hanging(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits
	var busy int
	for i := range maxQuestions + 10 {
		host := fmt.Sprintf("made-up-%d.azurecr.io", i)
		if _, warnings := found(ctx, t, k.Any(), host+"/app"); slices.Equal(warnings, []string{"no credential for " + host + ": " + errBusy.Error()}) {
			busy++
		}
	}
	if got := len(k.slots[Azure]); busy != 10 || got != maxQuestions {
		t.Errorf("%d questions are under way, %d were refused", got, busy)
	}
	found(ctx, t, k.Any(), amazon+"/app")
	if k.under(amazon) == nil {
		t.Error("the other cloud is not asked")
	}
	k.mu.Lock()
	var questions []*question
	for _, q := range k.asking {
		questions = append(questions, q)
	}
	k.mu.Unlock()
	release()
	for _, q := range questions {
		<-q.done
	}
	// There is room again, also for those that were refused.
	for i := range 3 * maxHosts {
		host := fmt.Sprintf("made-up-%d.azurecr.io", i)
		if got, _ := found(t.Context(), t, k.Any(), host+"/app"); len(got) != 1 {
			t.Fatalf("%s: shown %q", host, got)
		}
	}
	k.answers.CleanUp()
	if n := k.answers.EstimatedSize(); n > maxHosts {
		t.Errorf("%d hosts are remembered", n)
	}
	if len(k.asking) != 0 {
		t.Errorf("%d questions are left", len(k.asking))
	}
}
