// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// recorder notes the requests that it is sent. What it answers is set by tests.
type recorder struct {
	server *httptest.Server

	mu     sync.Mutex
	more   sync.Cond
	seen   []string
	answer http.HandlerFunc
}

func newRecorder(answer http.HandlerFunc) *recorder {
	r := &recorder{answer: answer}
	r.more.L = &r.mu
	r.server = httptest.NewServer(r)
	return r
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, q.Method+" "+q.Host+q.URL.Path)
	r.more.Broadcast()
	r.answer(w, q)
}

func (r *recorder) set(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// await waits until a request was seen.
func (r *recorder) await(request string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !slices.Contains(r.seen, request) {
		r.more.Wait()
	}
}

// taken returns what was seen since the last time.
func (r *recorder) taken() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.seen = nil
	return seen
}

func writeJSON(t *testing.T, value any) http.HandlerFunc {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	}
}

// proxy is where all that is not on this host goes. Libraries read that once, so
// it is set before any of them does.
var proxy = newRecorder(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })

func TestMain(m *testing.M) {
	home, err := os.MkdirTemp("", "cloud-test-")
	if err != nil {
		panic(err)
	}
	for name, value := range map[string]string{
		"HTTPS_PROXY": proxy.server.URL, "HTTP_PROXY": proxy.server.URL, "NO_PROXY": "", "https_proxy": "", "http_proxy": "", "no_proxy": "",
		"HOME": home, "DOCKER_CONFIG": "", "XDG_RUNTIME_DIR": "", "XDG_CONFIG_HOME": "", "REGISTRY_AUTH_FILE": "", "PATH": "",
		"AWS_EC2_METADATA_DISABLED": "true", "GOOGLE_APPLICATION_CREDENTIALS": "",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	proxy.server.Close()
	_ = os.RemoveAll(home)
	os.Exit(code)
}

func newReal(t *testing.T) *Keychain {
	t.Helper()
	helpers, err := newHelpers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k, err := newKeychain(helpers, guard{})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// inAzure makes the process believe that it runs in Azure. It returns the token
// service that gives the cloud's own tokens.
func inAzure(t *testing.T) *recorder {
	t.Helper()
	tokens := newRecorder(writeJSON(t, map[string]string{
		"access_token": secret, "expires_in": "3600", "expires_on": "4102444800", "not_before": "0", "token_type": "Bearer", "resource": "x",
	}))
	t.Cleanup(tokens.server.Close)
	environment, err := json.Marshal(map[string]string{
		"name": "test", "activeDirectoryEndpoint": tokens.server.URL + "/", "resourceManagerEndpoint": "https://management.azure.com/",
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "environment.json")
	if err := os.WriteFile(file, environment, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"AZURE_ENVIRONMENT": "AzureStackCloud", "AZURE_ENVIRONMENT_FILEPATH": file,
		"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": secret,
	} {
		t.Setenv(name, value)
	}
	return tokens
}

// TestUnanchoredHost: the helper of Azure, as it is, sends the cloud's token to
// whoever has azurecr.io inside of a name (GO-2026-6225). Through the guard
// nobody is asked anything; without it, the same process shows that it would.
func TestUnanchoredHost(t *testing.T) {
	tokens := inAzure(t)
	k := newReal(t)
	// Of its own name in each run: the helper of the last one may still be trying.
	own := fmt.Sprintf("x%d", time.Now().UnixNano())
	evil := own + ".azurecr.io.attacker.com"
	for _, host := range []string{evil, own + ".azurecr.io.evil", own + "azurecr.io.attacker.com", own + ".attacker.com"} {
		for _, config := range []struct {
			name     string
			warnings int
		}{{"any", 0}, {"Azure", 1}} {
			asked := k.Any()
			if config.warnings > 0 {
				asked = k.Of(Azure)
			}
			if got, warnings := found(t.Context(), t, asked, host+"/app"); got != nil || len(warnings) != config.warnings {
				t.Errorf("%s, %s: shown %q, warnings %q", host, config.name, got, warnings)
			}
		}
		if k.under(host) != nil {
			t.Errorf("%s is asked for", host)
		}
	}
	asked, dialled := tokens.taken(), proxy.taken()
	if asked != nil || slices.ContainsFunc(dialled, func(request string) bool { return strings.Contains(request, own) }) {
		t.Errorf("the token service was asked %q, and %q were dialled", asked, dialled)
	}

	// The control, and what a registry of the cloud gets. The helper goes on
	// trying for half a minute, and nobody waits for that.
	registry, err := name.NewRegistry(evil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = k.helpers.Resolve(registry) }()
	proxy.await("CONNECT " + evil + ":443")
	if asked := tokens.taken(); len(asked) == 0 {
		t.Error("without the guard the token service was not asked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	found(ctx, t, k.Any(), own+".azurecr.io/app")
	proxy.await("CONNECT " + own + ".azurecr.io:443")
	if asked := tokens.taken(); len(asked) == 0 {
		t.Error("for a registry of the cloud the token service was not asked")
	}
}

// TestAWS: the real helper, with an API of our own. It leaves no file behind.
func TestAWS(t *testing.T) {
	api := newRecorder(writeJSON(t, map[string]any{"authorizationData": []any{map[string]any{
		"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + secret)),
		"expiresAt":          4102444800, "proxyEndpoint": "https://" + amazon,
	}}}))
	t.Cleanup(api.server.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_ECR": api.server.URL, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": secret,
	} {
		t.Setenv(name, value)
	}
	k := newReal(t)
	for range 2 {
		if got, warnings := found(t.Context(), t, k.Of(AWS), amazon+"/app"); !slices.Equal(got, []string{secret}) || warnings != nil {
			t.Errorf("shown %q, warnings %q", got, warnings)
		}
	}
	if asked := api.taken(); len(asked) != 1 {
		t.Errorf("asked %q", asked)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(home); err != nil || len(files) > 0 {
		t.Errorf("left behind %v, %v", files, err)
	}
	// What panics in the helper: a configuration that cannot be read.
	t.Setenv("AWS_MAX_ATTEMPTS", secret)
	other := strings.Replace(amazon, "1234", "4321", 1)
	if got, warnings := found(t.Context(), t, k.Of(AWS), other+"/app"); got != nil || len(warnings) != 1 || !strings.HasSuffix(warnings[0], errFailed.Error()) {
		t.Errorf("shown %q, warnings %q", got, warnings)
	}
}

// TestGoogleLater: a metadata service that is not there at first is found later.
// The library alone would go without for ever.
func TestGoogleLater(t *testing.T) {
	service := newRecorder(http.NotFound)
	t.Cleanup(service.server.Close)
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(service.server.URL, "http://"))
	k, c := newReal(t), &clock{}
	k.now = c.Now
	if got, warnings := found(t.Context(), t, k.Of(GCP), "gcr.io/app"); got != nil || len(warnings) != 1 || !strings.HasSuffix(warnings[0], errNone.Error()) {
		t.Fatalf("shown %q, warnings %q", got, warnings)
	}
	service.set(writeJSON(t, map[string]any{"access_token": secret, "expires_in": 3600, "token_type": "Bearer"}))
	registry, err := name.NewRegistry("gcr.io")
	if err != nil {
		t.Fatal(err)
	}
	helpers, ok := k.helpers.(*helpers)
	if !ok {
		t.Fatalf("the helpers are %T", k.helpers)
	}
	if found, err := helpers.library.Resolve(registry); err != nil || found != authn.Anonymous {
		t.Errorf("the library found %v, %v: helpers.google has become needless", found, err)
	}
	c.pass(nothing.kept + 1)
	if got, warnings := found(t.Context(), t, k.Of(GCP), "gcr.io/app"); !slices.Equal(got, []string{secret}) || warnings != nil {
		t.Errorf("shown %q, warnings %q", got, warnings)
	}
	before := fmt.Sprint(service.taken())
	c.pass(memories[GCP].kept + 1)
	if got, _ := found(t.Context(), t, k.Of(GCP), "gcr.io/app"); !slices.Equal(got, []string{secret}) {
		t.Errorf("shown %q", got)
	}
	if after := service.taken(); len(after) > 0 {
		t.Errorf("its token is still good, and asked for again: %q, before %s", after, before)
	}
}
