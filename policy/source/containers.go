// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/json"
	"errors"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers"
	"github.com/pratique-dev/pratique/policy/cosign"
)

// secretPath begins the paths of keys in Secrets: secret://NAME/KEY.
const secretPath = "secret://"

// loaded is the policy.json in force and what goes with it, empty if there is none.
func (c Compiler) loaded() containers.Loaded {
	if c.Containers != nil {
		if loaded := c.Containers(); loaded != nil {
			return *loaded
		}
	}
	return containers.Loaded{}
}

// newSet is what compiled objects and the policy.json in force ask for together.
func (c Compiler) newSet(compiled []Compiled) *policy.Set {
	return policy.NewSet(append(rulesOf(compiled), c.loaded().Rules...))
}

// engine is what judges, or would.
func (c *compilation) engine() string {
	if v := c.config.Spec.Verification; v != nil && v.Provider == v1alpha1.ProviderContainersPolicy {
		return containers.Engine
	}
	return cosign.Engine
}

// requirements compiles those of a policy.json that stand in an ImageConfig.
func (c *compilation) requirements() {
	written := c.config.Spec.Verification.ContainersPolicy.Requirements
	list := make([]json.RawMessage, len(written))
	for i := range written {
		list[i] = written[i].Raw
	}
	reason := v1alpha1.ReasonInvalid
	verification, err := containers.Compile(containers.Options{
		Source: c.compiler.ContainersSource, Registries: c.compiler.loaded().Registries,
		// There is no other place for cosign's signatures than beside the image.
		Attached: true,
	}, list, func(path string) ([]byte, error) {
		data, problem := c.keyFile(path)
		if problem != nil {
			reason = problem.reason
			return nil, errors.New(strings.TrimPrefix(problem.message, ": "))
		}
		return data, nil
	})
	if err != nil {
		// As a rule the error begins with the one that it is about: requirements[0].
		what := short(err)
		if !strings.HasPrefix(what, "requirements[") {
			what = "requirements: " + what
		}
		c.problems = append(c.problems, wrong(reason, "spec.verification.containersPolicy.%s", what))
		return
	}
	c.rule.Verification = verification
}

// keyFile finds what a requirement names by a path. An ImageConfig may not have
// files read: those are this server's own, whoever writes the ImageConfig.
func (c *compilation) keyFile(path string) ([]byte, *mistake) {
	inSecret, ok := strings.CutPrefix(path, secretPath)
	if !ok {
		return nil, wrong(v1alpha1.ReasonInvalid,
			"ImageConfigs name no files: write secret://NAME/KEY, of a Secret in Pratique's own namespace, or what is in the file as keyData or its like")
	}
	name, key, _ := strings.Cut(inSecret, "/")
	if len(validation.IsDNS1123Subdomain(name)) > 0 || len(validation.IsConfigMapKey(key)) > 0 {
		return nil, wrong(v1alpha1.ReasonInvalid, "write secret://NAME/KEY, of a Secret in Pratique's own namespace")
	}
	// The path itself is told by whoever asked for it.
	return c.read(entry{kind: v1alpha1.TrustRootSecret, name: name, key: key})
}
