// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// The issuers, with the names that they have in the world. Those of Google,
// Sigstore and example.com vouch for e-mail addresses.
const (
	ActionsIssuer  = "https://token.actions.githubusercontent.com"
	GoogleIssuer   = "https://accounts.google.com"
	SigstoreIssuer = "https://oauth2.sigstore.dev/auth"
	OtherIssuer    = "https://oidc.example.com"
)

const (
	// audience is whom tokens are for: Sigstore's client.
	audience = "sigstore"
	// tokenFor is longer than any test holds on to a token.
	tokenFor = time.Hour
	// rsaBits and the algorithm are what cosign wants: it takes a token that is
	// not RS256 for the name of a file.
	rsaBits = 2048
	keyID   = "e2e"
)

// Issuers are the URLs of the issuers that Fulcio believes.
func Issuers() []string { return slices.Sorted(maps.Keys(issuerTypes())) }

// issuerTypes are what Fulcio makes of an issuer's tokens.
func issuerTypes() map[string]string {
	return map[string]string{
		ActionsIssuer:  "github-workflow",
		GoogleIssuer:   "email",
		SigstoreIssuer: "email",
		OtherIssuer:    "email",
	}
}

// issuers sign the tokens of all issuers with one key.
type issuers struct{ key *rsa.PrivateKey }

func newIssuers() (issuers, error) {
	key, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		return issuers{}, fmt.Errorf("generating the issuers' key: %w", err)
	}
	return issuers{key}, nil
}

func (i issuers) public() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{
		Key: i.key.Public(), KeyID: keyID, Algorithm: string(jose.RS256), Use: "sig",
	}}}
}

// Token returns an identity token of the issuer with these claims, for any that
// Fulcio's type of issuer reads. Whom it is for and its times are set unless
// they are among them.
func (s *Sigstore) Token(issuer string, claims map[string]any) (string, error) {
	signing, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: s.issuers.key, KeyID: keyID}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("preparing to sign a token: %w", err)
	}
	now := time.Now()
	all := map[string]any{
		"iss": issuer, "aud": audience,
		"iat": now.Unix(), "nbf": now.Add(-clockSkew).Unix(), "exp": now.Add(tokenFor).Unix(),
	}
	maps.Copy(all, claims)
	token, err := jwt.Signed(signing).Claims(all).Serialize()
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return token, nil
}

// EmailToken returns a token of a person or robot. In the certificate the
// subject is the address.
func (s *Sigstore) EmailToken(issuer, email string) (string, error) {
	return s.Token(issuer, map[string]any{"sub": email, "email": email, "email_verified": true})
}

// A Workflow is a run of GitHub Actions.
type Workflow struct {
	// Repository is "owner/name".
	Repository string
	// File is the workflow's, in .github/workflows of the repository; empty means
	// release.yml.
	File string
	// Ref is what it runs for; empty means refs/heads/main.
	Ref string
	// Trigger is the event; empty means push.
	Trigger string
	// SHA is the commit; empty means one of zeros.
	SHA string
	// Name is the workflow's; empty means Release.
	Name string
}

func (w Workflow) complete() Workflow {
	w.File = cmp.Or(w.File, "release.yml")
	w.Ref = cmp.Or(w.Ref, "refs/heads/main")
	w.Trigger = cmp.Or(w.Trigger, "push")
	w.SHA = cmp.Or(w.SHA, strings.Repeat("0", 40))
	w.Name = cmp.Or(w.Name, "Release")
	return w
}

// Subject is the subject of the workflow's certificates.
func (w Workflow) Subject() string { return "https://github.com/" + w.complete().reference() }

// reference is how GitHub names the workflow's file.
func (w Workflow) reference() string {
	return fmt.Sprintf("%s/.github/workflows/%s@%s", w.Repository, w.File, w.Ref)
}

// ActionsToken returns a token of ActionsIssuer, as a run of GitHub Actions gets
// it. In the certificate the subject is w.Subject(), and there are extensions
// for the rest.
func (s *Sigstore) ActionsToken(w Workflow) (string, error) {
	w = w.complete()
	owner, _, _ := strings.Cut(w.Repository, "/")
	return s.Token(ActionsIssuer, map[string]any{
		"sub":                   fmt.Sprintf("repo:%s:ref:%s", w.Repository, w.Ref),
		"event_name":            w.Trigger,
		"job_workflow_ref":      w.reference(),
		"job_workflow_sha":      w.SHA,
		"ref":                   w.Ref,
		"repository":            w.Repository,
		"repository_id":         "1001",
		"repository_owner":      owner,
		"repository_owner_id":   "1002",
		"repository_visibility": "public",
		"run_attempt":           "1",
		"run_id":                "1003",
		"runner_environment":    "github-hosted",
		"sha":                   w.SHA,
		"workflow":              w.Name,
		"workflow_ref":          w.reference(),
		"workflow_sha":          w.SHA,
	})
}
