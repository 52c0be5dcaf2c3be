// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

// TestCloudCredentials: the cloud's own come after all others, for every object,
// or in the place of a secret where an ImageConfig names the cloud; and not at
// all if they are switched off.
func TestCloudCredentials(t *testing.T) {
	const host = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	var asked atomic.Int32
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":%q,"expiresAt":4102444800,"proxyEndpoint":"https://%s"}]}`,
			base64.StdEncoding.EncodeToString([]byte("AWS:token")), host)
	}))
	t.Cleanup(api.Close)
	f := newUserFixture(t)
	t.Setenv("AWS_ENDPOINT_URL_ECR", api.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "key")
	f.write(t, "cloud.yaml", fmt.Sprintf(`apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: cloud}
spec:
  matchImages: [{prefix: %[1]s/acme/}]
  registry: {authentication: {provider: AWS}}
---
{apiVersion: v1, kind: Secret, metadata: {name: amazon, namespace: shop}, type: kubernetes.io/dockerconfigjson,
 stringData: {.dockerconfigjson: '{"auths":{"%[1]s":{"username":"own","password":"p"}}}'}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: amazonian, namespace: shop}, imagePullSecrets: [{name: amazon}]}
`, host))
	for name, test := range map[string]struct {
		on    bool
		names credential.Names
		image string
		want  []string
		asked int32
	}{
		"nothing of its own":  {true, credential.Names{}, "/other/app", []string{"AWS"}, 1},
		"pull secret":         {true, credential.Names{Namespace: "shop", PullSecrets: []string{"amazon"}}, "/other/app", []string{"own", "AWS"}, 1},
		"ServiceAccount":      {true, credential.Names{Namespace: "shop", ServiceAccount: "amazonian"}, "/other/app", []string{"own", "AWS"}, 1},
		"named by the rule":   {true, credential.Names{Namespace: "shop", ServiceAccount: "amazonian"}, "/acme/app", []string{"AWS", "own"}, 1},
		"off":                 {false, credential.Names{Namespace: "shop", ServiceAccount: "amazonian"}, "/other/app", []string{"own"}, 0},
		"off, nothing":        {false, credential.Names{}, "/other/app", nil, 0},
		"off, and rule named": {false, credential.Names{Namespace: "shop", ServiceAccount: "amazonian"}, "/acme/app", []string{"own"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			asked.Store(0)
			parts, err := wire(t.Context(), settings{namespace: "pratique-system", clouds: test.on, paths: []string{f.policies}, pathsFlag: "-f"},
				prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			ref, err := reference.Parse(host + test.image)
			if err != nil {
				t.Fatal(err)
			}
			image := policy.Image{Reference: ref, Credentials: parts.rules.Credentials(test.names)}
			if rule := parts.rules.Set().Select(ref, policy.Namespace{}).Authentication; rule != nil {
				image.Authentication = rule.Authentication
			}
			ring, err := image.Ring(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var users []string
			for range 2 {
				users = nil
				for _, auth := range ring.For(t.Context(), ref.Repository()) {
					users = append(users, auth.Username)
				}
			}
			if diff := cmp.Diff(test.want, users); diff != "" || asked.Load() != test.asked {
				t.Errorf("asked %d times, credentials (-want +got):\n%s", asked.Load(), diff)
			}
		})
	}
}
