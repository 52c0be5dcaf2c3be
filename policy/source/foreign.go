// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// readAgain is when Secrets that are not watched are read again. A change is
	// in force after twice that at most, which must be less than a minute.
	readAgain = 25 * time.Second
	// keptWithout is for how long a key of one stays in force although the API
	// server does not say whether it is still there.
	keptWithout = 10 * time.Minute
	// foreignTime bounds what one compilation spends on reading them: it holds up
	// all other changes.
	foreignTime = 5 * time.Second
)

// foreign is what is kept of Secrets outside of Pratique's own namespace, which
// must not be watched: the public keys in them. One compilation at a time looks.
type foreign struct {
	kept map[objectKey]keptSecret
}

// keptSecret is what is kept of a Secret; nil if there is none.
type keptSecret struct {
	secret *corev1.Secret
	at     time.Time // when it was read
}

// askSecret reads a Secret; nil if there is none.
type askSecret func(ctx context.Context, key objectKey) (*corev1.Secret, error)

// foreignLook is one compilation's look at foreign Secrets. Those that it does
// not look at are forgotten.
type foreignLook struct {
	from *foreign
	ask  askSecret
	seen map[objectKey]keptSecret
}

func (f *foreign) look(ask askSecret) *foreignLook {
	return &foreignLook{from: f, ask: ask, seen: map[objectKey]keptSecret{}}
}

func (l *foreignLook) secret(ctx context.Context, key objectKey) (*corev1.Secret, error) {
	if seen, ok := l.seen[key]; ok {
		return seen.secret, nil
	}
	kept, known := l.from.kept[key]
	if !known || time.Since(kept.at) >= readAgain {
		secret, err := l.ask(ctx, key)
		switch {
		case err == nil:
			kept = keptSecret{onlyPublicKey(secret), time.Now()}
		case !known || time.Since(kept.at) >= keptWithout:
			return nil, err
		}
	}
	l.seen[key] = kept
	return kept.secret, nil
}

// done keeps what was looked at, and reports whether that was anything.
func (l *foreignLook) done() bool {
	l.from.kept = l.seen
	return len(l.seen) > 0
}

// onlyPublicKey drops the rest of a Secret: beside the public key cosign keeps
// the private one, and its password.
func onlyPublicKey(secret *corev1.Secret) *corev1.Secret {
	if secret == nil {
		return nil
	}
	kept := &corev1.Secret{Type: secret.Type}
	if key, ok := secret.Data[secretPublicKey]; ok {
		kept.Data = map[string][]byte{secretPublicKey: key}
	}
	return kept
}
