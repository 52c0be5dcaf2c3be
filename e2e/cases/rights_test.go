// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/pratique-dev/pratique/e2e/env"
)

// auditing makes the API server note what Pratique's ServiceAccount asks of it,
// and returns the flags for it and the file.
func auditing(dir string) (flags []string, path string, err error) {
	policy, err := json.Marshal(map[string]any{
		"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": []string{"RequestReceived"},
		"rules": []map[string]any{{"level": "Metadata", "users": []string{env.AccountUser}}, {"level": "None"}},
	})
	if err != nil {
		return nil, "", err
	}
	file, path := filepath.Join(dir, "audit.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(file, policy, 0o600); err != nil {
		return nil, "", err
	}
	return []string{"--audit-policy-file=" + file, "--audit-log-path=" + path}, path, nil
}

// audited is one request of Pratique's ServiceAccount.
type audited struct {
	Verb      string `json:"verb"`
	URI       string `json:"requestURI"`
	ObjectRef struct {
		Group       string `json:"apiGroup"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	Status struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// audited reads what was noted so far.
func (w *world) audited() ([]audited, error) {
	log, err := os.Open(w.auditLog)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	var requests []audited
	for reader := bufio.NewReader(log); ; {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return requests, nil // what has no end is being written
		}
		if err != nil {
			return nil, err
		}
		var request audited
		if err := json.Unmarshal(line, &request); err != nil {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		requests = append(requests, request)
	}
}

// noRightMissed returns an error if Pratique was refused anything.
func (w *world) noRightMissed() error {
	requests, err := w.audited()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range requests {
		if r.Status.Code == http.StatusForbidden || r.Status.Code == http.StatusUnauthorized {
			errs = append(errs, fmt.Errorf("the API server refused Pratique, with %d: %s %s", r.Status.Code, r.Verb, r.URI))
		}
	}
	return errors.Join(errs...)
}

// right is one verb on one resource. Empty is any namespace, and any name.
type right struct{ namespace, group, resource, name, verb string }

func (r right) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s.%s %s %s", r.verb, r.resource, r.group, r.namespace, r.name))
}

// covers reports whether the request was one for which this right is.
func (r right) covers(request audited) bool {
	ref := request.ObjectRef
	resource := strings.TrimSuffix(ref.Resource+"/"+ref.Subresource, "/")
	return r.verb == request.Verb && r.group == ref.Group && r.resource == resource &&
		(r.namespace == "" || r.namespace == ref.Namespace) && (r.name == "" || r.name == ref.Name)
}

// review asks whether somebody has the right.
func (r right) review(user string) *authorizationv1.SubjectAccessReview {
	resource, subresource, _ := strings.Cut(r.resource, "/")
	return &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: r.namespace, Verb: r.verb, Group: r.group, Resource: resource, Subresource: subresource, Name: r.name,
		},
	}}
}

// rightsOf are those of the roles in deploy/rbac, one by one.
func rightsOf(t *testing.T) []right {
	t.Helper()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	var rights []right
	for _, file := range append(env.Rights(), crossplaneRights, policyControllerRights) {
		content, err := os.ReadFile(filepath.Join(root, "deploy", "rbac", file))
		if err != nil {
			t.Fatal(err)
		}
		for decoder := utilyaml.NewYAMLToJSONDecoder(bytes.NewReader(content)); ; {
			var object rbacv1.ClusterRole // a Role has the same fields
			err := decoder.Decode(&object)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for _, rule := range object.Rules {
				rights = append(rights, rightsIn(object.Namespace, rule)...)
			}
		}
	}
	return rights
}

func rightsIn(namespace string, rule rbacv1.PolicyRule) []right {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	var rights []right
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, name := range names {
				for _, verb := range rule.Verbs {
					rights = append(rights, right{namespace, group, resource, name, verb})
				}
			}
		}
	}
	return rights
}

// TestEveryRightIsUsed: what the roles allow is what the API server is asked
// for, and nothing else is. That no right is missing, whatever the cases do, is
// told when all of them have ended (noRightMissed).
func TestEveryRightIsUsed(t *testing.T) {
	t.Parallel()
	r := newRoom(t).at(shared.private)
	r.enforce(t) // its status is written
	r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
	signed := r.signed(t, "app:v1")
	r.try(t.Context(), withSecrets(pod("app", signed.ByTag()), "pull")).admitted(t, signed.ByBoth())
	// A namespace that the watch has not told of yet.
	reviewed(t, 200, second(post(t, poster(t, r.Server), "https://"+r.Address+"/validate?timeout=5s", "application/json",
		strings.NewReader(review(r.namespace+"-not-there", podJSON(signed.ByDigest()))))))
	// An API server of before 1.34 is asked for a list first, and then to watch.
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	lists, err := r.Alone(t.Context(), env.ServerOptions{
		Name: "lists", Args: []string{"--containers-policy", policy}, Environment: []string{"KUBE_FEATURE_WatchListClient=false"},
	})
	if err != nil {
		t.Fatal(err)
	}
	// What is spoilt later is told by an Event.
	if err := os.WriteFile(policy, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lists.Terminate(); err != nil {
			t.Error(err)
		}
	})

	rights := rightsOf(t)
	if len(rights) < 10 {
		t.Fatalf("only %d rights: the files are not what this test takes them for", len(rights))
	}
	r.eventually(t, inForce, "every right is used", func(context.Context) error {
		requests, err := r.audited()
		if err != nil {
			return err
		}
		var errs []error
		for _, right := range rights {
			if !slices.ContainsFunc(requests, right.covers) {
				errs = append(errs, fmt.Errorf("nobody asked to %s", right))
			}
		}
		return errors.Join(errs...)
	})
	log, err := os.ReadFile(r.Log("pratique"))
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.ToLower(string(log)); strings.Contains(text, "forbidden") {
		t.Errorf("the log tells of something forbidden:\n%s", log)
	}
}

// TestRightsAreFew: who has the roles, and nothing else, may do what they say
// and nothing that would be worth stealing the token for.
func TestRightsAreFew(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.account(t, "probe")
	r.bind(t, "probe")
	user := "system:serviceaccount:" + r.namespace + ":probe"
	allowed := func(ctx context.Context, right right) (bool, error) {
		review, err := r.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, right.review(user), metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		return review.Status.Allowed, nil
	}
	for _, right := range rightsOf(t) {
		r.eventually(t, inForce, "it may "+right.String(), func(ctx context.Context) error {
			if ok, err := allowed(ctx, right); err != nil || !ok {
				return fmt.Errorf("allowed is %t: %w", ok, err)
			}
			return nil
		})
	}

	const own, crd, leases = env.Namespace, "pratique.dev", "coordination.k8s.io"
	never := []right{
		{"", "", "secrets", "", "list"},
		{"", "", "secrets", "", "watch"},
		{r.namespace, "", "secrets", "", "list"},
		{r.namespace, "", "secrets", "", "watch"},
		{"kube-system", "", "secrets", "", "list"},
		{"", "", "serviceaccounts", "", "list"},
		{"", "", "serviceaccounts", "", "watch"},
		{own, "", "serviceaccounts/token", "pratique", "create"},
		{r.namespace, "", "serviceaccounts/token", "default", "create"},
		{"", "", "users", "", "impersonate"},
		{"", "", "pods", "", "get"},
		{"", "", "pods", "", "list"},
		{own, "", "configmaps", "", "get"},
		{"", crd, "imageconfigs", "", "get"}, // it watches them
		{"", crd, "imageconfigs/status", "", "update"},
		{own, "events.k8s.io", "events", "", "list"},
		{own, "events.k8s.io", "events", "", "patch"},
		{r.namespace, "events.k8s.io", "events", "", "create"},
		{own, leases, "leases", "another", "get"},
		{own, leases, "leases", "another", "update"},
		{own, leases, "leases", "", "list"},
		{own, leases, "leases", "pratique", "delete"},
		{r.namespace, leases, "leases", "pratique", "update"},
		{r.namespace, leases, "leases", "", "create"},
		{"", "rbac.authorization.k8s.io", "clusterroles", "pratique", "escalate"},
		{"", "rbac.authorization.k8s.io", "clusterroles", "cluster-admin", "bind"},
	}
	for _, verb := range []string{"create", "update", "patch", "delete", "deletecollection"} {
		never = append(never,
			right{own, "", "secrets", "", verb},
			right{r.namespace, "", "secrets", "", verb},
			right{r.namespace, "", "serviceaccounts", "", verb},
			right{"", "", "namespaces", "", verb},
			right{"", crd, "imageconfigs", "", verb},
			right{"", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "", verb},
		)
	}
	for _, right := range never {
		if ok, err := allowed(t.Context(), right); err != nil || ok {
			t.Errorf("it may %s: %v", right, err)
		}
	}
	// The same by the command that an admin would try.
	output, ok := r.kubectl(t, "auth", "can-i", "list", "secrets", "--as", user)
	if ok || !strings.HasPrefix(output, "no") {
		t.Errorf("kubectl auth can-i: %s", output)
	}
}

// bind gives a ServiceAccount of the room what Pratique's own has.
func (r *room) bind(t *testing.T, account string) {
	t.Helper()
	name := r.namespace + "-" + account
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: r.namespace}}
	for namespace, kind := range map[string]string{"": "ClusterRole", env.Namespace: "Role", crossplaneNamespace: "Role", policyControllerNamespace: "Role"} {
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: "pratique"}
		meta := metav1.ObjectMeta{Name: name}
		var made runtime.Object
		var err error
		if kind == "Role" {
			made, err = r.client.RbacV1().RoleBindings(namespace).Create(t.Context(),
				&rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}, metav1.CreateOptions{})
		} else {
			made, err = r.client.RbacV1().ClusterRoleBindings().Create(t.Context(),
				&rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatalf("%T: %v", made, err)
		}
	}
	t.Cleanup(func() {
		for _, namespace := range []string{env.Namespace, crossplaneNamespace, policyControllerNamespace} {
			_ = r.client.RbacV1().RoleBindings(namespace).Delete(context.Background(), name, metav1.DeleteOptions{})
		}
		_ = r.client.RbacV1().ClusterRoleBindings().Delete(context.Background(), name, metav1.DeleteOptions{})
	})
}
