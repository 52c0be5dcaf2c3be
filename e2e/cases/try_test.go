// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTry: pratique try says what happens to a Pod, and makes none.
func TestTry(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.policy(t, "", keyed(r.prefix(), r.key))
	signed, unsigned := r.signed(t, "signed:v1"), r.unsigned(t, "unsigned:v1")
	for name, test := range map[string]struct {
		args []string
		exit int
		want string
	}{
		"signed":                      {[]string{signed.ByTag()}, 0, "Admitted  " + signed.ByBoth() + "\n"},
		"unsigned":                    {[]string{unsigned.ByTag()}, 1, "Denied  " + unsigned.ByTag() + `: admission webhook "pods.pratique.dev" denied the request: `},
		"unsigned, as it should be":   {[]string{unsigned.ByTag(), "--expect=Denied"}, 0, "no signature"},
		"signed, as it should not":    {[]string{signed.ByTag(), "--expect=Denied"}, 1, "Admitted  "},
		"refused by somebody else":    {[]string{signed.ByTag(), "-n", "no-such-namespace", "--expect=Denied"}, 2, `namespaces "no-such-namespace" not found`},
		"nobody there in time to ask": {[]string{signed.ByTag(), "--timeout=1ns"}, 3, "nobody knows"},
	} {
		args := append([]string{"try", "-n", r.namespace}, test.args...)
		command := exec.CommandContext(t.Context(), r.Binary, args...)
		command.Env = append(os.Environ(), "KUBECONFIG="+r.Kubeconfig)
		output, err := command.CombinedOutput()
		if command.ProcessState == nil {
			t.Fatal(err)
		}
		if code := command.ProcessState.ExitCode(); code != test.exit || !strings.Contains(string(output), test.want) {
			t.Errorf("%s: exit code %d and\n%s", name, code, output)
		}
	}
	pods, err := r.client.CoreV1().Pods(r.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) > 0 {
		t.Errorf("%d Pods were made, %v", len(pods.Items), err)
	}
}
