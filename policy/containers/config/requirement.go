// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

// The types of requirements (containers-policy.json(5), "Policy requirements").
const (
	acceptAnything  = "insecureAcceptAnything"
	reject          = "reject"
	signedBy        = "signedBy"
	signedBaseLayer = "signedBaseLayer"
	sigstoreSigned  = "sigstoreSigned"
)

const typeName = "type"

// gpgKeys is the only type of keys that the library verifies with.
const gpgKeys = "GPGKeys"

// members of requirements, by their types.
var requirementMembers = map[string][]string{
	acceptAnything:  {typeName},
	reject:          {typeName},
	signedBy:        {typeName, "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"},
	signedBaseLayer: {typeName, "baseLayerIdentity"},
	sigstoreSigned: {
		typeName, "keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki", "rekorPublicKeyPath",
		"rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas", "signedIdentity",
	},
}

var (
	requirementTypes = []string{acceptAnything, reject, signedBy, sigstoreSigned, signedBaseLayer}
	keyTypes         = []string{gpgKeys, "signedByGPGKeys", "X509Certificates", "signedByX509CAs"}
	gpgSources       = []string{"keyPath", "keyPaths", "keyData"}
	sigstoreSources  = []string{"keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"}
	rekorKeys        = []string{"rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"}
)

const listHint = `write a list such as [{"type": "reject"}]`

// list checks what a scope, or the default, asks.
func (c *checker) list(v hujson.Value, what string) {
	if v.Value != nil && v.Value.Kind() == '{' {
		c.mistakef(v.StartOffset, "write [ and ] around it", "%s is a single requirement, not a list", what)
		c.requirement(v)
		return
	}
	list, ok := c.elements(v, what, listHint)
	if !ok {
		return
	}
	if len(list) == 0 {
		c.missingf(v.StartOffset, listHint, "%s asks nothing: its list is empty", what)
	}
	types := map[string]hujson.Value{}
	for _, element := range list {
		types[c.requirement(element)] = element
	}
	if len(list) < 2 {
		return
	}
	if v, ok := types[reject]; ok {
		c.advisef(v.StartOffset, "keep it alone, or remove it", "reject beside others: the others have no effect")
	} else if v, ok := types[acceptAnything]; ok {
		c.advisef(v.StartOffset, "remove it", "insecureAcceptAnything beside others has no effect: all in a list must accept")
	}
}

// requirement checks one and returns its type, empty if there is none.
func (c *checker) requirement(v hujson.Value) string {
	const hint = `write an object such as {"type": "reject"}`
	list, ok := c.members(v, "a requirement", hint)
	if !ok {
		return ""
	}
	list = c.typeTwice(list)
	kind, ok := c.typeOf(list, v, "a requirement", requirementTypes)
	if !ok {
		return ""
	}
	f := c.named(list, "a requirement of type "+kind, requirementMembers[kind])
	switch kind {
	case signedBy:
		c.signedBy(f, v)
	case sigstoreSigned:
		c.sigstoreSigned(f, v)
	case signedBaseLayer:
		c.mistakef(v.StartOffset, "write signedBy", "signedBaseLayer rejects every image: nothing verifies by it")
		c.baseLayer(f, v)
	}
	return kind
}

// baseLayer checks what a requirement has that is of no use.
func (c *checker) baseLayer(f fields, v hujson.Value) {
	m, ok := f["baseLayerIdentity"]
	if !ok {
		c.missingf(v.StartOffset, "", `a requirement of type signedBaseLayer has no "baseLayerIdentity"`)
		return
	}
	c.identity(m)
}

// typeTwice tells of a requirement with two types of which one is that of a key,
// and gives that its right name: so it is written in a manual that many read.
func (c *checker) typeTwice(list []member) []member {
	is := func(m member) bool {
		return m.name == typeName && slices.Contains(keyTypes, textOf(m.value))
	}
	of := slices.IndexFunc(list, is)
	other := slices.IndexFunc(list, func(m member) bool { return m.name == typeName && !is(m) })
	if of < 0 || other < 0 {
		return list
	}
	m := list[of]
	c.mistakef(m.at, `write "keyType": `+quote(textOf(m.value)), `"type" is there twice, and %s is the type of a key`, quote(textOf(m.value)))
	list = slices.Clone(list)
	if slices.ContainsFunc(list, func(m member) bool { return m.name == "keyType" }) {
		return slices.Delete(list, of, of+1)
	}
	list[of].name = "keyType"
	return list
}

