// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

const userPassword = "p-of-the-user"

// userFixture is a private registry, and a user with a Docker configuration.
type userFixture struct {
	fixture
	folder string // DOCKER_CONFIG
	bin    string // PATH has nothing else
}

// newUserFixture changes the environment, so its tests are not parallel.
func newUserFixture(t *testing.T) userFixture {
	t.Helper()
	r := registrytest.New(t, registrytest.WithBasicAuth("user", userPassword))
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	f := userFixture{
		fixture: fixture{registry: r, signed: r.PushImage(t, "acme/signed:v1"), policies: t.TempDir()},
		folder:  t.TempDir(), bin: t.TempDir(),
	}
	r.SignLegacy(t, f.signed, key)
	f.write(t, "acme.yaml", fmt.Sprintf(`apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: acme}
spec:
  matchImages: [{prefix: %s/acme/}]
  registry: {authentication: {pullSecretRef: {name: rule}}, insecurePlainHTTP: true}
  verification:
    provider: Cosign
    cosign: {authorities: [{name: release, key: {data: %q}}]}
`, r.Host(), key.PublicPEM()))
	f.secret(t, "pratique-system", "rule", "rule")
	f.secret(t, "shop", "account", "account")
	f.secret(t, "shop", "pull", "pull")
	f.write(t, "account.yaml", "{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: shop}, imagePullSecrets: [{name: account}]}")
	for name, value := range map[string]string{
		"DOCKER_CONFIG": f.folder, "PATH": f.bin, "HOME": t.TempDir(), "XDG_RUNTIME_DIR": "", "XDG_CONFIG_HOME": "", "REGISTRY_AUTH_FILE": "", "DOCKER_AUTH_CONFIG": "",
	} {
		t.Setenv(name, value)
	}
	return f
}

// secret makes a pull secret with a wrong password for the user of this name.
func (f userFixture) secret(t *testing.T, namespace, name, user string) {
	t.Helper()
	config := fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":"wrong"}}}`, f.registry.Host(), user)
	f.write(t, "secret-"+name+".yaml", fmt.Sprintf("{apiVersion: v1, kind: Secret, metadata: {name: %s, namespace: %s}, "+
		"type: kubernetes.io/dockerconfigjson, stringData: {.dockerconfigjson: %q}}", name, namespace, config))
}

func (f userFixture) configf(t *testing.T, format string, args ...any) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.folder, "config.json"), fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// helper puts a credential helper on PATH, and returns the file in which it
// notes what it is asked for.
func (f userFixture) helper(t *testing.T, name, script string) (asked string) {
	t.Helper()
	asked = filepath.Join(f.bin, name+".asked")
	script = "#!/bin/sh\nread -r server\necho \"$1 $server\" >> " + asked + "\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(f.bin, "docker-credential-"+name), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return asked
}

func (f userFixture) verify(t *testing.T, args ...string) (stdout string, code int) {
	t.Helper()
	stdout, stderr, code := call(t, f.local(append([]string{"verify", "-f", f.policies, f.signed.ByTag()}, args...)...)...)
	if strings.Contains(stdout+stderr, userPassword) {
		t.Errorf("the password is shown:\n%s%s", stdout, stderr)
	}
	return stdout + stderr, code
}

// tried lists the users whose credentials the registry was shown, in order.
func (f userFixture) tried() string {
	var users []string
	for _, request := range f.registry.Requests() {
		header, ok := strings.CutPrefix(request.Authorization, "Basic ")
		decoded, err := base64.StdEncoding.DecodeString(header)
		if user, _, _ := strings.Cut(string(decoded), ":"); ok && err == nil && (len(users) == 0 || users[len(users)-1] != user) {
			users = append(users, user)
		}
	}
	return strings.Join(users, " ")
}

