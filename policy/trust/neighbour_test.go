// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

const (
	mirrorURL = "https://tuf.example.com/repository"
	targetID  = "trusted_root.json"
)

// mirror is a repository of The Update Framework, as its publishers make it. It
// is served by http, or is a transport itself.
type mirror struct {
	t    *testing.T
	keys map[string]ed25519.PrivateKey // by role
	root *metadata.Metadata[metadata.RootType]
	// version is that of timestamp, snapshot and targets.
	version int64
	// lives is how long what is signed is good.
	lives time.Duration
	// length is what targets say of the target's length, if it is not 0.
	length int64

	mu       sync.Mutex
	files    map[string][]byte
	requests []string
	fault    http.Handler // answers in the mirror's stead
}

func newMirror(t *testing.T) *mirror {
	t.Helper()
	m := &mirror{t: t, keys: map[string]ed25519.PrivateKey{}, files: map[string][]byte{}, lives: 7 * 24 * time.Hour}
	m.root = metadata.Root(time.Now().AddDate(10, 0, 0))
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		m.addKey(role)
	}
	m.signRoot(m.keys[metadata.ROOT])
	return m
}

func (m *mirror) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *mirror) addKey(role string) {
	m.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	m.check(err)
	public, err := metadata.KeyFromPublicKey(key.Public())
	m.check(err)
	m.check(m.root.Signed.AddKey(public, role))
	m.keys[role] = key
}

// rotate replaces the keys of roles, as after a theft: root.json has a new
// version, signed by the keys of the last one and its own.
func (m *mirror) rotate(roles ...string) {
	m.t.Helper()
	signers := []ed25519.PrivateKey{m.keys[metadata.ROOT]}
	for _, role := range roles {
		for _, id := range m.root.Signed.Roles[role].KeyIDs {
			m.check(m.root.Signed.RevokeKey(id, role))
		}
		m.addKey(role)
		if role == metadata.ROOT {
			signers = append(signers, m.keys[role])
		}
	}
	m.root.Signed.Version++
	m.root.ClearSignatures()
	m.signRoot(signers...)
}

func (m *mirror) signRoot(keys ...ed25519.PrivateKey) {
	m.t.Helper()
	for _, key := range keys {
		sign(m, m.root, key)
	}
	raw, err := m.root.ToBytes(false)
	m.check(err)
	m.put(fmt.Sprintf("%d.root.json", m.root.Signed.Version), raw)
}

func sign[T metadata.Roles](m *mirror, message *metadata.Metadata[T], key ed25519.PrivateKey) []byte {
	m.t.Helper()
	signer, err := signature.LoadSigner(key, crypto.Hash(0))
	m.check(err)
	_, err = message.Sign(signer)
	m.check(err)
	raw, err := message.ToBytes(false)
	m.check(err)
	return raw
}

// publish signs the next version of everything, with a target.
func (m *mirror) publish(content []byte) {
	m.t.Helper()
	m.version++
	expires := time.Now().Add(m.lives)
	targets := metadata.Targets(expires)
	targets.Signed.Version = m.version
	info, err := metadata.TargetFile().FromBytes(targetID, content, "sha256")
	m.check(err)
	info.Path = targetID
	if m.length != 0 {
		info.Length = m.length
	}
	targets.Signed.Targets[targetID] = info
	snapshot := metadata.Snapshot(expires)
	snapshot.Signed.Version = m.version
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(m.version)
	timestamp := metadata.Timestamp(expires)
	timestamp.Signed.Version = m.version
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(m.version)
	m.put(fmt.Sprintf("%d.targets.json", m.version), sign(m, targets, m.keys[metadata.TARGETS]))
	m.put(fmt.Sprintf("%d.snapshot.json", m.version), sign(m, snapshot, m.keys[metadata.SNAPSHOT]))
	m.put("timestamp.json", sign(m, timestamp, m.keys[metadata.TIMESTAMP]))
	m.put(fmt.Sprintf("targets/%s.%s", info.Hashes["sha256"], targetID), content)
}

func (m *mirror) put(name string, raw []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[name] = raw
}

func (m *mirror) get(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files[name]
}

func (m *mirror) remove(prefix string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.files, func(name string, _ []byte) bool { return strings.HasPrefix(name, prefix) })
}

// spoil changes a byte in the middle of the files of that end.
func (m *mirror) spoil(end string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, raw := range m.files {
		if strings.HasSuffix(name, end) {
			raw = bytes.Clone(raw)
			raw[len(raw)/2] ^= 1
			m.files[name] = raw
		}
	}
}

// save is the state that restore goes back to.
func (m *mirror) save() (restore func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	files := maps.Clone(m.files)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.files = maps.Clone(files)
	}
}

func (m *mirror) answer(fault http.Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = fault
}

// asked forgets the requests that it returns.
func (m *mirror) asked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked := m.requests
	m.requests = nil
	return asked
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	name := strings.TrimPrefix(request.URL.Path, "/repository/")
	m.mu.Lock()
	m.requests = append(m.requests, name)
	raw, ok := m.files[name]
	fault := m.fault
	m.mu.Unlock()
	switch {
	case fault != nil:
		fault.ServeHTTP(w, request)
	case !ok:
		http.NotFound(w, request)
	default:
		_, _ = w.Write(raw)
	}
}

// RoundTrip implements http.RoundTripper without a network, so that a bubble's
// time can pass.
func (m *mirror) RoundTrip(request *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	m.ServeHTTP(recorder, request)
	if err := request.Context().Err(); err != nil {
		return nil, err
	}
	return recorder.Result(), nil
}