// typeOf reads the type of a requirement or an identity.
func (c *checker) typeOf(list []member, v hujson.Value, what string, known []string) (string, bool) {
	at := slices.IndexFunc(list, func(m member) bool { return m.name == typeName })
	if at < 0 {
		for i, m := range list {
			if nearest(m.name, []string{typeName}) != "" {
				c.mistakef(m.at, `write "type"`, "%s is not %q", quote(m.name), typeName)
				list[i].name, at = typeName, i
				break
			}
		}
	}
	if at < 0 {
		c.missingf(v.StartOffset, `write "type": one of `+names(known), `%s has no "type"`, what)
		return "", false
	}
	kind, ok := c.written(list[at])
	if !ok || slices.Contains(known, kind) {
		return kind, ok
	}
	offset := list[at].value.StartOffset
	noun := what[strings.IndexByte(what, ' ')+1:]
	meant := nearest(kind, known)
	switch {
	case meant != "":
		c.mistakef(offset, "write "+quote(meant), "%s is no type of %s", quote(kind), noun)
	case slices.Contains(keyTypes, kind):
		c.mistakef(offset, `write "type": "signedBy", "keyType": `+quote(kind), "%s is a type of keys, not of a %s", quote(kind), noun)
	default:
		c.mistakef(offset, "write one of "+names(known), "%s is no type of %s", quote(kind), noun)
	}
	// What else is wrong with it is told under the type that was meant.
	return meant, meant != ""
}

func (c *checker) signedBy(f fields, v hujson.Value) {
	const what = "a requirement of type signedBy"
	if kind, ok := c.required(f, v.StartOffset, what, "keyType", `write "keyType": "GPGKeys"`); ok && kind != gpgKeys {
		m := f["keyType"]
		if slices.Contains(keyTypes, kind) {
			c.mistakef(m.value.StartOffset, `write "GPGKeys"`, "keys of type %s reject every image: nothing verifies by them", kind)
		} else {
			c.mistakef(m.value.StartOffset, `write "GPGKeys"`, "%s is no type of keys", quote(kind))
		}
	}
	if m, ok := c.exactlyOne(f, v.StartOffset, what, gpgSources); ok {
		if list, isList := m.value.Value.(*hujson.Array); isList && m.name == "keyPaths" && len(list.Elements) == 0 {
			c.advisef(m.value.StartOffset, "write one or more into it", `"keyPaths" is an empty list: every image is rejected`)
		} else {
			c.material(m, m.name)
		}
	}
	c.signedIdentity(f)
}

func (c *checker) sigstoreSigned(f fields, v hujson.Value) {
	const what = "a requirement of type sigstoreSigned"
	rekor, logged := c.atMostOne(f, what, rekorKeys)
	if logged {
		c.material(rekor, rekor.name)
	}
	if m, ok := c.exactlyOne(f, v.StartOffset, what, sigstoreSources); ok {
		switch m.name {
		case "fulcio":
			c.fulcio(m)
			if len(f.present(rekorKeys)) == 0 {
				c.missingf(v.StartOffset, `write "rekorPublicKeyPath" beside it`,
					`"fulcio" needs the key of a Rekor log, which says when the certificate was used`)
			}
		case "pki":
			c.pki(m)
			if found := f.present(rekorKeys); len(found) > 0 {
				c.mistakef(f[found[0]].at, "remove it", `%q beside "pki": a log is not supported with it`, found[0])
			}
		default:
			c.material(m, m.name)
		}
	}
	c.cosignIdentity(v, c.signedIdentity(f))
}

// cosignIdentity warns of identities that cosign's signatures never have.
func (c *checker) cosignIdentity(v hujson.Value, identity string) {
	switch identity {
	case matchRepoDigestOrExact, matchExact, exactReference, remapIdentity:
		c.advisef(v.StartOffset, `write "signedIdentity": {"type": "matchRepository"} if cosign signs`,
			"the identity %s needs a tag or digest in the signature: cosign writes only the repository, and its signatures never match", identity)
	}
}

func (c *checker) fulcio(m member) {
	const what = `"fulcio"`
	f, ok := c.object(m.value, what, []string{"caPath", "caData", "oidcIssuer", "subjectEmail"})
	if !ok {
		return
	}
	if ca, ok := c.exactlyOne(f, m.at, what, []string{"caPath", "caData"}); ok {
		c.material(ca, ca.name)
	}
	c.required(f, m.at, what, "oidcIssuer", "write who issued the signer's token, as a URL")
	c.required(f, m.at, what, "subjectEmail", "write the signer's address")
}

func (c *checker) pki(m member) {
	const what = `"pki"`
	f, ok := c.object(m.value, what, []string{
		"caRootsPath", "caRootsData", "caIntermediatesPath", "caIntermediatesData", "subjectEmail", "subjectHostname",
	})
	if !ok {
		return
	}
	if roots, ok := c.exactlyOne(f, m.at, what, []string{"caRootsPath", "caRootsData"}); ok {
		c.material(roots, roots.name)
	}
	if between, ok := c.atMostOne(f, what, []string{"caIntermediatesPath", "caIntermediatesData"}); ok {
		c.material(between, between.name)
	}
	said := f.present([]string{"subjectEmail", "subjectHostname"})
	if len(said) == 0 {
		c.missingf(m.at, "write one of subjectEmail and subjectHostname", `"pki" does not say whose certificates are meant`)
	}
	for _, name := range said {
		c.written(f[name])
	}
}