// TestUserCredentials: the user's own come last, unless secrets are named or
// they are switched off.
func TestUserCredentials(t *testing.T) {
	for name, test := range map[string]struct {
		args  []string
		code  int
		tried string
	}{
		"off":                {[]string{"--user-credentials=false"}, exitInconclusive, "rule"},
		"pull secret":        {[]string{"-n", "shop", "--pull-secret", "pull"}, exitInconclusive, "pull rule"},
		"ServiceAccount":     {[]string{"-n", "shop", "--service-account", "robot"}, exitInconclusive, "rule account"},
		"both":               {[]string{"-n", "shop", "--pull-secret", "pull", "--service-account", "robot"}, exitInconclusive, "pull rule account"},
		"on":                 {nil, exitOK, "rule user"},
		"on for a namespace": {[]string{"-n", "shop"}, exitOK, "rule user"},
	} {
		t.Run(name, func(t *testing.T) {
			// A registry of its own: what is not needed any more may still be
			// asked for when the verdict is there.
			f := newUserFixture(t)
			f.configf(t, `{"auths":{%q:{"auth":%q},"elsewhere.example":{"auth":"bm86bm8="}}}`,
				f.registry.Host(), base64.StdEncoding.EncodeToString([]byte("user:"+userPassword)))
			out, code := f.verify(t, test.args...)
			if code != test.code || !strings.HasPrefix(f.tried(), test.tried) || test.code != exitOK && f.tried() != test.tried {
				t.Errorf("exit code %d, tried %q; want %d, %q\n%s", code, f.tried(), test.code, test.tried, out)
			}
		})
	}
}

// TestCredentialHelper: a helper is run for the registry that is asked about and
// for no other, and only if it is to be used at all.
func TestCredentialHelper(t *testing.T) {
	for name, config := range map[string]string{
		"of the host": `{"credHelpers":{%q:"fake","elsewhere.example":"other"}}`,
		"of all":      `{"auths":{%q:{},"elsewhere.example":{}},"credsStore":"fake","credHelpers":{"elsewhere.example":"other"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newUserFixture(t)
			f.configf(t, config, f.registry.Host())
			answers := fmt.Sprintf(`case "$server" in %s) echo '{"Username":"user","Secret":%q}';; *) echo "credentials not found in native keychain"; exit 1;; esac`,
				f.registry.Host(), userPassword)
			asked, other := f.helper(t, "fake", answers), f.helper(t, "other", answers)
			if out, code := f.verify(t, "--user-credentials=false"); code != exitInconclusive {
				t.Errorf("switched off: exit code %d\n%s", code, out)
			}
			if _, err := os.Stat(asked); err == nil {
				t.Error("the helper was run although it is switched off")
			}
			if out, code := f.verify(t); code != exitOK {
				t.Errorf("exit code %d\n%s", code, out)
			}
			log, err := os.ReadFile(asked)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(string(log)), "\n")
			for _, line := range lines {
				if line != "get "+f.registry.Host() && line != "get "+f.registry.Host()+"/acme/signed" {
					t.Errorf("the helper was asked to %q", line)
				}
			}
			if len(lines) > 2 {
				t.Errorf("the helper was run %d times", len(lines))
			}
			if _, err := os.Stat(other); err == nil {
				t.Error("another host's helper was run")
			}
		})
	}
}

// TestBrokenUserConfig: what is wrong with the user's own configuration is told,
// without a quotation, and the other credentials are tried all the same.
func TestBrokenUserConfig(t *testing.T) {
	f := newUserFixture(t)
	f.helper(t, "leaky", "echo "+userPassword+"; exit 1")
	f.helper(t, "garbled", "echo '{"+userPassword+"'")
	for name, test := range map[string]struct{ config, says string }{
		"malformed":    {`{"auths":{"a":{"auth":"` + userPassword + `"`, errUserConfig.Error()},
		"no helper":    {`{"credsStore":"absent"}`, errUserConfig.Error()},
		"leaky helper": {`{"credsStore":"leaky"}`, errUserConfig.Error()},
		"no JSON":      {`{"credsStore":"garbled"}`, errUserConfig.Error()},
		"nothing":      {`{}`, "answered 401"},
	} {
		t.Run(name, func(t *testing.T) {
			f.configf(t, "%s", test.config)
			f.registry.Reset()
			out, code := f.verify(t)
			if code != exitInconclusive || !strings.Contains(out, test.says) || !strings.Contains(out, "answered 401") || f.tried() != "rule" {
				t.Errorf("exit code %d, tried %q; want %q\n%s", code, f.tried(), test.says, out)
			}
		})
	}
	t.Run("hanging helper", func(t *testing.T) {
		fifo := filepath.Join(f.bin, "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		f.helper(t, "slow", "read -r line < "+fifo)
		// It waits for somebody to write, and ends with the test.
		t.Cleanup(func() {
			if end, err := os.OpenFile(fifo, os.O_RDWR, 0); err == nil {
				_, _ = end.WriteString("\n\n")
				time.Sleep(10 * time.Millisecond)
				_ = end.Close()
			}
		})
		f.configf(t, `{"credsStore":"slow"}`)
		out, code := f.verify(t, "--timeout=1s")
		if code != exitInconclusive {
			t.Errorf("exit code %d\n%s", code, out)
		}
	})
}
