// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/pratique-dev/pratique/api/v1alpha1"
)

// Objects finds what ImageConfigs name, by namespace and name; nil if there is
// none. Of a Secret outside of Pratique's own namespace nothing but its public
// key has to be there.
type Objects struct {
	Secret    func(namespace, name string) (*corev1.Secret, error)
	ConfigMap func(namespace, name string) (*corev1.ConfigMap, error)
}

// entry is a key of a Secret or ConfigMap that an ImageConfig names at a path.
type entry struct {
	path string
	kind v1alpha1.TrustRootKind
	// namespace is "" for Pratique's own.
	namespace, name, key string
}

func (e entry) String() string {
	name := e.name
	if e.namespace != "" {
		name = e.namespace + "/" + name
	}
	if e.kind == v1alpha1.TrustRootSecret {
		return fmt.Sprintf("secret %q", name)
	}
	return fmt.Sprintf("ConfigMap %q", name)
}

// wrong is a mistake in what stands there. It must not repeat what a Secret holds.
func (e entry) wrong(err error) *mistake {
	return wrong(e.invalid(), "%s: %s, key %q: %s", e.path, e, e.key, short(err))
}

func (e entry) invalid() string {
	if e.kind == v1alpha1.TrustRootSecret {
		return v1alpha1.ReasonSecretInvalid
	}
	return v1alpha1.ReasonConfigMapInvalid
}

// read finds what stands under the key.
func (c *compilation) read(e entry) ([]byte, *mistake) {
	data, problem := c.dataOf(e)
	if problem != nil {
		return nil, problem
	}
	value, ok := data[e.key]
	if !ok {
		return nil, wrong(e.invalid(), "%s: %s has no key %q", e.path, e, e.key)
	}
	return value, nil
}

func (c *compilation) dataOf(e entry) (map[string][]byte, *mistake) {
	if e.kind == v1alpha1.TrustRootSecret {
		secret, problem := c.secretAt(e)
		if problem != nil {
			return nil, problem
		}
		return secret.Data, nil
	}
	object, err := c.objects.ConfigMap(cmp.Or(e.namespace, c.compiler.namespace), e.name)
	switch {
	case err != nil:
		return nil, wrong(v1alpha1.ReasonReadFailed, "%s: reading %s: %s", e.path, e, short(err))
	case object == nil:
		return nil, c.absent(e)
	default:
		return configMapData(object), nil
	}
}

// secretAt finds a Secret, whatever the key.
func (c *compilation) secretAt(e entry) (*corev1.Secret, *mistake) {
	e.kind = v1alpha1.TrustRootSecret
	secret, err := c.objects.Secret(cmp.Or(e.namespace, c.compiler.namespace), e.name)
	switch {
	case err != nil:
		return nil, wrong(v1alpha1.ReasonReadFailed, "%s: reading %s: %s", e.path, e, short(err))
	case secret == nil:
		return nil, c.absent(e)
	default:
		return secret, nil
	}
}

func (c *compilation) absent(e entry) *mistake {
	reason, where := v1alpha1.ReasonConfigMapNotFound, ""
	if e.kind == v1alpha1.TrustRootSecret {
		reason = v1alpha1.ReasonSecretNotFound
	}
	if e.namespace == "" {
		where = fmt.Sprintf(" in Pratique's namespace %q (set by --namespace)", c.compiler.namespace)
	}
	return wrong(reason, "%s: %s does not exist%s", e.path, e, where)
}

// configMapData joins both kinds of data of a ConfigMap. An API server sees to
// it that no key is in both; where there is none, the text counts.
func configMapData(object *corev1.ConfigMap) map[string][]byte {
	data := make(map[string][]byte, len(object.Data)+len(object.BinaryData))
	maps.Copy(data, object.BinaryData)
	for key, text := range object.Data {
		data[key] = []byte(text)
	}
	return data
}

// maxCause is how much is repeated of why something cannot be used, in bytes:
// libraries write whole structures into their errors.
const maxCause = 512

// short is an error on one line.
func short(err error) string {
	return clip(oneLine(err.Error()), maxCause)
}
