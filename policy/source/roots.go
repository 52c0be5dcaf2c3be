// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy/trust"
)

// foundRoot is a trust root, and where it is from.
type foundRoot struct {
	*trust.Root

	// lacks is the mistake that something is not in it.
	lacks func(what string) *mistake
}

// root finds the trust root that is named at a path; without a name the server's.
func (c *compilation) root(named *v1alpha1.TrustRootReference, path string) (foundRoot, *mistake) {
	if named == nil {
		return c.defaultRoot(path)
	}
	e := entry{path: path + ".trustRootRef", kind: named.Kind, name: string(named.Name), key: string(named.Key)}
	data, problem := c.read(e)
	if problem != nil {
		return foundRoot{}, problem
	}
	parsed, err := trust.Parse(data)
	if err != nil && e.kind == v1alpha1.TrustRootSecret {
		// Another Secret may have been named, and the parser repeats what it reads.
		err = errors.New("not a trust root (trusted_root.json)")
	}
	if err != nil {
		return foundRoot{}, e.wrong(err)
	}
	return foundRoot{parsed, func(what string) *mistake {
		return e.wrong(fmt.Errorf("the trust root has no %s", what))
	}}, nil
}

func (c *compilation) defaultRoot(path string) (foundRoot, *mistake) {
	if c.compiler.Trust == nil {
		return foundRoot{}, wrong(v1alpha1.ReasonNotSupported, "%s: this server has no trust root of its own: name one by trustRootRef", path)
	}
	found, err := c.compiler.Trust()
	if err == nil && found == nil {
		err = errors.New("there is none")
	}
	if err != nil {
		return foundRoot{}, wrong(v1alpha1.ReasonPending, "%s: the server's trust root is not there yet: %s", path, short(err))
	}
	return foundRoot{found, func(what string) *mistake {
		return wrong(v1alpha1.ReasonInvalid, "%s: the server's trust root has no %s", path, what)
	}}, nil
}

// trust joins the roots that an authority names, and holds each to having what
// is asked of it: without it nothing could ever be accepted.
func (c *compilation) trust(a *v1alpha1.Authority, path string) (*trust.Root, *mistake) {
	var certificates, logs, timestamps foundRoot
	var problem *mistake
	if a.Keyless != nil {
		if certificates, problem = c.certificates(a, path+".keyless"); problem != nil {
			return nil, problem
		}
		logs, timestamps = certificates, certificates
	}
	if a.CTLog != nil {
		if logs, problem = c.logs(a.CTLog, path+".ctlog"); problem != nil {
			return nil, problem
		}
	}
	if a.RFC3161Timestamp != nil {
		timestamps, problem = c.root(&a.RFC3161Timestamp.TrustRootRef, path+".rfc3161timestamp")
		if problem != nil {
			return nil, problem
		}
		if !timestamps.HasTimestampAuthorities() {
			return nil, timestamps.lacks("timestamp authority")
		}
	}
	if certificates.Root == nil && logs.Root == nil && timestamps.Root == nil {
		return nil, nil //nolint:nilnil // a key alone needs no root
	}
	return trust.Compose(certificates.Root, logs.Root, timestamps.Root), nil
}

// certificates finds the root of an authority without a key. The time at which a
// certificate was used is told by a log or by a timestamp: one must be possible.
func (c *compilation) certificates(a *v1alpha1.Authority, path string) (foundRoot, *mistake) {
	found, problem := c.root(a.Keyless.TrustRootRef, path)
	switch {
	case problem != nil:
		return found, problem
	case !found.HasCertificateAuthorities():
		return found, found.lacks("certificate authority")
	case !a.Keyless.InsecureIgnoreSCT && !found.HasCertificateLogs():
		return found, found.lacks("certificate transparency log (insecureIgnoreSCT: true would ask for none)")
	case a.CTLog == nil && a.RFC3161Timestamp == nil &&
		!found.HasTransparencyLogs() && !found.HasTimestampAuthorities():
		return found, found.lacks("transparency log and no timestamp authority: nothing would tell when a certificate was used")
	}
	return found, nil
}

// logs finds the transparency logs, of which one must have an entry.
func (c *compilation) logs(asked *v1alpha1.TransparencyLog, path string) (foundRoot, *mistake) {
	found, problem := c.root(asked.TrustRootRef, path)
	if problem != nil {
		return found, problem
	}
	all := found.Material.RekorLogs()
	if len(all) == 0 {
		return found, found.lacks("transparency log")
	}
	if asked.URL == "" {
		return found, nil
	}
	chosen := map[string]*root.TransparencyLog{}
	others := map[string]bool{}
	for id, log := range all {
		if sameAddress(log.BaseURL, asked.URL) {
			chosen[id] = log
		} else {
			others[log.BaseURL] = true
		}
	}
	if len(chosen) == 0 {
		return found, found.lacks(fmt.Sprintf("transparency log %q, but %q", asked.URL, slices.Sorted(maps.Keys(others))))
	}
	found.Root = &trust.Root{
		Material: &chosenLogs{found.Material, chosen},
		Hash:     sha256.Sum256(fmt.Appendf(nil, "%x, of its logs %q", found.Hash, asked.URL)),
	}
	return found, nil
}

// sameAddress compares addresses of logs, which are written with a slash at
// their end or without.
func sameAddress(one, other string) bool {
	return strings.TrimRight(one, "/") == strings.TrimRight(other, "/")
}

// chosenLogs is a trust root of whose transparency logs only some count.
type chosenLogs struct {
	root.TrustedMaterial

	chosen map[string]*root.TransparencyLog
}

// RekorLogs implements [root.TrustedMaterial].
func (l *chosenLogs) RekorLogs() map[string]*root.TransparencyLog { return l.chosen }
